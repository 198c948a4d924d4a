/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_IMAGE_CUT_H
#define IMGFS_IMAGE_CUT_H

#include "imgfs/image.h"

/*
 * Cuts a run of data where the file's data ends. What is missing is damage. `offset` was asked for,
 * so the part that holds it is what stays of the run.
 */
static inline void extent_cut(struct extent *e, uint64_t offset, uint64_t data_end)
{
	uint64_t available = data_end > e->offset ? data_end - e->offset : 0;
	uint64_t cut = e->start + available;

	if (e->end - e->start <= available)
		return;
	if (offset < cut)
		e->end = cut;
	else
		*e = (struct extent) { .kind = EXTENT_DAMAGED, .start = cut, .end = e->end };
}

#endif
