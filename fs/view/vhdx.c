/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VHDX view: a dynamic disk with a clean log. Follows [MS-VHDX]; fs/image/vhdx/ has the
 * tables of fields.
 *
 *   BYTE             REGION
 *   0                start: "vhdxfile", and at
 *   64 KiB, 128 KiB    two headers, of which the second is newer
 *   192 KiB, 256 KiB   the region table, twice
 *   1 MiB              the log, empty
 *   2 MiB              metadata: a table of 64 KiB, then the items
 *   3 MiB            block allocation table
 *   data             the occupied blocks in their order, 1 MiB aligned
 *
 * Blocks are of 1 MiB, which is what Microsoft recommends for Linux guests and what wastes least,
 * up to disks of 1 TiB; beyond, they grow with the disk up to 64 MiB, so that the table stays
 * within 9 MiB. QEMU's are of 8 to 64 MiB, Hyper-V's of 32 MiB.
 *
 * What is not occupied is in the state ZERO, as QEMU writes it: of NOT_PRESENT the specification
 * says that its contents are undefined (2.5.1.1).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "imgfs/checked.h"
#include "imgfs/crc32c.h"
#include "imgfs/uuid.h"
#include "imgfs/view.h"

#define SECTOR         512u
#define PHYSICAL       4096u /* as Hyper-V has it: guests then write whole pages */
#define MIB            (1ull << 20)
#define LOG            MIB
#define METADATA       (2 * MIB)
#define BAT            (3 * MIB)
#define ITEMS          65536u /* from the start of the metadata */
#define DISK_MAX       (64ull << 40)
#define BLOCKS_MAX     (1u << 20)
#define CHUNK          (8 * MIB * SECTOR) /* bytes that one bitmap block tells of */

#define HEADER         4096u
#define REGION_TABLE   65536u
#define PAGE           4096u

#define STATE_ZERO     2u
#define STATE_PRESENT  6u

#define UUID_OF_DISK   1
#define UUID_OF_STATE  2
#define UUID_OF_WRITES 3

/* Bytes of the start that are not zero; no piece lies across pages. */
struct piece_of_start {
	uint64_t offset;
	size_t length;
	uint8_t bytes[256];
};

enum {
	SIGNATURE,
	HEADER_1,
	HEADER_2,
	REGIONS_1,
	REGIONS_2,
	METADATA_TABLE,
	METADATA_ITEMS,
	PIECES
};

struct vhdx_layout {
	struct piece_of_start start[PIECES]; /* in rising order */
	uint64_t block;                      /* bytes */
	uint64_t ratio;                      /* blocks of a chunk, which has an entry more */
	uint64_t entries;                    /* of the table */
	uint64_t data;                       /* offset of the first block */
};

/* ---- the start ---- */

static struct piece_of_start *begin_piece(
	struct vhdx_layout *p, unsigned number, uint64_t offset, size_t length)
{
	struct piece_of_start *piece = &p->start[number];

	piece->offset = offset;
	piece->length = length;
	return piece;
}

/* Of a structure of `size` bytes, of which those after the piece are zeros. */
static void put_checksum(struct piece_of_start *piece, size_t size)
{
	static const uint8_t zeros[256];
	uint32_t sum = crc32c(0, piece->bytes, piece->length);

	for (size_t at = piece->length; at < size;) {
		size_t length = min_u64(sizeof(zeros), size - at);

		sum = crc32c(sum, zeros, length);
		at += length;
	}
	put_le32(piece->bytes + 4, sum);
}

static void make_signature(struct vhdx_layout *p)
{
	static const char creator[] = "imgfs";
	struct piece_of_start *piece = begin_piece(p, SIGNATURE, 0, 8 + 2 * sizeof(creator));

	memcpy(piece->bytes, "vhdxfile", 8);
	for (size_t i = 0; creator[i]; i++)
		put_le16(piece->bytes + 8 + 2 * i, (uint8_t)creator[i]);
}

static void make_header(
	const struct view *view, struct vhdx_layout *p, unsigned number, uint64_t offset)
{
	struct piece_of_start *piece = begin_piece(p, number, offset, 80);
	uint8_t *h = piece->bytes;

	memcpy(h, "head", 4);
	put_le64(h + 8, number);
	view_make_uuid(view, UUID_OF_WRITES, h + 16);
	view_make_uuid(view, UUID_OF_STATE, h + 32);
	/* At 48 the log's GUID, nil: it is empty. */
	put_le16(h + 66, 1);
	put_le32(h + 68, MIB);
	put_le64(h + 72, LOG);
	put_checksum(piece, HEADER);
}

static void put_region(uint8_t *entry, const char *guid, uint64_t offset, uint64_t length)
{
	memcpy(entry, guid, UUID_BYTES);
	put_le64(entry + 16, offset);
	put_le32(entry + 24, (uint32_t)length);
	put_le32(entry + 28, 1); /* required */
}

static void make_region_table(struct vhdx_layout *p, unsigned number, uint64_t offset)
{
	struct piece_of_start *piece = begin_piece(p, number, offset, 16 + 2 * 32);
	uint8_t *t = piece->bytes;

	memcpy(t, "regi", 4);
	put_le32(t + 8, 2);
	put_region(t + 16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08", BAT,
		p->data - BAT);
	put_region(t + 48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e",
		METADATA, MIB);
	put_checksum(piece, REGION_TABLE);
}

static void make_metadata(const struct view *view, struct vhdx_layout *p)
{
	static const struct {
		const char *guid;
		uint8_t length, flags; /* bit 1: of the disk, bit 2: required */
	} items[] = {
		{ "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 8, 4 },
		{ "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 8, 6 },
		{ "\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46", 16, 6 },
		{ "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", 4, 6 },
		{ "\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56", 4, 6 },
	};
	const size_t count = sizeof(items) / sizeof(items[0]);
	uint8_t *t = begin_piece(p, METADATA_TABLE, METADATA, 32 + 32 * count)->bytes;
	uint8_t *i = begin_piece(p, METADATA_ITEMS, METADATA + ITEMS, 40)->bytes;
	uint32_t at = ITEMS;

	memcpy(t, "metadata", 8);
	put_le16(t + 10, (uint16_t)count);
	for (size_t k = 0; k < count; k++) {
		uint8_t *entry = t + 32 + 32 * k;

		memcpy(entry, items[k].guid, UUID_BYTES);
		put_le32(entry + 16, at);
		put_le32(entry + 20, items[k].length);
		put_le32(entry + 24, items[k].flags);
		at += items[k].length;
	}
	put_le32(i, (uint32_t)p->block); /* and no flags: dynamic, without a parent */
	put_le64(i + 8, view_disk_size(view));
	view_make_uuid(view, UUID_OF_DISK, i + 16);
	put_le32(i + 32, SECTOR);
	put_le32(i + 36, PHYSICAL);
}

static void start_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct vhdx_layout *p = view->params;

	memset(out, 0, length);
	for (unsigned i = 0; i < PIECES; i++) {
		const struct piece_of_start *piece = &p->start[i];
		uint64_t low = max_u64(offset, piece->offset);
		uint64_t high = min_u64(offset + length, piece->offset + piece->length);

		if (low < high)
			memcpy(out + (low - offset), piece->bytes + (low - piece->offset),
				high - low);
	}
}

/* In pages: data where a piece is. */
static uint64_t start_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct vhdx_layout *p = view->params;

	*zero = true;
	for (unsigned i = 0; i < PIECES; i++) {
		uint64_t page = p->start[i].offset / PAGE * PAGE;

		if (offset < page)
			return page;
		if (offset < page + PAGE) {
			*zero = false;
			return page + PAGE;
		}
	}
	return BAT;
}

/* ---- the table ---- */

/* Goes through the entries in order. */
struct bat_walk {
	const struct vhdx_layout *p;
	const struct occupancy *o;
	uint64_t number; /* of the next block */
	uint64_t rank;   /* occupied blocks before it */
	uint64_t left;   /* blocks up to the entry of a bitmap block, which is not there */
};

static uint64_t next_entry(struct bat_walk *w)
{
	if (w->left == 0) {
		w->left = w->p->ratio;
		return 0;
	}
	w->left--;
	if (!occupancy_test(w->o, w->number++))
		return STATE_ZERO;
	return (w->p->data + w->rank++ * w->p->block) | STATE_PRESENT;
}

static void bat_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	struct bat_walk w = { .p = view->params, .o = view->blocks };
	uint64_t first = offset / 8, chunk = w.p->ratio + 1;

	w.number = first - first / chunk;
	w.rank = occupancy_rank(w.o, min_u64(w.number, occupancy_units(w.o)));
	w.left = w.p->ratio - first % chunk;
	FILL_WIDE_ENTRIES(put_le64, next_entry(&w))
}

/* ---- layout ---- */

static int choose_block(const struct view *view, struct vhdx_layout *p, struct why *why)
{
	uint64_t size = view_disk_size(view);
	uint64_t blocks;

	if (size == 0)
		return why_set(why, -EFBIG, "a VHDX cannot be empty");
	if (size > DISK_MAX)
		return why_set(why, -EFBIG, "a VHDX holds 64 TiB at most");
	p->block = MIB;
	while (div_ceil(size, p->block) > BLOCKS_MAX)
		p->block *= 2;
	blocks = div_ceil(size, p->block);
	p->ratio = CHUNK / p->block;
	p->entries = blocks + (blocks - 1) / p->ratio;
	p->data = BAT + round_up(p->entries * 8, MIB);
	return 0;
}

static int vhdx_layout(struct view *view, struct why *why)
{
	static const struct view_table start = { start_fill, start_run };
	static const struct view_table bat = { bat_fill, NULL };
	struct vhdx_layout *p = view->params = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	r = choose_block(view, p, why);
	if (r == 0)
		r = view_use_blocks(view, p->block, why);
	if (r < 0)
		return r;
	make_signature(p);
	make_header(view, p, HEADER_1, 64 << 10);
	make_header(view, p, HEADER_2, 128 << 10);
	make_region_table(p, REGIONS_1, 192 << 10);
	make_region_table(p, REGIONS_2, 256 << 10);
	make_metadata(view, p);
	view_add_table(view, "headers, log and metadata", BAT, &start);
	view_add_table(view, "block allocation table", p->entries * 8, &bat);
	view_add_zero(view, "padding", p->data - BAT - p->entries * 8);
	view_add_blocks(view, "blocks", 0);
	return 0;
}

static bool vhdx_surely_fits(uint64_t virtual_size)
{
	/* Of a larger disk the map may be too scattered to be kept: OCCUPANCY_MAX_MEMORY. */
	return virtual_size > 0 && virtual_size <= 8ull << 40;
}

const struct view_format view_format_vhdx = {
	.name = "vhdx",
	.suffix = "vhdx",
	.compact = true,
	.as_is = "vhdx",
	.surely_fits = vhdx_surely_fits,
	.layout = vhdx_layout,
};
