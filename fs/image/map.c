/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one caller of a format's map: walks the chain, clips, merges, and believes nothing.
 */
#include <errno.h>

#include "image_private.h"
#include "imgfs/checked.h"
#include "imgfs/log.h"

/*
 * So many map calls at most make one extent, so that a request over a disk of exabytes comes
 * back; the caller asks again where this one ended.
 */
#define MERGE_MAX 4096

static void set_kind(struct extent *e, uint64_t start, uint64_t end, enum extent_kind kind)
{
	*e = (struct extent) { .start = start, .end = end, .kind = kind };
}

static void clip(struct extent *e, uint64_t start, uint64_t end)
{
	if (e->start < start) {
		uint64_t cut = start - e->start;

		if (e->kind == EXTENT_DATA)
			e->offset += cut;
		else if (e->kind == EXTENT_PACKED)
			e->skip += (uint32_t)cut;
		e->start = start;
	}
	if (e->end > end)
		e->end = end;
}

/* Does the place exist? A format has checked that; here nothing is taken on trust. */
static bool place_ok(const struct extent *e)
{
	uint64_t length = e->end - e->start;

	switch (e->kind) {
	case EXTENT_DATA:
		return e->file && range_ok(e->offset, length, e->file->size);
	case EXTENT_PACKED:
		return e->file && e->offset < e->file->size && e->packed_length > 0 &&
		       e->unit > 0 && e->unit <= PACKED_UNIT_MAX && e->need <= e->unit &&
		       e->skip <= e->unit && length <= e->unit - e->skip;
	default:
		return true;
	}
}

/* Entries that a format looks at in one call at most: a page of its tables. */
#define ENTRIES_MAX 4096u

/* So many entries are looked at in the time that a call takes by itself. */
#define ENTRIES_PER_CALL 16u

/* A file without tables is asked by system calls. */
#define PLAIN_WORK 16u

static uint64_t work_of(const struct layer *layer, const struct extent *e)
{
	if (layer->unit == 0)
		return PLAIN_WORK;
	return 1 + min_u64((e->end - e->start) / layer->unit, ENTRIES_MAX) / ENTRIES_PER_CALL;
}

static int map_layer(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *e, uint64_t *work)
{
	int r = layer->format->map(layer, offset, length, detail, e);

	if (r < 0)
		return r;
	*work += work_of(layer, e);
	if (e->start > offset || e->end <= offset) {
		log_error("%s: its %s map of %llu is wrong", quote(layer->file->path).text,
			layer->format->name, (unsigned long long)offset);
		return -EIO;
	}
	clip(e, offset, offset + length);
	if (detail == MAP_PLACE) {
		if (!place_ok(e))
			set_kind(e, e->start, e->end, EXTENT_DAMAGED);
	} else if (e->kind == EXTENT_PACKED || e->kind == EXTENT_DAMAGED) {
		e->kind = EXTENT_DATA;
	}
	return 0;
}

/* The extent of the first layer that has something at offset. */
static int map_chain(const struct image *image, uint64_t offset, uint64_t end,
	enum map_detail detail, struct extent *e, uint64_t *work)
{
	for (const struct layer *layer = &image->layers[0]; layer; layer = layer->parent) {
		int r;

		if (offset >= layer->size)
			break;
		r = map_layer(layer, offset, min_u64(end, layer->size) - offset, detail, e, work);
		if (r < 0 || e->kind != EXTENT_BACKING)
			return r;
		end = e->end;
	}
	set_kind(e, offset, end, EXTENT_ZERO);
	return 0;
}

static bool merge(struct extent *e, const struct extent *next, enum map_detail detail)
{
	if (next->kind != e->kind)
		return false;
	if (detail == MAP_PLACE) {
		if (e->kind == EXTENT_PACKED)
			return false;
		if (e->kind == EXTENT_DATA &&
			(next->file != e->file || next->offset != e->offset + (e->end - e->start)))
			return false;
	}
	e->end = next->end;
	return true;
}

int image_map_work(const struct image *image, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent, uint64_t *work)
{
	uint64_t end = offset + length;
	struct extent next;
	int r = map_chain(image, offset, end, detail, extent, work);

	if (r < 0)
		return r;
	for (int merges = 0; extent->end < end && merges < MERGE_MAX; merges++) {
		if (map_chain(image, extent->end, end, detail, &next, work) < 0)
			break; /* the next call meets the error again, at its own offset */
		if (!merge(extent, &next, detail))
			break;
	}
	return 0;
}

int image_map(const struct image *image, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *extent)
{
	uint64_t work = 0;

	return image_map_work(image, offset, length, detail, extent, &work);
}
