/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a view answers when nothing is wrong, in samples, to hold against what it answers later:
 * then too each answer must be that one, or an error, but never another.
 */
#ifndef IMGFS_TEST_SAMPLES_H
#define IMGFS_TEST_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/view.h"

#define SAMPLES_MAX 512

struct sample {
	uint64_t offset, length;
	uint8_t *bytes;
	uint64_t data, hole; /* what seeking from offset finds */
	int no_data;         /* 0 or -ENXIO */
};

struct samples {
	uint64_t size, blocks;
	size_t count;
	struct sample samples[SAMPLES_MAX];
};

/* Of all of a small view, of places all over a large one. NULL: something went wrong at once. */
struct samples *samples_take(const struct view *view);
void samples_free(struct samples *samples);

/* What may go wrong, and what did. */
struct tolerance {
	int error;       /* the one that is all right; 0: none is */
	unsigned errors; /* how often it came */
};

/* Are the answers of every step-th sample right? Says on standard error which are not. */
bool samples_hold(const struct samples *samples, const struct view *view, size_t step,
	struct tolerance *tolerance);

/* Is r no error, or the one that may come? */
bool tolerated(struct tolerance *tolerance, int r, const char *what, uint64_t offset);

#endif
