/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block allocation table (2.5), entries of u64: bits 0 to 2 the state, bits 20 to 63 the
 * offset, a multiple of 1 MiB. After the entries of `ratio` payload blocks comes one of a bitmap
 * block, which has a bit for each sector of those: is it here, or in the parent? (2.4)
 */
#include <errno.h>

#include "imgfs/checked.h"
#include "imgfs/wire.h"
#include "imgfs/zero.h"
#include "vhdx.h"

#define ENTRY_STATE    7u
#define ENTRY_RESERVED 0xffff8u
#define ENTRY_OFFSET   (~0ull << 20)

enum state {
	NOT_PRESENT = 0,
	UNDEFINED = 1,
	ALL_ZERO = 2,
	UNMAPPED = 3,
	UNMAPPED_OLD = 5, /* of version 0.95 of the specification */
	FULLY_PRESENT = 6,
	PARTIALLY_PRESENT = 7,
};

/* What an entry says of its block. */
struct block {
	enum extent_kind kind;
	bool partial;    /* DATA: as far as the bitmap says so */
	uint64_t offset; /* DATA: in the file */
};

static void set_extent(struct extent *e, enum extent_kind kind, uint64_t start, uint64_t end)
{
	*e = (struct extent) { .kind = kind, .start = start, .end = end };
}

/* May a block be there? Where the file ends inside it, what is there can still be read. */
static bool place_ok(const struct vhdx *v, uint64_t offset, uint64_t length)
{
	if (offset < VHDX_ALIGN || offset >= v->end)
		return false;
	for (size_t i = 0; i < VHDX_REGIONS; i++) {
		const struct vhdx_range *r = &v->regions[i];

		if (offset < r->start + r->length && r->start - min_u64(r->start, offset) < length)
			return false;
	}
	return true;
}

static struct block read_entry(const struct vhdx *v, uint64_t entry)
{
	uint64_t offset = entry & ENTRY_OFFSET;

	if (entry & ENTRY_RESERVED)
		return (struct block) { .kind = EXTENT_DAMAGED };
	switch (entry & ENTRY_STATE) {
	case NOT_PRESENT:
		return (struct block) { .kind = v->differencing ? EXTENT_BACKING : EXTENT_ZERO };
	case UNDEFINED:
	case ALL_ZERO:
	case UNMAPPED:
	case UNMAPPED_OLD:
		return (struct block) { .kind = EXTENT_ZERO };
	case PARTIALLY_PRESENT:
		if (!v->differencing)
			return (struct block) { .kind = EXTENT_DAMAGED };
		break;
	case FULLY_PRESENT:
		break;
	default:
		return (struct block) { .kind = EXTENT_DAMAGED };
	}
	if (!place_ok(v, offset, v->block))
		return (struct block) { .kind = EXTENT_DAMAGED };
	return (struct block) {
		.kind = EXTENT_DATA,
		.partial = (entry & ENTRY_STATE) == PARTIALLY_PRESENT,
		.offset = offset,
	};
}

/* ---- places ---- */

/*
 * Cuts the file range [*start, *end) to what is in one place around `at`, in a page that the log
 * has: its bytes lie in three places there. Returns where the byte at *start is.
 */
static uint64_t cut_to_page(
	const struct vhdx_patch *patch, uint64_t at, uint64_t *start, uint64_t *end)
{
	uint64_t low = patch->start + 8, high = patch->end - 4;

	if (at < low) {
		*end = min_u64(*end, low);
		*start = max_u64(*start, patch->start);
		return patch->descriptor + 8 + (*start - patch->start);
	}
	if (at < high) {
		*end = min_u64(*end, high);
		*start = max_u64(*start, low);
		return patch->sector + (*start - patch->start);
	}
	*end = min_u64(*end, patch->end);
	*start = max_u64(*start, high);
	return patch->descriptor + 4 + (*start - high);
}

/* The same where the log has nothing around `at`: up to the patches, and to the end of the file. */
static enum extent_kind cut_to_file(const struct vhdx *v, uint64_t size,
	const struct vhdx_patch *next, uint64_t at, uint64_t *start, uint64_t *end)
{
	size_t before = next ? (size_t)(next - v->patches) : v->patch_count;

	if (before > 0)
		*start = max_u64(*start, v->patches[before - 1].end);
	if (next)
		*end = min_u64(*end, next->start);
	if (at < size) {
		*end = min_u64(*end, size);
		return EXTENT_DATA;
	}
	/* A replay would make the file longer, with zeros. */
	*start = max_u64(*start, at < v->end ? size : v->end);
	if (at < v->end)
		*end = min_u64(*end, v->end);
	return at < v->end ? EXTENT_ZERO : EXTENT_DAMAGED;
}

/*
 * Cuts a run of data to what is in one place around guest offset `offset`: in the file, in its
 * log, or nowhere. The log should tell of tables only (2.3), but what it says of data counts too.
 */
static void settle_place(const struct layer *layer, uint64_t offset, struct extent *e)
{
	const struct vhdx *v = layer->state;
	uint64_t at = e->offset + (offset - e->start);
	uint64_t start = e->offset, end = e->offset + (e->end - e->start), place;
	uint64_t guest = e->start - e->offset; /* of file offset 0; wraps, and back again */
	const struct vhdx_patch *patch = vhdx_find_patch(v, at);
	enum extent_kind kind = EXTENT_DATA;

	if (!patch || patch->start > at) {
		kind = cut_to_file(v, layer->file->size, patch, at, &start, &end);
		place = start;
	} else if (patch->sector) {
		place = cut_to_page(patch, at, &start, &end);
	} else {
		kind = EXTENT_ZERO;
		start = max_u64(start, patch->start);
		end = min_u64(end, patch->end);
	}
	set_extent(e, kind, guest + start, guest + end);
	if (kind == EXTENT_DATA) {
		e->file = layer->file;
		e->offset = place;
	}
}

/* ---- sector bitmaps ---- */

/* How many bits from bit `first` of the bytes on are like it; up to `most`, all inside. */
static uint64_t run_of_bits(const uint8_t *bytes, uint64_t first, uint64_t most, bool *set)
{
	uint64_t count = 0;

	*set = bytes[first / 8] >> first % 8 & 1;
	while (count < most) {
		uint64_t bit = first + count;
		uint64_t word = get_le64(bytes + bit / 64 * 8);
		uint64_t others = (*set ? ~word : word) >> bit % 64;

		if (others)
			return min_u64(most, count + (uint64_t)__builtin_ctzll(others));
		count += 64 - bit % 64;
	}
	return most;
}

/* Where the bitmap block of the chunk is; 0 where its entry is nonsense. */
static int find_bitmap(const struct layer *layer, uint64_t chunk, uint64_t *offset)
{
	const struct vhdx *v = layer->state;
	uint64_t index = (chunk + 1) * (v->ratio + 1) - 1;
	struct vhdx_table t;
	uint64_t entry;
	int r = vhdx_table_get(layer, v->regions[VHDX_BAT].start + index * 8, &t);

	if (r < 0)
		return r;
	entry = get_le64(t.bytes);
	vhdx_table_done(layer, &t, MAP_PLACE);
	*offset = entry & ENTRY_OFFSET;
	if ((entry & ENTRY_STATE) != FULLY_PRESENT || (entry & ENTRY_RESERVED) ||
		!place_ok(v, *offset, VHDX_BITMAP) || !range_ok(*offset, VHDX_BITMAP, v->end))
		*offset = 0;
	return 0;
}

/* A block that is partly the parent's: the run of sectors around `offset`. */
static int map_sectors(const struct layer *layer, uint64_t place, uint64_t offset, uint64_t wanted,
	enum map_detail detail, struct extent *e)
{
	const struct vhdx *v = layer->state;
	uint64_t block = offset - offset % v->block;
	uint64_t end = min_u64(block + v->block, layer->size);
	uint64_t chunk = v->ratio * v->block;
	uint64_t sector = offset % chunk / v->sector;
	struct vhdx_table t;
	uint64_t bitmap, count;
	bool here;
	int r = find_bitmap(layer, offset / chunk, &bitmap);

	if (r == 0 && bitmap == 0) {
		set_extent(e, EXTENT_DAMAGED, block, end);
		return 0;
	}
	if (r == 0)
		r = vhdx_table_get(layer, bitmap + sector / 64 * 8, &t);
	if (r < 0)
		return r;
	offset -= offset % v->sector;
	count = div_ceil(min_u64(end, wanted) - offset, v->sector);
	count = run_of_bits(
		t.bytes, sector % 64, min_u64(count, t.length / 8 * 64 - sector % 64), &here);
	vhdx_table_done(layer, &t, detail);
	set_extent(e, here ? EXTENT_DATA : EXTENT_BACKING, offset,
		min_u64(offset + count * v->sector, end));
	if (here) {
		e->file = layer->file;
		e->offset = place + (offset - block);
	}
	return 0;
}

/* ---- the table ---- */

/* Guest offset of the payload block that the entry, or the first one after it, tells of. */
static uint64_t guest_of(const struct vhdx *v, uint64_t index)
{
	return (index - index / (v->ratio + 1)) * v->block;
}

static bool continues(
	const struct extent *e, const struct block *b, uint64_t guest, enum map_detail detail)
{
	enum extent_kind kind = b->kind;

	if (b->partial)
		return false;
	if (detail == MAP_KIND && kind == EXTENT_DAMAGED)
		kind = EXTENT_DATA;
	if (kind != e->kind)
		return false;
	return kind != EXTENT_DATA || detail == MAP_KIND ||
	       b->offset == e->offset + (guest - e->start);
}

/*
 * The end of the run that entry `index`, which is e's, begins: as far as the `count` entries
 * from it on show.
 */
static uint64_t end_of_run(const struct vhdx *v, const uint8_t *entries, uint64_t index,
	uint64_t count, uint64_t wanted, enum map_detail detail, const struct extent *e)
{
	bool absent = e->kind == (v->differencing ? EXTENT_BACKING : EXTENT_ZERO);
	uint64_t i = 1;

	while (i < count && guest_of(v, index + i) < wanted) {
		struct block b;

		/* Most of a disk is not there, and 0 says so: many entries at a time. */
		if (absent && i * 8 % ZERO_STEP == 0) {
			uint64_t zeros = zero_steps(entries + i * 8, (count - i) * 8) / 8;

			i += zeros;
			if (zeros > 0)
				continue;
		}
		b = read_entry(v, get_le64(entries + i * 8));
		if ((index + i) % (v->ratio + 1) != v->ratio &&
			!continues(e, &b, guest_of(v, index + i), detail))
			break;
		i++;
	}
	return guest_of(v, index + i);
}

int vhdx_map(const struct layer *layer, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *e)
{
	const struct vhdx *v = layer->state;
	uint64_t number = offset / v->block;
	uint64_t index = number + number / v->ratio;
	uint64_t wanted = detail == MAP_KIND ? layer->size : offset + length;
	struct vhdx_table t;
	struct block b;
	int r = vhdx_table_get(layer, v->regions[VHDX_BAT].start + index * 8, &t);

	if (r < 0)
		return r;
	b = read_entry(v, get_le64(t.bytes));
	if (b.kind == EXTENT_DAMAGED && detail == MAP_KIND)
		b.kind = EXTENT_DATA;
	set_extent(e, b.kind, number * v->block, 0);
	e->offset = b.offset;
	if (!b.partial)
		e->end = min_u64(layer->size,
			end_of_run(v, t.bytes, index, min_u64(t.length / 8, v->entries - index),
				wanted, detail, e));
	vhdx_table_done(layer, &t, detail);
	if (b.partial) {
		r = map_sectors(layer, b.offset, offset, wanted, detail, e);
		if (r < 0)
			return r;
	}
	if (e->kind == EXTENT_DATA && detail == MAP_PLACE)
		settle_place(layer, offset, e);
	return 0;
}
