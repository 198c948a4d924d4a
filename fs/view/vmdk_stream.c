/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streamOptimized VMDK view, for OVF import: header version 3, every grain a record with a
 * zlib stream in it. The streams are stored, not compressed, so that all records have one length
 * and the size of the file follows from the map alone. Follows VMware's "Virtual Disk Format 1.1",
 * "Stream-Optimized Compressed Sparse Extents".
 *
 *   SECTOR           REGION
 *   0                header: that of vmdk.c, with flags 0x30001 and at 77 the compression, deflate
 *   1                descriptor, 20 sectors
 *   21               marker, grain directory: an entry for every 512 grains
 *   overhead         for every 512 grains that hold anything: their records, a marker, a grain
 *                    table of 4 sectors
 *   behind them      marker, the grain directory again; marker, footer; end of stream: zeros
 *
 *   marker           0 u64 sectors that follow, 8 u32 0, 12 u32 what follows
 *   footer           the header again, with the place of the second directory
 *
 *   BYTE             RECORD, 129 sectors; little-endian but for the checksum
 *   0                u64 first sector of the guest
 *   8                u32 length of the stream, 65552
 *   12               78 01                    zlib's header
 *   14               00 00 80 ff 7f           stored block of 32768 bytes
 *   19               the first half of the grain
 *   32787            01 00 80 ff 7f           the same, the last one
 *   32792            the second half
 *   65560            adler32 of the grain, big-endian
 *   65564            zeros
 *
 * By the specification the header says either where the directory is or that the footer does. A
 * footer can be found by the end of the file alone, so that readers of a part of the file fail:
 * with the directory in the footer, QEMU says "Invalid footer" of the first 64 KiB, where
 * OpenNebula looks for the size of the disk, and OpenStack's inspector, which reads from the start
 * to the end, refuses the image ("Unsupported VMDK footer"). So the header gives a directory at the
 * start, as QEMU's and open-vmdk's own files do, and all the rest is what VMware writes, footer
 * included, for readers that go by markers or by the footer. QEMU, 7-Zip and libvmdk read both;
 * 7-Zip, which takes the last grain table for the end, warns of data after it and exits with 0. It
 * was not tried on a product of VMware's.
 *
 * A partial last grain is padded with zeros: VirtualBox and 7-Zip take whole grains only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "descriptor.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/view.h"
#include "imgfs/wire.h"

#if HAVE_LIBDEFLATE
#include <libdeflate.h>
#else
#include <zlib.h>
#endif

#define SECTOR            512u
#define GRAIN             OCCUPANCY_UNIT
#define GRAIN_SECTORS     128u
#define TABLE_ENTRIES     512u
#define TABLE_SECTORS     4u
#define MARKED_TABLE      (1 + TABLE_SECTORS)
#define DIRECTORY         (1 + DESCRIPTOR_SECTORS + 1)

#define FLAG_NEWLINE_TEST 1u
#define FLAG_COMPRESSED   (1u << 16)
#define FLAG_MARKERS      (1u << 17)

#define MARKER_TABLE      1
#define MARKER_DIRECTORY  2
#define MARKER_FOOTER     3

/* The record. */
#define RECORD_SECTORS 129u
#define RECORD         (RECORD_SECTORS * SECTOR)
#define HALF           (GRAIN / 2)
#define FIRST_HALF     19u
#define BETWEEN        (FIRST_HALF + HALF)
#define SECOND_HALF    (BETWEEN + 5)
#define CHECKSUM       (SECOND_HALF + HALF)
#define STREAM_END     (CHECKSUM + 4)
#define STREAM_LENGTH  (STREAM_END - 12)

/* Grains that are read at once, so that compressed sources are unpacked by several processors. */
#define RUN_MAX 16u

/* What a grain table maps. */
#define GROUPS (OCCUPANCY_PAGE_UNITS / TABLE_ENTRIES) /* in a page of the occupancy */

_Static_assert(GRAIN_SECTORS *SECTOR == GRAIN, "a grain is a unit of the occupancy");
_Static_assert(OCCUPANCY_PAGE_UNITS % TABLE_ENTRIES == 0, "pages are whole tables");
_Static_assert(STREAM_END <= RECORD && STREAM_LENGTH == 65552, "a record holds a stored grain");

/* Positions and lengths in sectors, but for what is said to be a count. */
struct stream_layout {
	uint64_t capacity;
	uint64_t entries;   /* of the directory, a count */
	uint64_t directory; /* length of one copy */
	uint64_t overhead;  /* first record */
	uint64_t body;      /* length of the records and tables */
	uint64_t tables[];  /* count of those before each page of the occupancy */
};

struct group {
	uint64_t unit;  /* the first of the guest */
	uint64_t rank;  /* occupied units before it */
	uint64_t count; /* of occupied units; 0: it has no table */
	uint64_t start; /* sectors from the start of the body */
};

/* ---- where things are ---- */

static uint64_t page_start(const struct view *view, size_t page)
{
	const struct stream_layout *p = view->params;

	return occupancy_page(view->occupancy, page)->rank * RECORD_SECTORS +
	       p->tables[page] * MARKED_TABLE;
}

static uint64_t group_length(const struct group *group)
{
	return group->count ? group->count * RECORD_SECTORS + MARKED_TABLE : 0;
}

static void find_groups(const struct view *view, size_t page, struct group groups[GROUPS])
{
	const struct occupancy *o = view->occupancy;
	uint64_t unit = occupancy_page(o, page)->number * OCCUPANCY_PAGE_UNITS;
	uint64_t start = page_start(view, page);
	uint64_t rank = occupancy_page(o, page)->rank;

	for (unsigned i = 0; i < GROUPS; i++) {
		uint64_t end = min_u64(unit + TABLE_ENTRIES, occupancy_units(o));
		uint64_t next = unit < end ? occupancy_rank(o, end) : rank;

		groups[i] = (struct group) { unit, rank, next - rank, start };
		start += group_length(&groups[i]);
		rank = next;
		unit += TABLE_ENTRIES;
	}
}

/* Where the group's table is. */
static uint64_t table_sector(const struct stream_layout *p, const struct group *group)
{
	return p->overhead + group->start + group->count * RECORD_SECTORS + 1;
}

/* The group that has the sector of the body. */
static struct group group_at(const struct view *view, uint64_t sector)
{
	size_t low = 0, high = occupancy_page_count(view->occupancy);
	struct group groups[GROUPS];
	unsigned i = 0;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (page_start(view, middle) <= sector)
			low = middle;
		else
			high = middle;
	}
	find_groups(view, low, groups);
	while (i < GROUPS - 1 && sector >= groups[i].start + group_length(&groups[i]))
		i++;
	return groups[i];
}

/* ---- records ---- */

static uint32_t checksum(const uint8_t *grain)
{
#if HAVE_LIBDEFLATE
	return libdeflate_adler32(1, grain, GRAIN);
#else
	return (uint32_t)adler32(1, grain, GRAIN);
#endif
}

/* A part of a record: bytes [start, end) of it, to be written at out. */
struct part {
	uint64_t start, end;
	uint8_t *out;
};

/* Writes what the part has of bytes [at, at + length) of the record. */
static void put(const struct part *part, uint64_t at, const uint8_t *bytes, uint64_t length)
{
	uint64_t start = max_u64(at, part->start);
	uint64_t end = min_u64(at + length, part->end);

	if (start < end)
		memcpy(part->out + (start - part->start), bytes + (start - at), end - start);
}

static bool has_checksum(const struct part *part)
{
	return part->start < STREAM_END && part->end > CHECKSUM;
}

/* Bytes of the grain that come before a byte of the record. */
static uint64_t grain_before(uint64_t at)
{
	if (at >= SECOND_HALF)
		return min_u64(at - SECOND_HALF, HALF) + HALF;
	return at <= FIRST_HALF ? 0 : min_u64(at - FIRST_HALF, HALF);
}

/* Which bytes of its grain the part is made of: [*start, *end). */
static void grain_needed(const struct part *part, uint64_t *start, uint64_t *end)
{
	*start = has_checksum(part) ? 0 : grain_before(part->start);
	*end = has_checksum(part) ? GRAIN : grain_before(part->end);
}

/* Of the grain there are bytes from `have` on, as far as they are needed. */
static void put_halves(const struct part *part, const uint8_t *grain, uint64_t have)
{
	for (uint64_t half = 0; half < GRAIN; half += HALF) {
		uint64_t from = max_u64(have, half);

		if (from < half + HALF)
			put(part, (half ? SECOND_HALF : FIRST_HALF) + (from - half),
				grain + (from - have), half + HALF - from);
	}
}

static void put_record(const struct part *part, uint64_t unit, const uint8_t *grain, uint64_t have)
{
	static const uint8_t zeros[RECORD - STREAM_END];
	uint8_t head[FIRST_HALF] = { [12] = 0x78, 0x01, 0x00, 0x00, 0x80, 0xff, 0x7f };
	uint8_t last[] = { 0x01, 0x00, 0x80, 0xff, 0x7f }, sum[4];

	put_le64(head, unit * GRAIN_SECTORS);
	put_le32(head + 8, STREAM_LENGTH);
	put(part, 0, head, sizeof(head));
	put_halves(part, grain, have);
	put(part, BETWEEN, last, sizeof(last));
	if (has_checksum(part)) {
		put_be32(sum, checksum(grain));
		put(part, CHECKSUM, sum, sizeof(sum));
	}
	put(part, STREAM_END, zeros, sizeof(zeros));
}

/* Bytes [skip, skip + length) of the records of neighbours in the guest, from `unit` on. */
static int add_run(struct plan *plan, uint64_t unit, uint64_t skip, uint64_t length)
{
	uint64_t last = (skip + length - 1) / RECORD * RECORD; /* start of the last record */
	struct part part = { skip, min_u64(skip + length, RECORD), NULL };
	struct part tail = { last ? 0 : skip, skip + length - last, NULL };
	uint64_t have, end, unused;
	autofree uint8_t *grains = NULL;
	int r;

	grain_needed(&part, &have, &unused);
	grain_needed(&tail, &unused, &end);
	end += last / RECORD * GRAIN;
	grains = malloc(end - have + 1);
	part.out = plan_add_memory(plan, length);
	if (!grains || !part.out)
		return -ENOMEM;
	r = plan_read_guest(plan, unit * GRAIN + have, end - have, grains);
	if (r < 0)
		return r;
	for (uint64_t at = 0; at <= last; at += RECORD, unit++) {
		uint64_t before = at / RECORD * GRAIN; /* whole grains before this one */

		part.end = min_u64(skip + length - at, RECORD);
		put_record(&part, unit, grains + max_u64(before, have) - have,
			have > before ? have - before : 0);
		part.out += part.end - part.start;
		part.start = 0;
	}
	return 0;
}

/* Bytes [offset, offset + length) of the records of a group. */
static int add_records(
	struct plan *plan, const struct group *group, uint64_t offset, uint64_t length)
{
	const struct occupancy *o = plan->view->occupancy;

	while (length > 0) {
		uint64_t skip = offset % RECORD;
		uint64_t unit = occupancy_select(o, group->rank + offset / RECORD);
		uint64_t count = 1, take;
		int r;

		while (count < RUN_MAX && count * RECORD < skip + length &&
			occupancy_test(o, unit + count))
			count++;
		take = min_u64(count * RECORD - skip, length);
		r = add_run(plan, unit, skip, take);
		if (r < 0)
			return r;
		offset += take;
		length -= take;
	}
	return 0;
}

/* ---- tables ---- */

static void fill_marker(uint8_t *marker, uint64_t sectors, uint32_t type)
{
	put_le64(marker, sectors);
	put_le32(marker + 12, type);
}

/* Bytes [offset, offset + length) of a group's table and its marker. */
static int add_table(struct plan *plan, const struct group *group, uint64_t offset, uint64_t length)
{
	const struct stream_layout *p = plan->view->params;
	uint8_t bytes[MARKED_TABLE * SECTOR] = { 0 };
	uint8_t *out = plan_add_memory(plan, length);
	uint64_t sector = p->overhead + group->start;

	if (!out)
		return -ENOMEM;
	fill_marker(bytes, TABLE_SECTORS, MARKER_TABLE);
	for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
		if (!occupancy_test(plan->view->occupancy, group->unit + i))
			continue;
		put_le32(bytes + SECTOR + i * 4, (uint32_t)sector);
		sector += RECORD_SECTORS;
	}
	memcpy(out, bytes + offset, length);
	return 0;
}

static int compose_body(
	const struct view *view, struct plan *plan, uint64_t offset, uint64_t length)
{
	while (length > 0) {
		struct group group = group_at(view, offset / SECTOR);
		uint64_t inside = offset - group.start * SECTOR;
		uint64_t records = group.count * RECORD;
		uint64_t take;
		int r;

		if (inside < records) {
			take = min_u64(records - inside, length);
			r = add_records(plan, &group, inside, take);
		} else {
			take = min_u64(group_length(&group) * SECTOR - inside, length);
			r = add_table(plan, &group, inside - records, take);
		}
		if (r < 0)
			return r;
		offset += take;
		length -= take;
	}
	return 0;
}

/* Both copies of the directory. */
static void directory_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct occupancy *o = view->occupancy;
	struct part part = { offset, offset + length, out };
	size_t page = occupancy_page_find(o, offset / 4 / GROUPS);

	memset(out, 0, length);
	for (; page < occupancy_page_count(o); page++) {
		uint64_t first = occupancy_page(o, page)->number * GROUPS;
		struct group groups[GROUPS];

		if (first * 4 >= part.end)
			return;
		find_groups(view, page, groups);
		for (unsigned i = 0; i < GROUPS; i++) {
			uint8_t entry[4];

			if (groups[i].count == 0)
				continue;
			put_le32(entry, (uint32_t)table_sector(view->params, &groups[i]));
			put(&part, (first + i) * 4, entry, sizeof(entry));
		}
	}
}

/* In blocks of 4 KiB: zeros up to the one that has the next page of the occupancy. */
static uint64_t directory_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct stream_layout *p = view->params;
	const struct occupancy *o = view->occupancy;
	uint64_t end = p->directory * SECTOR, next = end;
	size_t page = occupancy_page_find(o, offset / 4096 * 1024 / GROUPS);

	if (page < occupancy_page_count(o))
		next = occupancy_page(o, page)->number * GROUPS * 4 / 4096 * 4096;
	*zero = next > offset;
	return *zero ? next : min_u64(end, (offset / 4096 + 1) * 4096);
}

/* ---- layout ---- */

/* How many tables there are before each page, and after them all. */
static uint64_t count_tables(const struct view *view, struct stream_layout *p)
{
	const struct occupancy *o = view->occupancy;
	uint64_t tables = 0;

	for (size_t page = 0; page < occupancy_page_count(o); page++) {
		uint64_t unit = occupancy_page(o, page)->number * OCCUPANCY_PAGE_UNITS;

		p->tables[page] = tables;
		for (unsigned i = 0; i < GROUPS; i++, unit += TABLE_ENTRIES)
			tables += occupancy_any(
				o, unit, min_u64(unit + TABLE_ENTRIES, occupancy_units(o)));
	}
	return tables;
}

static uint64_t last_directory(const struct stream_layout *p)
{
	return p->overhead + p->body + 1;
}

static int plan_sectors(const struct view *view, struct stream_layout *p, struct why *why)
{
	p->capacity = view_disk_size(view) / SECTOR;
	if (p->capacity == 0)
		return why_set(
			why, -EFBIG, "a VMDK cannot be empty: capacity 0 means another thing");
	p->entries = div_ceil(occupancy_units(view->occupancy), TABLE_ENTRIES);
	p->directory = div_ceil(p->entries * 4, SECTOR);
	p->overhead = round_up(DIRECTORY + p->directory, GRAIN_SECTORS);
	p->body = occupancy_count(view->occupancy) * RECORD_SECTORS +
		  count_tables(view, p) * MARKED_TABLE;
	if (last_directory(p) + p->directory > UINT32_MAX)
		return why_set(why, -EFBIG, "a VMDK holds 2 TiB of data at most");
	return 0;
}

static void fill_header(const struct stream_layout *p, uint64_t directory, uint8_t *h)
{
	memcpy(h, "KDMV", 4);
	put_le32(h + 4, 3);
	put_le32(h + 8, FLAG_NEWLINE_TEST | FLAG_COMPRESSED | FLAG_MARKERS);
	put_le64(h + 12, p->capacity);
	put_le64(h + 20, GRAIN_SECTORS);
	put_le64(h + 28, 1);
	put_le64(h + 36, DESCRIPTOR_SECTORS);
	put_le32(h + 44, TABLE_ENTRIES);
	put_le64(h + 56, directory);
	put_le64(h + 64, p->overhead);
	memcpy(h + 73, "\n \r\n", 4);
	put_le16(h + 77, 1);
}

/* The header, the descriptor and the marker of the first directory. */
static bool add_start(struct view *view, const struct stream_layout *p)
{
	struct descriptor_extent extent = { .type = "SPARSE", .tail = "" };
	uint8_t *start = view_add_bytes(view, "header and descriptor", DIRECTORY * SECTOR);

	if (!start)
		return false;
	fill_header(p, DIRECTORY, start);
	descriptor_own_name(view, &extent);
	descriptor_write(view, "streamOptimized", &extent, occupancy_hash(view->occupancy),
		(char *)start + SECTOR);
	fill_marker(start + (DIRECTORY - 1) * SECTOR, p->directory, MARKER_DIRECTORY);
	return true;
}

/* The directory again, the footer, and zeros: the marker of the end. */
static bool add_end(
	struct view *view, const struct stream_layout *p, const struct view_table *directory)
{
	uint8_t *bytes = view_add_bytes(view, "marker", SECTOR);

	if (!bytes)
		return false;
	fill_marker(bytes, p->directory, MARKER_DIRECTORY);
	view_add_table(view, "grain directory again", p->directory * SECTOR, directory);
	bytes = view_add_bytes(view, "footer and end of stream", 3 * SECTOR);
	if (!bytes)
		return false;
	fill_marker(bytes, 1, MARKER_FOOTER);
	fill_header(p, last_directory(p), bytes + SECTOR);
	return true;
}

static int stream_layout(struct view *view, struct why *why)
{
	static const struct view_table directory = { directory_fill, directory_run };
	static const struct view_composer body = { compose_body };
	size_t pages = occupancy_page_count(view->occupancy);
	struct stream_layout *p = view->params =
		calloc(1, sizeof(*p) + pages * sizeof(p->tables[0]));
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	r = plan_sectors(view, p, why);
	if (r < 0)
		return r;
	if (!add_start(view, p))
		return why_set(why, -ENOMEM, "out of memory");
	view_add_table(view, "grain directory", p->directory * SECTOR, &directory);
	view_add_zero(view, "padding", (p->overhead - DIRECTORY - p->directory) * SECTOR);
	view_add_composed(view, "grains and grain tables", p->body * SECTOR, &body);
	if (!add_end(view, p, &directory))
		return why_set(why, -ENOMEM, "out of memory");
	return 0;
}

static bool stream_surely_fits(uint64_t virtual_size)
{
	return virtual_size > 0 && virtual_size <= 1ull << 40;
}

const struct view_format view_format_vmdk_stream = {
	.name = "vmdk-stream",
	.suffix = "stream.vmdk",
	.compact = true,
	.as_is = "vmdk",
	.as_is_variant = "streamOptimized",
	.surely_fits = stream_surely_fits,
	.layout = stream_layout,
};
