/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of an image and of its views, and what must hold for all of them:
 *
 *	a map covers what was asked for, with places that are inside their files;
 *	the raw view gives what the map says, and EIO where it says damage;
 *	a read gives the bytes that its halves give, and fails where one of them does;
 *	holes are zeros and never fail; data and holes take turns; blocks fit the size;
 *	an occupied unit is the same in every compact view as in the raw one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/view.h"
#include "tests/tools/formats.h"

#define LONGEST     (160u << 10)
#define BYTES_MAX   (2u << 20) /* of one input, so that all take their turn */
#define EXTENTS_MAX 96u
#define RUNS_MAX    8u
#define UNITS_MAX   8u
#define SAMPLE      3000u /* of an extent or hole: more than a sector, and odd in its end */

static uint8_t whole[LONGEST + 1], halves[LONGEST + 1];

struct reading {
	struct image *image;
	struct dice *dice;
	unsigned left; /* reads */
	uint64_t bytes;
};

/* A read that must end at the right place. 0 or -EIO. */
static int read_some(struct reading *rd, const struct view *view, uint64_t offset, uint64_t length,
	uint8_t *buffer)
{
	uint64_t done = UINT64_MAX, expected = 0;
	int r;

	if (offset < view->size)
		expected = min_u64(length, view->size - offset);
	buffer[expected] = 0xa5;
	r = view_read(view, offset, length, buffer, &done);
	rd->left -= rd->left > 0;
	rd->bytes += expected;
	fuzz_check(r == 0 || r == -EIO);
	fuzz_check(r < 0 || done == expected);
	fuzz_check(buffer[expected] == 0xa5);
	return r;
}

static bool enough(const struct reading *rd)
{
	return rd->left == 0 || rd->bytes >= BYTES_MAX;
}

static bool all_zero(const uint8_t *bytes, uint64_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Short ones are as frequent as long ones. */
static uint64_t pick_length(struct reading *rd)
{
	return roll(rd->dice, 2ull << roll(rd->dice, 16));
}

/* One read, and the same in two parts. */
static void check_read(
	struct reading *rd, const struct view *view, uint64_t offset, uint64_t length)
{
	uint64_t part = roll(rd->dice, length + 1);
	int r, first, second;

	if (enough(rd))
		return;
	r = read_some(rd, view, offset, length, whole);
	first = read_some(rd, view, offset, part, halves);
	second = read_some(rd, view, offset + part, length - part, halves + part);
	fuzz_check((r < 0) == (first < 0 || second < 0));
	if (r == 0 && offset < view->size)
		fuzz_check(memcmp(whole, halves, min_u64(length, view->size - offset)) == 0);
}

/* ---- the map against the raw view ---- */

static void check_place(const struct extent *e)
{
	fuzz_check(e->kind != EXTENT_BACKING);
	if (e->kind == EXTENT_DATA)
		fuzz_check(range_ok(e->offset, e->end - e->start, e->file->size));
	if (e->kind == EXTENT_PACKED)
		fuzz_check(range_ok(e->skip, e->end - e->start, e->unit));
}

/* What the extent says that its first bytes are. 0 or -EIO. */
static int expect(
	const struct image *image, const struct extent *e, uint64_t length, uint8_t *bytes)
{
	struct unit_view unit;
	int r;

	switch (e->kind) {
	case EXTENT_ZERO:
		memset(bytes, 0, length);
		return 0;
	case EXTENT_DATA:
		return file_read(e->file, bytes, length, e->offset);
	case EXTENT_PACKED:
		r = image_unit_get(image, e, &unit);
		if (r == 0) {
			memcpy(bytes, unit.bytes + e->skip, length);
			image_unit_put(image, &unit);
		}
		return r;
	default:
		return -EIO;
	}
}

static uint64_t check_extent(struct reading *rd, const struct view *raw, uint64_t offset)
{
	uint64_t size = image_size(rd->image);
	uint64_t length = roll(rd->dice, 8) ? size - offset : 1 + roll(rd->dice, size - offset);
	struct extent e;
	int r;

	fuzz_check(image_map(rd->image, offset, length, MAP_PLACE, &e) == 0);
	fuzz_check(e.start == offset && e.end > offset && e.end <= offset + length);
	check_place(&e);
	length = min_u64(e.end - e.start, SAMPLE);
	r = expect(rd->image, &e, length, halves);
	fuzz_check(read_some(rd, raw, offset, length, whole) == r);
	fuzz_check(r < 0 || memcmp(whole, halves, length) == 0);
	return e.end;
}

static void check_map(struct reading *rd, const struct view *raw)
{
	uint64_t size = image_size(rd->image);
	unsigned count = 0;
	struct extent e;

	for (uint64_t at = 0; at < size && count < EXTENTS_MAX && !enough(rd); count++)
		at = check_extent(rd, raw, at);
	for (unsigned i = 0; i < count / 2 && !enough(rd); i++)
		check_extent(rd, raw, roll(rd->dice, size));
	count = 0;
	for (uint64_t at = 0; at < size && count < EXTENTS_MAX; at = e.end, count++) {
		fuzz_check(image_map(rd->image, at, size - at, MAP_KIND, &e) == 0);
		fuzz_check(e.start == at && e.end > at && e.end <= size);
		fuzz_check(e.kind == EXTENT_ZERO || e.kind == EXTENT_DATA);
	}
}

/* ---- holes ---- */

static void check_hole(
	struct reading *rd, const struct view *view, uint64_t offset, uint64_t length)
{
	if (enough(rd))
		return;
	fuzz_check(read_some(rd, view, offset, length, whole) == 0);
	fuzz_check(all_zero(whole, length));
}

/* The run of data or of a hole at offset; its end. */
static uint64_t check_run(struct reading *rd, const struct view *view, uint64_t offset)
{
	uint64_t data = view->size, hole = 0, length;
	int r = view_seek_data(view, offset, &data);

	fuzz_check(r == 0 || r == -ENXIO);
	fuzz_check(view_seek_hole(view, offset, &hole) == 0);
	if (r < 0)
		data = view->size;
	fuzz_check((data == offset) != (hole == offset));
	fuzz_check(data >= offset && hole >= offset && max_u64(data, hole) <= view->size);
	if (data > offset) {
		length = min_u64(data - offset, SAMPLE);
		check_hole(rd, view, offset, length);
		check_hole(rd, view, data - length, length);
		return data;
	}
	length = min_u64(hole - offset, SAMPLE);
	check_read(rd, view, offset, length);
	check_read(rd, view, hole - length, length + 10);
	return hole;
}

static void check_runs(struct reading *rd, const struct view *view)
{
	unsigned count = 0;
	uint64_t found;

	for (uint64_t at = 0; at < view->size && count < RUNS_MAX; count++)
		at = check_run(rd, view, at);
	for (unsigned i = 0; i < count / 2; i++)
		check_run(rd, view, roll(rd->dice, view->size));
	fuzz_check(view_seek_data(view, view->size, &found) == -ENXIO);
	fuzz_check(view_seek_hole(view, view->size, &found) == -ENXIO);
}

/* ---- views ---- */

static void check_regions(struct reading *rd, const struct view *view)
{
	uint64_t at = 0, blocks;

	for (size_t i = 0; i < view->region_count; i++) {
		const struct region *region = &view->regions[i];

		fuzz_check(region->start == at && region->end > at);
		at = region->end;
		check_read(rd, view, at - 1, 1 + roll(rd->dice, 5000));
		check_read(rd, view, region->start, 1 + roll(rd->dice, 600));
		check_read(rd, view, at - min_u64(at, roll(rd->dice, 9000)), pick_length(rd));
	}
	fuzz_check(at == view->size);
	fuzz_check(view_blocks(view, &blocks) == 0);
	fuzz_check(blocks > 0 || view->size == 0);
	fuzz_check(view->identity || blocks <= div_ceil(view->size, 512));
}

static void check_random(struct reading *rd, const struct view *view, unsigned reads)
{
	for (unsigned i = 0; i < reads && !enough(rd); i++) {
		const struct region *region = &view->regions[roll(rd->dice, view->region_count)];
		uint64_t at = region->start + roll(rd->dice, region->end - region->start);

		check_read(rd, view, at, pick_length(rd));
	}
}

static const struct region *blocks_of(const struct view *view)
{
	for (size_t i = 0; i < view->region_count; i++) {
		if (view->regions[i].kind == REGION_BLOCKS)
			return &view->regions[i];
	}
	return NULL;
}

/* Where guest bytes of an occupied block are in the view. */
static uint64_t place_of(const struct view *view, const struct region *blocks, uint64_t guest)
{
	uint64_t rank = occupancy_rank(view->blocks, guest / view->block_size);

	return blocks->start + rank * (blocks->lead + view->block_size) + blocks->lead +
	       guest % view->block_size;
}

static void check_units(struct reading *rd, const struct view *view, const struct view *raw)
{
	const struct occupancy *o = view->occupancy;
	const struct region *blocks = blocks_of(view);

	if (!o || !blocks)
		return;
	for (unsigned i = 0; i < UNITS_MAX && !enough(rd); i++) {
		uint64_t k = roll(rd->dice, occupancy_count(o));
		uint64_t guest = occupancy_select(o, k) * OCCUPANCY_UNIT;
		uint64_t skip = roll(rd->dice, OCCUPANCY_UNIT);
		uint64_t length = min_u64(SAMPLE, OCCUPANCY_UNIT - skip);
		int r;

		fuzz_check(occupancy_rank(o, guest / OCCUPANCY_UNIT) == k);
		guest += skip;
		if (guest >= raw->size)
			continue;
		length = min_u64(length, raw->size - guest);
		r = read_some(rd, raw, guest, length, halves);
		fuzz_check(read_some(rd, view, place_of(view, blocks, guest), length, whole) == r);
		fuzz_check(r < 0 || memcmp(whole, halves, length) == 0);
	}
}

static struct view *open_view(struct image *image, const struct view_format *format)
{
	struct why why = { "" };
	struct view *view = NULL;
	bool promised = format->surely_fits(image_size(image));
	int r = view_open(image, format, &view, &why);

	fuzz_check(r == 0 || (r == -EFBIG && why.text[0] != '\0'));
	fuzz_check(r == 0 || !promised);
	return view;
}

static struct view *open_raw(struct image *image)
{
	return open_view(image, format_called("raw"));
}

void fuzz_views(struct image *image, struct dice *dice, unsigned reads)
{
	struct reading rd = { .image = image, .dice = dice, .left = reads };
	struct view *raw = open_raw(image);

	if (raw)
		check_map(&rd, raw);
	for (size_t i = 0; every_format(i); i++) {
		struct view *view = open_view(image, every_format(i));

		if (!view)
			continue;
		check_regions(&rd, view);
		check_runs(&rd, view);
		check_random(&rd, view, view->identity ? 1 : 8);
		if (raw)
			check_units(&rd, view, raw);
		view_close(view);
	}
	view_close(raw);
}
