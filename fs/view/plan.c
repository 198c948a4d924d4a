/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A read, first as a plan: pieces of files, of memory, of nothing. Tables are filled and
 * compressed units unpacked when the read is planned; plain data stays in its file until the
 * pieces are copied (here) or handed to the kernel.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/log.h"
#include "imgfs/view.h"

/* Something that the pieces point into: a unit of the cache, or memory of its own. */
struct held {
	struct held *next;
	bool is_unit;
	struct unit_view unit;
	uint8_t bytes[];
};

static int add_piece(struct plan *plan, struct piece piece)
{
	struct piece *last = plan->count ? &plan->pieces[plan->count - 1] : NULL;

	if (last && last->kind == PIECE_ZERO && piece.kind == PIECE_ZERO) {
		last->length += piece.length;
		return 0;
	}
	if (plan->count == plan->capacity) {
		size_t capacity = plan->capacity ? plan->capacity * 2 : 16;
		struct piece *grown = reallocarray(plan->pieces, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		plan->pieces = grown;
		plan->capacity = capacity;
	}
	plan->pieces[plan->count++] = piece;
	return 0;
}

static struct held *hold(struct plan *plan, size_t bytes)
{
	struct held *held = malloc(sizeof(*held) + bytes);

	if (!held)
		return NULL;
	held->is_unit = false;
	held->next = plan->held;
	plan->held = held;
	return held;
}

int plan_add_zero(struct plan *plan, uint64_t length)
{
	return length == 0 ? 0 : add_piece(plan, (struct piece) { PIECE_ZERO, .length = length });
}

/*
 * Some formats allow units of many megabytes, and a read holds those that it is made of. Reads
 * of units larger than this take turns, so that memory does not grow with the number of readers.
 */
#define LARGE_UNIT (2u << 20)

static pthread_mutex_t large_units = PTHREAD_MUTEX_INITIALIZER;

static void take_turn(struct plan *plan)
{
	if (plan->has_turn)
		return;
	pthread_mutex_lock(&large_units);
	plan->has_turn = true;
}

/* What is mapped before any of it is unpacked: at least as much as the kernel asks for at once. */
#define BATCH 32

struct batch {
	struct extent extents[BATCH];
	size_t count;
	struct unit_request requests[BATCH]; /* of those that are PACKED, in their order */
	size_t packed;
};

/* Units of the batch, on all processors; the plan holds what there is of them. */
static int get_units(struct plan *plan, struct batch *b)
{
	int r = 0;

	b->packed = 0;
	for (size_t i = 0; i < b->count; i++) {
		const struct extent *e = &b->extents[i];

		if (e->kind != EXTENT_PACKED)
			continue;
		if (e->unit > LARGE_UNIT)
			take_turn(plan);
		b->requests[b->packed++] = (struct unit_request) { .extent = e };
	}
	image_units_get(plan->view->image, b->requests, b->packed);
	for (size_t i = 0; i < b->packed; i++) {
		struct unit_request *request = &b->requests[i];
		struct held *held;

		if (request->error < 0)
			continue;
		held = hold(plan, 0);
		if (held) {
			held->is_unit = true;
			held->unit = request->unit;
		} else {
			image_unit_put(plan->view->image, &request->unit);
			request->error = r = -ENOMEM;
		}
	}
	return r;
}

static int add_unit(struct plan *plan, const struct unit_request *request)
{
	const struct extent *e = request->extent;

	if (request->error < 0) {
		log_limited("%s: the compressed data of guest offset %" PRIu64
			    " cannot be read: %s",
			quote(image_path(plan->view->image)).text, e->start,
			strerror(-request->error));
		return request->error;
	}
	return add_piece(plan, (struct piece) { PIECE_MEMORY, .length = e->end - e->start,
				       .bytes = request->unit.bytes + e->skip });
}

static int add_extent(struct plan *plan, const struct extent *e)
{
	uint64_t length = e->end - e->start;

	switch (e->kind) {
	case EXTENT_ZERO:
		return plan_add_zero(plan, length);
	case EXTENT_DATA:
		return add_piece(plan, (struct piece) { PIECE_FILE, .length = length,
					       .file = e->file, .offset = e->offset });
	case EXTENT_PACKED:
	case EXTENT_DAMAGED:
	case EXTENT_BACKING:
		break;
	}
	log_limited("%s: damaged at guest offset %" PRIu64 " (%" PRIu64 " bytes)",
		quote(image_path(plan->view->image)).text, e->start, length);
	return -EIO;
}

static int add_batch(struct plan *plan, struct batch *b)
{
	size_t packed = 0;
	int r = get_units(plan, b);

	for (size_t i = 0; r == 0 && i < b->count; i++) {
		const struct extent *e = &b->extents[i];

		if (e->kind == EXTENT_PACKED)
			r = add_unit(plan, &b->requests[packed++]);
		else
			r = add_extent(plan, e);
	}
	return r;
}

/* The extents from guest on, as many as there is room for. At least one, or -errno. */
static int map_batch(const struct image *image, uint64_t guest, uint64_t stop, struct batch *b)
{
	int r = 0;

	for (b->count = 0; b->count < BATCH && guest < stop; b->count++) {
		struct extent *e = &b->extents[b->count];

		r = image_map(image, guest, stop - guest, MAP_PLACE, e);
		if (r < 0)
			break;
		guest = e->end;
	}
	/* What is before the error counts; the next batch begins with it. */
	if (b->count > 0)
		return 0;
	if (r != -ESTALE)
		log_limited("%s: where guest offset %" PRIu64 " is cannot be read: %s",
			quote(image_path(image)).text, guest, strerror(-r));
	return r;
}

/* Guest bytes; what lies past the end of the disk is the padding of a last unit. */
int plan_add_guest(struct plan *plan, uint64_t guest, uint64_t length)
{
	const struct image *image = plan->view->image;
	uint64_t end = guest + length;
	uint64_t stop = min_u64(end, image_size(image));
	struct batch batch;

	while (guest < stop) {
		int r = map_batch(image, guest, stop, &batch);

		if (r == 0)
			r = add_batch(plan, &batch);
		if (r < 0)
			return r;
		guest = batch.extents[batch.count - 1].end;
	}
	return plan_add_zero(plan, end - guest);
}

uint8_t *plan_add_memory(struct plan *plan, uint64_t length)
{
	struct held *held = hold(plan, length);

	if (!held || add_piece(plan, (struct piece) { PIECE_MEMORY, .length = length,
					     .bytes = held->bytes }) < 0)
		return NULL;
	return held->bytes;
}

int plan_read_guest(struct plan *plan, uint64_t guest, uint64_t length, uint8_t *buffer)
{
	/* One turn is enough for both. */
	struct plan inner = { .view = plan->view, .has_turn = plan->has_turn };
	int r = plan_add_guest(&inner, guest, length);

	if (r == 0)
		r = plan_read(&inner, buffer);
	plan->has_turn = inner.has_turn;
	inner.has_turn = false;
	plan_release(&inner);
	return r;
}

/* Bytes of a block, and of those after it that are its neighbours in the guest too. */
static uint64_t block_run(
	const struct view *view, const struct region *region, uint64_t block, uint64_t length)
{
	uint64_t run = view->block_size;

	if (region->lead > 0)
		return run;
	for (uint64_t next = block + 1; run < length && occupancy_test(view->blocks, next); next++)
		run += view->block_size;
	return run;
}

static int add_lead(struct plan *plan, uint64_t length)
{
	uint8_t *bytes = plan_add_memory(plan, length);

	if (bytes)
		memset(bytes, 0xff, length);
	return bytes ? 0 : -ENOMEM;
}

static int add_blocks(
	struct plan *plan, const struct region *region, uint64_t offset, uint64_t length)
{
	const struct view *view = plan->view;
	uint64_t stride = region->lead + view->block_size;

	while (length > 0) {
		uint64_t skip = offset % stride;
		uint64_t take;
		int r;

		if (skip < region->lead) {
			take = min_u64(region->lead - skip, length);
			r = add_lead(plan, take);
		} else {
			uint64_t block = occupancy_select(view->blocks, offset / stride);

			skip -= region->lead;
			take = block_run(view, region, block, skip + length) - skip;
			take = min_u64(take, length);
			r = plan_add_guest(plan, block * view->block_size + skip, take);
		}
		if (r < 0)
			return r;
		offset += take;
		length -= take;
	}
	return 0;
}

static int add_table(
	struct plan *plan, const struct region *region, uint64_t offset, uint64_t length)
{
	uint8_t *bytes = plan_add_memory(plan, length);

	if (!bytes)
		return -ENOMEM;
	region->table->fill(plan->view, offset, length, bytes);
	return 0;
}

/* `offset` is from the start of the region. */
static int add_region(
	struct plan *plan, const struct region *region, uint64_t offset, uint64_t length)
{
	switch (region->kind) {
	case REGION_BYTES:
		return add_piece(plan, (struct piece) { PIECE_MEMORY, .length = length,
					       .bytes = region->bytes + offset });
	case REGION_TABLE:
		return add_table(plan, region, offset, length);
	case REGION_ZERO:
		return plan_add_zero(plan, length);
	case REGION_GUEST:
		return plan_add_guest(plan, region->guest + offset, length);
	case REGION_BLOCKS:
		return add_blocks(plan, region, offset, length);
	case REGION_COMPOSED:
		return region->composer->compose(plan->view, plan, offset, length);
	case REGION_FILE:
		return add_piece(
			plan, (struct piece) { PIECE_FILE, .length = length,
				      .file = image_file(plan->view->image, 0), .offset = offset });
	}
	return -EIO;
}

int view_plan(const struct view *view, uint64_t offset, uint64_t length, struct plan *plan)
{
	uint64_t end;

	*plan = (struct plan) { .view = view };
	if (offset >= view->size)
		return 0;
	end = offset + min_u64(length, view->size - offset);
	for (size_t i = 0; i < view->region_count && offset < end; i++) {
		const struct region *region = &view->regions[i];
		uint64_t stop = min_u64(end, region->end);
		int r;

		if (offset >= stop)
			continue;
		r = add_region(plan, region, offset - region->start, stop - offset);
		if (r < 0)
			return r;
		offset = stop;
	}
	return 0;
}

void plan_release(struct plan *plan)
{
	while (plan->held) {
		struct held *held = plan->held;

		plan->held = held->next;
		if (held->is_unit)
			image_unit_put(plan->view->image, &held->unit);
		free(held);
	}
	if (plan->has_turn)
		pthread_mutex_unlock(&large_units);
	free(plan->pieces);
	*plan = (struct plan) { 0 };
}

uint64_t plan_length(const struct plan *plan)
{
	uint64_t length = 0;

	for (size_t i = 0; i < plan->count; i++)
		length += plan->pieces[i].length;
	return length;
}

static int read_file(const struct piece *piece, uint8_t *buffer)
{
	int r = file_read(piece->file, buffer, piece->length, piece->offset);

	if (r == -ERANGE)
		return -ESTALE;
	if (r < 0)
		log_limited("%s: %" PRIu64 " bytes at %" PRIu64 " cannot be read: %s",
			quote(piece->file->path).text, piece->length, piece->offset, strerror(-r));
	return r;
}

int plan_read(const struct plan *plan, uint8_t *buffer)
{
	for (size_t i = 0; i < plan->count; i++) {
		const struct piece *piece = &plan->pieces[i];
		int r = 0;

		switch (piece->kind) {
		case PIECE_ZERO:
			memset(buffer, 0, piece->length);
			break;
		case PIECE_MEMORY:
			memcpy(buffer, piece->bytes, piece->length);
			break;
		case PIECE_FILE:
			r = read_file(piece, buffer);
			break;
		}
		if (r < 0)
			return r;
		buffer += piece->length;
	}
	return 0;
}

int view_read(
	const struct view *view, uint64_t offset, uint64_t length, uint8_t *buffer, uint64_t *done)
{
	struct plan plan;
	int r = view_plan(view, offset, length, &plan);
	int changed;

	if (r == 0)
		r = plan_read(&plan, buffer);
	*done = plan_length(&plan);
	plan_release(&plan);
	/* Nothing that was found counts, good or bad, if a source has changed meanwhile. */
	changed = image_verify(view->image);
	return changed < 0 ? changed : r;
}
