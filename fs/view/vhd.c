/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VHD view: a dynamic disk in blocks of 2 MiB. Follows Microsoft's "Virtual Hard Disk Image
 * Format Specification", version 1.0.
 *
 *   BYTE             REGION
 *   0                copy of the footer
 *   512              header, 1024 bytes
 *   1536             block allocation table: where the bitmap of a block is, in sectors; padded
 *                    with 0xff to whole sectors
 *   data             the occupied blocks in their order, each after a sector of bits, all set
 *   size - 512       footer
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "imgfs/checked.h"
#include "imgfs/view.h"
#include "vhd_footer.h"

#define SECTOR 512u
#define BLOCK  (2u << 20)
#define BITMAP (BLOCK / SECTOR / 8)
#define TABLE  (VHD_FOOTER + VHD_HEADER)

_Static_assert(BITMAP == SECTOR, "a bitmap of a whole sector needs no padding");

struct vhd_layout {
	uint64_t blocks;       /* of the disk */
	uint64_t table_length; /* bytes, padded */
};

static uint64_t first_block(const struct vhd_layout *p)
{
	return (TABLE + p->table_length) / SECTOR;
}

static void fill_header(const struct vhd_layout *p, uint8_t *h)
{
	memcpy(h, "cxsparse", 8);
	put_be64(h + VHD_HEADER_NEXT, UINT64_MAX);
	put_be64(h + VHD_HEADER_TABLE, TABLE);
	put_be32(h + VHD_HEADER_VERSION, VHD_VERSION);
	put_be32(h + VHD_HEADER_ENTRIES, (uint32_t)p->blocks);
	put_be32(h + VHD_HEADER_BLOCK, BLOCK);
	put_be32(h + VHD_HEADER_CHECKSUM, vhd_checksum(h, VHD_HEADER, VHD_HEADER_CHECKSUM));
}

static void table_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct occupancy *o = view->blocks;
	uint64_t rank = occupancy_rank(o, min_u64(offset / 4, occupancy_units(o)));
	uint64_t first = first_block(view->params);

	FILL_ENTRIES(put_be32, occupancy_test(o, index)
				       ? first + rank++ * ((BITMAP + BLOCK) / SECTOR)
				       : VHD_ABSENT)
}

static int vhd_layout(struct view *view, struct why *why)
{
	static const struct view_table table = { table_fill, NULL };
	struct vhd_layout *p = view->params = calloc(1, sizeof(*p));
	uint8_t *start, *end;
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	r = vhd_check_size(view, why);
	if (r == 0)
		r = view_use_blocks(view, BLOCK, why);
	if (r < 0)
		return r;
	p->blocks = div_ceil(view_disk_size(view), BLOCK);
	p->table_length = round_up(p->blocks * 4, SECTOR);
	start = view_add_bytes(view, "footer copy and header", TABLE);
	view_add_table(view, "block allocation table", p->table_length, &table);
	view_add_blocks(view, "blocks", BITMAP);
	end = view_add_bytes(view, "footer", VHD_FOOTER);
	if (!start || !end)
		return why_set(why, -ENOMEM, "out of memory");
	vhd_fill_footer(view, VHD_TYPE_DYNAMIC, VHD_FOOTER, end);
	memcpy(start, end, VHD_FOOTER);
	fill_header(p, start + VHD_FOOTER);
	return 0;
}

const struct view_format view_format_vhd = {
	.name = "vhd",
	.suffix = "vhd",
	.compact = true,
	.as_is = "vhd",
	.surely_fits = vhd_surely_fits,
	.layout = vhd_layout,
};
