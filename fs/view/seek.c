/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a view holds data: SEEK_DATA, SEEK_HOLE and st_blocks, from one notion of runs, so that
 * the three cannot contradict each other.
 */
#include <errno.h>

#include "imgfs/checked.h"
#include "imgfs/view.h"

struct run {
	uint64_t end; /* file offset */
	bool zero;
};

/* A hole that is known needs no second look at the tables. */
static int guest_extent(
	const struct view *view, uint64_t guest, uint64_t length, struct extent *e, uint64_t *work)
{
	uint64_t hole_end = min_u64(image_known_hole(view->image, guest), guest + length);

	if (hole_end <= guest)
		return image_map_work(view->image, guest, length, MAP_KIND, e, work);
	*e = (struct extent) { .start = guest, .end = hole_end, .kind = EXTENT_ZERO };
	return 0;
}

static int guest_run(const struct view *view, const struct region *region, uint64_t offset,
	struct run *run, uint64_t *work)
{
	uint64_t guest = region->guest + (offset - region->start);
	uint64_t size = image_size(view->image);
	struct extent e;
	int r;

	*run = (struct run) { .end = region->end, .zero = true };
	if (guest >= size)
		return 0;
	r = guest_extent(view, guest, min_u64(size - guest, region->end - offset), &e, work);
	if (r < 0)
		return r;
	run->zero = e.kind == EXTENT_ZERO;
	if (e.end < size || !run->zero)
		run->end = offset + (e.end - guest);
	return 0;
}

static int file_run(
	const struct view *view, const struct region *region, uint64_t offset, struct run *run)
{
	uint64_t start, end;
	int r = file_next_data(image_file(view->image, 0), offset - region->start, &start, &end);

	if (r < 0)
		return r;
	run->zero = region->start + start > offset;
	run->end = region->start + (run->zero ? start : end);
	return 0;
}

/* Units of the block from `unit` on that are occupied, or are not, as it is. */
static uint64_t units_run(
	const struct occupancy *o, uint64_t unit, uint64_t first, uint64_t scale, bool *zero)
{
	uint64_t end = first + scale;
	uint64_t next = occupancy_next(o, unit);

	/* Behind the end of the disk there is nothing. */
	*zero = !occupancy_test(o, unit);
	if (*zero)
		return (next < occupancy_units(o) ? min_u64(next, end) : end) - unit;
	if (occupancy_rank(o, end) - occupancy_rank(o, first) == scale)
		return end - unit;
	for (next = unit + 1; next < end && occupancy_test(o, next);)
		next++;
	return next - unit;
}

/* Blocks of several units have holes where units are not occupied. */
static void blocks_run(const struct view *view, const struct region *region, uint64_t offset,
	struct run *run, uint64_t *work)
{
	uint64_t scale = view->block_size / OCCUPANCY_UNIT;
	uint64_t stride = region->lead + view->block_size;
	uint64_t at = (offset - region->start) % stride;
	uint64_t start = offset - at + region->lead; /* of the block's first unit */
	uint64_t first, inside;

	if (occupancy_count(view->occupancy) == occupancy_count(view->blocks) * scale)
		return; /* all of them are full */
	if (at < region->lead) {
		run->end = start;
		return;
	}
	*work += 1;
	first = occupancy_select(view->blocks, (offset - region->start) / stride) * scale;
	inside = (at - region->lead) / OCCUPANCY_UNIT;
	run->end = start +
		   (inside + units_run(view->occupancy, first + inside, first, scale, &run->zero)) *
			   OCCUPANCY_UNIT;
}

/* The run that begins at offset, in its region. */
static int region_run(const struct view *view, const struct region *region, uint64_t offset,
	struct run *run, uint64_t *work)
{
	*run = (struct run) { .end = region->end, .zero = region->kind == REGION_ZERO };
	switch (region->kind) {
	case REGION_BYTES:
	case REGION_ZERO:
	case REGION_COMPOSED:
		break;
	case REGION_BLOCKS:
		blocks_run(view, region, offset, run, work);
		break;
	case REGION_TABLE:
		if (region->table->run)
			run->end = region->start +
				   region->table->run(view, offset - region->start, &run->zero);
		break;
	case REGION_GUEST:
		return guest_run(view, region, offset, run, work);
	case REGION_FILE:
		return file_run(view, region, offset, run);
	}
	return 0;
}

/*
 * The first offset >= offset, below limit, that is in a zero run or not; limit if there is none.
 * Where that takes more work than one request may, the offset that was reached: to whoever goes
 * on from there, it is a run of no length.
 */
static int find(
	const struct view *view, uint64_t offset, uint64_t limit, bool zero, uint64_t *found)
{
	uint64_t work = 0;

	for (size_t i = 0; i < view->region_count; i++) {
		const struct region *region = &view->regions[i];

		while (offset < region->end && offset < limit) {
			struct run run;
			int r = region_run(view, region, offset, &run, &work);

			if (r < 0)
				return r;
			if (run.zero == zero || work > MAP_WORK_MAX) {
				*found = offset;
				return 0;
			}
			offset = run.end;
		}
	}
	*found = limit;
	return 0;
}

int view_seek_data(const struct view *view, uint64_t offset, uint64_t *found)
{
	int r;

	if (offset >= view->size)
		return -ENXIO;
	r = find(view, offset, view->size, false, found);
	if (r == 0 && *found >= view->size)
		return -ENXIO;
	return r;
}

int view_seek_hole(const struct view *view, uint64_t offset, uint64_t *found)
{
	if (offset >= view->size)
		return -ENXIO;
	return find(view, offset, view->size, true, found);
}

/* Bytes of a table that are not in zero runs. */
static uint64_t table_bytes(const struct view *view, const struct region *region)
{
	uint64_t length = region->end - region->start;
	uint64_t sum = 0, end;

	if (!region->table->run)
		return length;
	for (uint64_t at = 0; at < length; at = end) {
		bool zero;

		end = region->table->run(view, at, &zero);
		if (!zero)
			sum += end - at;
	}
	return sum;
}

/* As guest_run() finds them, from the tables: zeros that a compact view leaves out are in it. */
static int guest_bytes(const struct view *view, const struct region *region, uint64_t *bytes)
{
	uint64_t allocated;
	int r = image_allocated(view->image, &allocated);

	*bytes = region->end - region->start;
	if (r == -EFBIG)
		return 0;
	if (r == 0)
		*bytes = min_u64(*bytes, allocated);
	return r;
}

/* As blocks_run() finds them. */
static uint64_t blocks_bytes(const struct view *view, const struct region *region)
{
	return occupancy_count(view->blocks) * region->lead +
	       occupancy_count(view->occupancy) * OCCUPANCY_UNIT;
}

static int region_bytes(const struct view *view, const struct region *region, uint64_t *bytes)
{
	*bytes = region->end - region->start;
	switch (region->kind) {
	case REGION_BYTES:
	case REGION_COMPOSED:
		return 0;
	case REGION_BLOCKS:
		*bytes = blocks_bytes(view, region);
		return 0;
	case REGION_ZERO:
		*bytes = 0;
		return 0;
	case REGION_TABLE:
		*bytes = table_bytes(view, region);
		return 0;
	case REGION_GUEST:
		return guest_bytes(view, region, bytes);
	case REGION_FILE:
		*bytes = min_u64(*bytes, image_file(view->image, 0)->blocks * 512);
		return 0;
	}
	return 0;
}

int view_blocks(const struct view *view, uint64_t *blocks)
{
	uint64_t total = 0;

	for (size_t i = 0; i < view->region_count; i++) {
		uint64_t bytes;
		int r = region_bytes(view, &view->regions[i], &bytes);

		if (r < 0)
			return r;
		total += bytes;
	}
	/* tar takes 0 blocks for a file of nothing but zeros and drops what it holds. */
	*blocks = view->size == 0 ? 0 : max_u64(1, div_ceil(total, 512));
	return 0;
}
