/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VDI view: a dynamic disk in blocks of 1 MiB, header version 1.1, little-endian
 * (fs/image/vdi.c has the table of fields). VirtualBox refuses nil UUIDs; QEMU wants blocks of 1
 * MiB and the exact number of those that are there.
 *
 *   BYTE             REGION
 *   0                header, 512 bytes
 *   1 MiB            block map: the rank of an occupied block, all ones for the others
 *   data             the occupied blocks in their order; 1 MiB aligned, as VirtualBox does it
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "imgfs/checked.h"
#include "imgfs/uuid.h"
#include "imgfs/view.h"

#define SECTOR        512u
#define BLOCK         (1u << 20)
#define HEADER        SECTOR
#define MAP           BLOCK
#define FREE          0xffffffffu

#define UUID_OF_DISK  1
#define UUID_OF_STATE 2

/* QEMU's: its map of so many blocks has 2 GiB. */
#define BLOCKS_MAX ((uint64_t)(INT32_MAX + 1u - SECTOR) / 4)

struct vdi_layout {
	uint64_t blocks; /* of the disk */
	uint64_t data;   /* offset of the first block */
};

static void fill_header(const struct view *view, const struct vdi_layout *p, uint8_t *h)
{
	strcpy((char *)h, "<<< Oracle VM VirtualBox Disk Image >>>\n");
	put_le32(h + 64, 0xbeda107f);
	put_le32(h + 68, 0x00010001);
	put_le32(h + 72, 400); /* bytes of the header from here on */
	put_le32(h + 76, 1);   /* dynamic */
	put_le32(h + 340, MAP);
	put_le32(h + 344, (uint32_t)p->data);
	put_le32(h + 360, SECTOR);
	put_le64(h + 368, view_disk_size(view));
	put_le32(h + 376, BLOCK);
	put_le32(h + 384, (uint32_t)p->blocks);
	put_le32(h + 388, (uint32_t)occupancy_count(view->blocks));
	view_make_uuid(view, UUID_OF_DISK, h + 392);
	view_make_uuid(view, UUID_OF_STATE, h + 408);
	/* At 424 and 440 those of the parent: nil. At 456 the geometry, which VirtualBox finds out.
	 */
	put_le32(h + 468, SECTOR);
}

static void map_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct occupancy *o = view->blocks;
	uint64_t rank = occupancy_rank(o, offset / 4);

	FILL_ENTRIES(put_le32, occupancy_test(o, index) ? rank++ : FREE)
}

static int vdi_layout(struct view *view, struct why *why)
{
	static const struct view_table map = { map_fill, NULL };
	struct vdi_layout *p = view->params = calloc(1, sizeof(*p));
	uint8_t *header;
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	p->blocks = div_ceil(view_disk_size(view), BLOCK);
	if (p->blocks == 0)
		return why_set(why, -EFBIG, "a VDI cannot be empty");
	if (p->blocks > BLOCKS_MAX)
		return why_set(why, -EFBIG, "a VDI holds 512 TiB at most");
	r = view_use_blocks(view, BLOCK, why);
	if (r < 0)
		return r;
	p->data = round_up(MAP + p->blocks * 4, BLOCK);
	header = view_add_bytes(view, "header", HEADER);
	if (!header)
		return why_set(why, -ENOMEM, "out of memory");
	fill_header(view, p, header);
	view_add_zero(view, "padding", MAP - HEADER);
	view_add_table(view, "block map", p->blocks * 4, &map);
	view_add_zero(view, "padding of the map", p->data - MAP - p->blocks * 4);
	view_add_blocks(view, "blocks", 0);
	return 0;
}

static bool vdi_surely_fits(uint64_t virtual_size)
{
	/* Of a larger disk the map may be too scattered to be kept: OCCUPANCY_MAX_MEMORY. */
	return virtual_size > 0 && virtual_size <= 8ull << 40;
}

const struct view_format view_format_vdi = {
	.name = "vdi",
	.suffix = "vdi",
	.compact = true,
	.as_is = "vdi",
	.surely_fits = vdi_surely_fits,
	.layout = vdi_layout,
};
