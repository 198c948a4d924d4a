/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flat extents (FLAT, VMFS): the bytes of the disk as they are, at an offset of a file. And
 * extents that have no bytes at all: ZERO, and what NOACCESS withholds.
 *
 * A file that is shorter than its line is damaged where it ends; a longer one is not read there.
 */
#include <errno.h>

#include "extent.h"
#include "imgfs/checked.h"

static int flat_open(const struct layer *layer, struct vmdk_extent *x, struct why *why)
{
	uint64_t end;

	(void)layer;
	if (!checked_add(x->offset, x->size, &end) || end > INT64_MAX)
		return why_set(why, -EINVAL, "it would end beyond 2^63 bytes");
	return 0;
}

static int flat_map(const struct layer *layer, const struct vmdk_extent *x, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *e)
{
	uint64_t file_size = x->file->size;
	uint64_t present = file_size > x->offset ? min_u64(file_size - x->offset, x->size) : 0;
	uint64_t start, end;
	int r;

	(void)layer;
	(void)length;
	if (offset >= present) {
		*e = (struct extent) { .start = present, .end = x->size, .kind = EXTENT_DAMAGED };
		return 0;
	}
	*e = (struct extent) {
		.start = offset,
		.end = present,
		.kind = EXTENT_DATA,
		.file = x->file,
		.offset = x->offset + offset,
	};
	/* Reading a hole of a file is as cheap as finding it. */
	if (detail == MAP_PLACE)
		return 0;
	r = file_next_data(x->file, x->offset + offset, &start, &end);
	if (r < 0)
		return r;
	if (start > x->offset + offset) {
		e->kind = EXTENT_ZERO;
		end = start;
	}
	e->end = min_u64(end - x->offset, present);
	return 0;
}

static int zero_open(const struct layer *layer, struct vmdk_extent *x, struct why *why)
{
	(void)layer;
	(void)x;
	(void)why;
	return 0;
}

static int zero_map(const struct layer *layer, const struct vmdk_extent *x, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *e)
{
	(void)layer;
	(void)offset;
	(void)length;
	(void)detail;
	*e = (struct extent) { .start = 0, .end = x->size, .kind = EXTENT_ZERO };
	return 0;
}

const struct vmdk_extent_kind vmdk_flat = {
	.name = "a flat extent",
	.open = flat_open,
	.map = flat_map,
};

const struct vmdk_extent_kind vmdk_zero = {
	.name = "an extent of zeros",
	.open = zero_open,
	.map = zero_map,
};
