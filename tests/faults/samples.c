/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"

/* Up to here a view is looked at from end to end. */
#define WHOLE      (4u << 20)
#define LENGTH     (40000u) /* touches one unit or two, and is no multiple of anything */
#define EVERYWHERE 40

static bool take_one(struct samples *samples, const struct view *view, uint64_t offset)
{
	struct sample *s = &samples->samples[samples->count];
	uint64_t done;

	if (offset >= view->size || samples->count == SAMPLES_MAX)
		return true;
	*s = (struct sample) { .offset = offset, .length = min_u64(LENGTH, view->size - offset) };
	s->bytes = malloc(s->length);
	if (!s->bytes)
		return false;
	samples->count++;
	s->no_data = view_seek_data(view, offset, &s->data);
	return view_read(view, offset, LENGTH, s->bytes, &done) == 0 && done == s->length &&
	       (s->no_data == 0 || s->no_data == -ENXIO) &&
	       view_seek_hole(view, offset, &s->hole) == 0;
}

static bool take_all(struct samples *samples, const struct view *view)
{
	uint64_t step = view->size <= WHOLE ? LENGTH : view->size / EVERYWHERE;

	for (uint64_t at = 0; at < view->size; at += step) {
		if (!take_one(samples, view, at))
			return false;
	}
	/* Where things meet, and around the first data. */
	for (size_t i = 0; i < view->region_count; i++) {
		uint64_t start = view->regions[i].start;

		if (!take_one(samples, view, start) ||
			!take_one(samples, view, start - min_u64(start, LENGTH / 2)))
			return false;
	}
	return take_one(samples, view, samples->count ? samples->samples[0].data : 0);
}

struct samples *samples_take(const struct view *view)
{
	struct samples *samples = calloc(1, sizeof(*samples));

	if (!samples)
		return NULL;
	samples->size = view->size;
	if (view_blocks(view, &samples->blocks) == 0 && take_all(samples, view))
		return samples;
	samples_free(samples);
	return NULL;
}

void samples_free(struct samples *samples)
{
	for (size_t i = 0; samples && i < samples->count; i++)
		free(samples->samples[i].bytes);
	free(samples);
}

bool tolerated(struct tolerance *tolerance, int r, const char *what, uint64_t offset)
{
	if (r >= 0)
		return true;
	if (r == tolerance->error) {
		tolerance->errors++;
		return true;
	}
	fprintf(stderr, "%s at %" PRIu64 ": %s\n", what, offset, strerrorname_np(-r));
	return false;
}

static bool differs(const char *what, uint64_t offset)
{
	fprintf(stderr, "%s at %" PRIu64 " is another than before\n", what, offset);
	return false;
}

static bool read_holds(const struct sample *s, const struct view *view, struct tolerance *tolerance)
{
	static uint8_t bytes[LENGTH];
	uint64_t done;
	int r;

	memset(bytes, 0xa5, sizeof(bytes));
	r = view_read(view, s->offset, LENGTH, bytes, &done);
	if (r == 0 && (done != s->length || memcmp(bytes, s->bytes, s->length) != 0))
		return differs("what is read", s->offset);
	return tolerated(tolerance, r, "read", s->offset);
}

static bool seek_holds(const struct sample *s, const struct view *view, struct tolerance *tolerance)
{
	uint64_t data = 0, hole = 0;
	int r = view_seek_data(view, s->offset, &data);

	if (r == 0 || r == -ENXIO) {
		if (r != s->no_data || (r == 0 && data != s->data))
			return differs("data", s->offset);
	} else if (!tolerated(tolerance, r, "seeking data", s->offset)) {
		return false;
	}
	r = view_seek_hole(view, s->offset, &hole);
	if (r == 0 && hole != s->hole)
		return differs("the hole", s->offset);
	return tolerated(tolerance, r, "seeking a hole", s->offset);
}

bool samples_hold(const struct samples *samples, const struct view *view, size_t step,
	struct tolerance *tolerance)
{
	uint64_t blocks;
	int r = view_blocks(view, &blocks);

	if (view->size != samples->size || (r == 0 && blocks != samples->blocks))
		return differs("size", view->size);
	if (!tolerated(tolerance, r, "blocks", 0))
		return false;
	for (size_t i = 0; i < samples->count; i += step) {
		if (!read_holds(&samples->samples[i], view, tolerance) ||
			!seek_holds(&samples->samples[i], view, tolerance))
			return false;
	}
	return true;
}
