/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMDK view: monolithicSparse, header version 1, grains of 64 KiB. Follows VMware's "Virtual
 * Disk Format 1.1", "Hosted Sparse Extents"; qemu-img convert writes the same bytes but for the
 * descriptor.
 *
 *   SECTOR           REGION
 *   0                header, little-endian:
 *                      0 "KDMV", 4 version, 8 flags, 12 capacity, 20 grain size, 28 and 36
 *                      descriptor offset and size, 44 entries of a grain table, 48 and 56
 *                      redundant and primary grain directory, 64 overhead, 73 "\n \r\n"
 *   1                descriptor, 20 sectors
 *   21               redundant grain directory, then its grain tables
 *   gd               grain directory, then its grain tables
 *   overhead         grains: the occupied units in their order
 *
 * All sizes and offsets in the file are in sectors of 512 bytes. Grain tables exist for the
 * whole disk, and one follows the other, so entry e of them all is unit e of the guest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "entries.h"
#include "imgfs/checked.h"
#include "imgfs/view.h"

#define SECTOR            512u
#define GRAIN_SECTORS     128u
#define TABLE_ENTRIES     512u
#define TABLE_SECTORS     4u
#define REDUNDANT_GD      (1u + DESCRIPTOR_SECTORS)

#define FLAG_NEWLINE_TEST 1u
#define FLAG_REDUNDANT    2u

_Static_assert(GRAIN_SECTORS *SECTOR == OCCUPANCY_UNIT, "a grain is a unit of the occupancy");

/* Positions and lengths in sectors. */
struct vmdk_layout {
	uint64_t capacity;
	uint64_t tables;    /* grain tables in one copy, a count */
	uint64_t directory; /* length of one copy of the grain directory */
	uint64_t gd;        /* first sector of the primary directory */
	uint64_t overhead;  /* first sector of the grains */
};

static int plan_sectors(const struct view *view, struct vmdk_layout *p, struct why *why)
{
	uint64_t grains = occupancy_units(view->occupancy);
	uint64_t copy;

	p->capacity = view_disk_size(view) / SECTOR;
	if (p->capacity == 0)
		return why_set(
			why, -EFBIG, "a VMDK cannot be empty: capacity 0 means another thing");
	p->tables = div_ceil(grains, TABLE_ENTRIES);
	p->directory = div_ceil(p->tables * 4, SECTOR);
	copy = p->directory + p->tables * TABLE_SECTORS;
	p->gd = REDUNDANT_GD + copy;
	p->overhead = round_up(p->gd + copy, GRAIN_SECTORS);
	if (p->overhead + occupancy_count(view->occupancy) * GRAIN_SECTORS > UINT32_MAX)
		return why_set(why, -EFBIG, "a VMDK holds 2 TiB of data at most");
	return 0;
}

static void fill_header(const struct vmdk_layout *p, uint8_t *h)
{
	memcpy(h, "KDMV", 4);
	put_le32(h + 4, 1);
	put_le32(h + 8, FLAG_NEWLINE_TEST | FLAG_REDUNDANT);
	put_le64(h + 12, p->capacity);
	put_le64(h + 20, GRAIN_SECTORS);
	put_le64(h + 28, 1);
	put_le64(h + 36, DESCRIPTOR_SECTORS);
	put_le32(h + 44, TABLE_ENTRIES);
	put_le64(h + 48, REDUNDANT_GD);
	put_le64(h + 56, p->gd);
	put_le64(h + 64, p->overhead);
	memcpy(h + 73, "\n \r\n", 4);
}

static void fill_descriptor(const struct view *view, char *out)
{
	struct descriptor_extent extent = { .type = "SPARSE", .tail = "" };

	descriptor_own_name(view, &extent);
	descriptor_write(view, "monolithicSparse", &extent, occupancy_hash(view->occupancy), out);
}

/* ---- tables ---- */

/* A directory points at the tables that follow it. */
static void fill_directory(
	const struct vmdk_layout *p, uint64_t start, uint64_t offset, size_t length, uint8_t *out)
{
	uint64_t first = start + p->directory;

	FILL_ENTRIES(put_le32, index < p->tables ? first + index * TABLE_SECTORS : 0)
}

static void redundant_gd_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	fill_directory(view->params, REDUNDANT_GD, offset, length, out);
}

static void gd_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct vmdk_layout *p = view->params;

	fill_directory(p, p->gd, offset, length, out);
}

static void tables_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct vmdk_layout *p = view->params;
	const struct occupancy *o = view->occupancy;
	uint64_t rank = occupancy_rank(o, offset / 4);

	FILL_ENTRIES(put_le32, occupancy_test(o, index) ? p->overhead + rank++ * GRAIN_SECTORS : 0)
}

/* In blocks of 4 KiB: zeros up to the block that has the next occupied grain. */
static uint64_t tables_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct vmdk_layout *p = view->params;
	uint64_t end = p->tables * TABLE_SECTORS * SECTOR;
	uint64_t next = occupancy_next(view->occupancy, offset / 4096 * 1024);
	uint64_t block = next == occupancy_units(view->occupancy) ? end : next * 4 / 4096 * 4096;

	*zero = block > offset;
	return *zero ? block : min_u64(end, (offset / 4096 + 1) * 4096);
}

static int vmdk_layout(struct view *view, struct why *why)
{
	static const struct view_table redundant_gd = { redundant_gd_fill, NULL };
	static const struct view_table gd = { gd_fill, NULL };
	static const struct view_table tables = { tables_fill, tables_run };
	struct vmdk_layout *p = view->params = calloc(1, sizeof(*p));
	uint8_t *header;
	uint64_t copy;
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	r = plan_sectors(view, p, why);
	if (r < 0)
		return r;
	header = view_add_bytes(view, "header and descriptor", (1 + DESCRIPTOR_SECTORS) * SECTOR);
	if (!header)
		return why_set(why, -ENOMEM, "out of memory");
	fill_header(p, header);
	fill_descriptor(view, (char *)header + SECTOR);
	view_add_table(view, "redundant grain directory", p->directory * SECTOR, &redundant_gd);
	view_add_table(view, "redundant grain tables", p->tables * TABLE_SECTORS * SECTOR, &tables);
	view_add_table(view, "grain directory", p->directory * SECTOR, &gd);
	view_add_table(view, "grain tables", p->tables * TABLE_SECTORS * SECTOR, &tables);
	copy = p->directory + p->tables * TABLE_SECTORS;
	view_add_zero(view, "padding", (p->overhead - p->gd - copy) * SECTOR);
	view_add_blocks(view, "grains", 0);
	return 0;
}

static bool vmdk_surely_fits(uint64_t virtual_size)
{
	return virtual_size > 0 && virtual_size <= 1ull << 40;
}

const struct view_format view_format_vmdk = {
	.name = "vmdk",
	.suffix = "vmdk",
	.compact = true,
	.as_is = "vmdk",
	.surely_fits = vmdk_surely_fits,
	.layout = vmdk_layout,
};
