/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosted sparse extents (VMware "Virtual Disk Format 1.1", hosted sparse extents and
 * stream-optimized compressed sparse extents). Little-endian; numbers of sectors are of 512 bytes.
 *
 *	 0  4  magic "KDMV"             "kdmv" while a writer is not done with the file
 *	 4  4  version                  1, 2 (zeroed grains), 3 (streams; changed block tracking)
 *	 8  4  flags                    below
 *	12  8  capacity, sectors        0: the file only holds a descriptor
 *	20  8  grain, sectors           a power of two, 128 nearly always
 *	28  8  descriptor, sector       0: none
 *	36  8  descriptor, sectors
 *	44  4  entries of a grain table 512
 *	48  8  redundant directory      not read
 *	56  8  directory, sector        all ones: the footer has it
 *	64  8  overhead, sectors        metadata before the first grain
 *	72  1  unclean shutdown         the tables are kept consistent all the same
 *	73  4  0A 20 0D 0A              lost where something "converted" line ends
 *	77  2  compression              0 none, 1 deflate
 *
 * Directory: a u32 sector per table. Table: a u32 sector per grain. 0 is absent; 1 reads as zeros
 * (flag bit 2 announces it, but no writer can mean the descriptor's sector by it).
 *
 * A stream ends with a marker (u64 1, u32 0, u32 3), the footer (a header again, with the real
 * directory) and an end-of-stream marker of zeros. Transports append zeros after it.
 */
#include <errno.h>
#include <string.h>

#include "extent.h"
#include "imgfs/checked.h"
#include "imgfs/wire.h"

#define HOSTED_MAGIC             0
#define HOSTED_VERSION           4
#define HOSTED_FLAGS             8
#define HOSTED_CAPACITY          12
#define HOSTED_GRAIN             20
#define HOSTED_DESCRIPTOR        28
#define HOSTED_DESCRIPTOR_LENGTH 36
#define HOSTED_ENTRIES           44
#define HOSTED_DIRECTORY         56
#define HOSTED_OVERHEAD          64
#define HOSTED_NEWLINES          73
#define HOSTED_ALGORITHM         77

#define FLAG_NEWLINES            (1u << 0) /* the bytes at 73 are there to be checked */
#define FLAG_COMPRESSED          (1u << 16)
#define FLAG_MARKERS             (1u << 17)
#define FLAGS_KNOWN_HIGH         (FLAG_COMPRESSED | FLAG_MARKERS) /* the upper half must be understood */
#define FLAGS_HIGH               0xffff0000u

#define DIRECTORY_IN_FOOTER      UINT64_MAX

#define VERSION_MAX              3
#define GRAIN_MAX                0x200000u /* sectors, 1 GiB; QEMU's limit */
#define ENTRIES_MAX              512u

#define ALGORITHM_DEFLATE        1

/* The marker before the footer. */
#define MARKER_SECTORS 0  /* u64: how many follow */
#define MARKER_SIZE    8  /* u32: 0, which no grain has */
#define MARKER_TYPE    12 /* u32 */
#define MARKER_FOOTER  3

/* Padding after a stream: a tar block, a sector of a burnt disk; far below this. */
#define PADDING_MAX (1u << 20)

static int decode(const uint8_t *p, struct vmdk_hosted_header *h, struct why *why)
{
	bool newlines = memcmp(p + HOSTED_NEWLINES, "\n \r\n", 4) == 0;

	*h = (struct vmdk_hosted_header) {
		.version = get_le32(p + HOSTED_VERSION),
		.flags = get_le32(p + HOSTED_FLAGS),
		.capacity = get_le64(p + HOSTED_CAPACITY),
		.grain = get_le64(p + HOSTED_GRAIN),
		.descriptor_offset = get_le64(p + HOSTED_DESCRIPTOR),
		.descriptor_size = get_le64(p + HOSTED_DESCRIPTOR_LENGTH),
		.entries = get_le32(p + HOSTED_ENTRIES),
		.directory = get_le64(p + HOSTED_DIRECTORY),
		.overhead = get_le64(p + HOSTED_OVERHEAD),
		.algorithm = get_le16(p + HOSTED_ALGORITHM),
		.regular = newlines,
	};
	if (get_le32(p + HOSTED_MAGIC) == VMDK_UNFINISHED_MAGIC)
		return why_set(why, -EINVAL, "its writer has not finished it ('kdmv')");
	if (get_le32(p + HOSTED_MAGIC) != VMDK_HOSTED_MAGIC)
		return why_set(why, -EINVAL, "it does not begin like a hosted sparse extent");
	if (h->version == 0 || h->version > VERSION_MAX)
		return why_set(why, -ENOTSUP, "hosted sparse extents of version %u are not known",
			h->version);
	if (h->flags & FLAGS_HIGH & ~FLAGS_KNOWN_HIGH)
		return why_set(
			why, -ENOTSUP, "its header has flags that are not known (0x%x)", h->flags);
	if ((h->flags & FLAG_NEWLINES) && !newlines)
		return why_set(why, -EINVAL,
			"its header has lost its newline bytes, as after a transfer in text mode");
	return 0;
}

/* ---- footer ---- */

/* The sector that holds the last byte that is not 0. */
static int find_last_sector(const struct file *file, uint64_t *sector, struct why *why)
{
	uint64_t size = file->size;
	uint64_t lowest = size - min_u64(size, PADDING_MAX);
	uint8_t chunk[4096];
	uint64_t start;

	for (uint64_t end = size; end > lowest; end = start) {
		uint64_t length = min_u64(sizeof(chunk), end - lowest);
		int r;

		start = end - length;
		r = file_read(file, chunk, length, start);
		if (r < 0)
			return why_set(why, r, "its end cannot be read");
		while (length > 0 && chunk[length - 1] == 0)
			length--;
		if (length > 0) {
			*sector = (start + length - 1) / VMDK_SECTOR;
			return 0;
		}
	}
	return why_set(why, -EINVAL, "it has no footer before the zeros at its end");
}

/* Do readers that look at one of the two, in whatever order, see the same disk? */
static bool footer_agrees(
	const struct vmdk_hosted_header *h, const struct vmdk_hosted_header *footer)
{
	return footer->regular && h->regular && footer->version == h->version &&
	       footer->flags == h->flags && footer->capacity == h->capacity &&
	       footer->grain == h->grain && footer->entries == h->entries &&
	       footer->overhead == h->overhead && footer->algorithm == h->algorithm;
}

static int read_footer(const struct file *file, struct vmdk_hosted_header *h, struct why *why)
{
	struct vmdk_hosted_header footer;
	uint8_t p[2 * VMDK_SECTOR];
	uint64_t sector = 0;
	int r;

	r = find_last_sector(file, &sector, why);
	if (r < 0)
		return r;
	if (sector >= 2)
		r = file_read(file, p, sizeof(p), (sector - 1) * VMDK_SECTOR);
	if (r < 0 && r != -ERANGE)
		return why_set(why, r, "its footer cannot be read");
	if (sector < 2 || r < 0 || get_le64(p + MARKER_SECTORS) != 1 ||
		get_le32(p + MARKER_SIZE) != 0 || get_le32(p + MARKER_TYPE) != MARKER_FOOTER)
		return why_set(why, -EINVAL, "it does not end with a footer: it may be cut short");
	r = decode(p + VMDK_SECTOR, &footer, why);
	if (r == 0 && footer.capacity == 0)
		r = why_set(why, -EINVAL, "it says that there is no capacity");
	if (r == 0 && footer.directory == DIRECTORY_IN_FOOTER)
		r = why_set(why, -EINVAL, "it does not say where the grain directory is");
	if (r < 0) {
		why_prefix(why, "its footer");
		return r;
	}
	/* The descriptor is the start's, and strict readers want nothing after the end of stream.
	 */
	footer.descriptor_offset = h->descriptor_offset;
	footer.descriptor_size = h->descriptor_size;
	footer.regular = footer_agrees(h, &footer) && (sector + 2) * VMDK_SECTOR == file->size;
	*h = footer;
	return 0;
}

int vmdk_hosted_read(const struct file *file, struct vmdk_hosted_header *h, struct why *why)
{
	uint8_t p[VMDK_SECTOR];
	int r = file_read(file, p, sizeof(p), 0);

	if (r == -ERANGE)
		return why_set(why, -EINVAL, "it is too short for a hosted sparse extent");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	r = decode(p, h, why);
	if (r == 0 && h->directory == DIRECTORY_IN_FOOTER)
		r = read_footer(file, h, why);
	return r;
}

/* ---- open ---- */

static int check_compression(const struct vmdk_hosted_header *h, struct why *why)
{
	bool compressed = h->flags & FLAG_COMPRESSED;
	bool markers = h->flags & FLAG_MARKERS;

	if (h->algorithm > ALGORITHM_DEFLATE)
		return why_set(why, -ENOTSUP, "its compression (%u) is not known", h->algorithm);
	if (compressed != (h->algorithm == ALGORITHM_DEFLATE) || compressed != markers)
		return why_set(why, -EINVAL,
			"its header contradicts itself about compression (flags 0x%x, algorithm "
			"%u)",
			h->flags, h->algorithm);
	if (compressed && h->grain > PACKED_UNIT_MAX / VMDK_SECTOR)
		return why_set(why, -ENOTSUP, "its compressed grains are larger than %u MiB",
			PACKED_UNIT_MAX >> 20);
	return 0;
}

static int check_geometry(
	const struct file *file, const struct vmdk_hosted_header *h, struct why *why)
{
	uint64_t sectors = file->size / VMDK_SECTOR;

	if (!is_power_of_two(h->grain) || h->grain > GRAIN_MAX)
		return why_set(
			why, -EINVAL, "its grains have %llu sectors", (unsigned long long)h->grain);
	if (!is_power_of_two(h->entries) || h->entries > ENTRIES_MAX)
		return why_set(why, -EINVAL, "its grain tables have %u entries", h->entries);
	if (h->directory == 0 || h->directory > sectors)
		return why_set(why, -EINVAL, "its grain directory is not inside the file");
	if (h->overhead > sectors)
		return why_set(why, -EINVAL, "it ends before its first grain: it may be cut short");
	return check_compression(h, why);
}

static int hosted_open(const struct layer *layer, struct vmdk_extent *x, struct why *why)
{
	struct vmdk_hosted_header h;
	int r;

	r = vmdk_hosted_read(x->file, &h, why);
	if (r == 0)
		r = vmdk_set_capacity(x, h.capacity, why);
	if (r == 0)
		r = check_geometry(x->file, &h, why);
	if (r < 0)
		return r;
	x->tables = (struct vmdk_tables) {
		.directory = h.directory * VMDK_SECTOR,
		.entry_size = 4,
		.entries = h.entries,
		.grain = h.grain * VMDK_SECTOR,
		.packed = h.flags & FLAG_COMPRESSED,
		.first = h.overhead * VMDK_SECTOR,
		.least_place = 2,
	};
	return vmdk_tables_check(layer, x, why);
}

static enum vmdk_entry hosted_table_at(
	const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	(void)x;
	*offset = entry * VMDK_SECTOR;
	return entry == 0 ? VMDK_ENTRY_ABSENT : VMDK_ENTRY_PLACED;
}

static enum vmdk_entry hosted_grain_at(
	const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	(void)x;
	*offset = entry * VMDK_SECTOR;
	if (entry == 0)
		return VMDK_ENTRY_ABSENT;
	return entry == 1 ? VMDK_ENTRY_ZERO : VMDK_ENTRY_PLACED;
}

const struct vmdk_extent_kind vmdk_hosted = {
	.name = "a hosted sparse extent",
	.open = hosted_open,
	.map = vmdk_tables_map,
	.table_at = hosted_table_at,
	.grain_at = hosted_grain_at,
};
