/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Occupancy: which 64 KiB units of an image hold anything, with rank and select.
 *
 * A compact view stores the k-th occupied unit of the guest as the k-th unit of its data. That
 * takes rank (unit to k) and select (k to unit) over one bitmap per image, shared by its views.
 *
 * The bitmap is kept in pages of 8192 units (512 MiB of guest). Empty pages are not there at
 * all, full ones have no bits; a fully mapped 1 TiB disk costs 48 KiB, its worst case 2 MiB.
 * It is built from metadata alone: an allocated unit of zeros is occupied. Where the context asks
 * for detect_zeroes, what is allocated is read once, and units that hold nothing but zeros are
 * taken out (zeroes.c).
 */
#ifndef IMGFS_OCCUPANCY_H
#define IMGFS_OCCUPANCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/why.h"

#define OCCUPANCY_UNIT       65536u /* bytes */
#define OCCUPANCY_PAGE_UNITS 8192u

/* Bytes that one bitmap may take; beyond, the image has no compact views (-EFBIG). */
#define OCCUPANCY_MAX_MEMORY (32u << 20)

/* And what all of them may take (-ENOMEM), and take now. */
#define OCCUPANCY_TOTAL_MEMORY (64u << 20)
size_t occupancy_total_memory(void);

struct image;
struct occupancy;

/* A page with at least one unit. */
struct occupancy_page {
	uint64_t number; /* units [number, number + 1) * OCCUPANCY_PAGE_UNITS */
	uint64_t rank;   /* occupied units before the page */
	uint64_t *bits;  /* bit u % 64 of word u / 64; NULL: all units of the page that exist */
};

/*
 * The occupancy of an image: one pass over its tables at the first call, remembered with the
 * image. *occupancy is the image's. 0, -EFBIG (too large, too scattered, or more
 * than MAP_WORK_MAX to go through, with the reason), or
 * -errno where tables cannot be read (and the next call tries again).
 *
 * With detect_zeroes the first call reads all that is allocated as well, which takes as long as
 * that takes. -ESTALE where a source changes meanwhile, -EINTR where nobody waits for it any more
 * (image_context.interrupted), -errno where a file cannot be read: nothing is kept then. A unit
 * whose data is damaged is occupied.
 */
int image_occupancy(struct image *image, const struct occupancy **occupancy, struct why *why);

/*
 * Guest bytes that are allocated, zeros or not: what the tables say, and what SEEK_DATA finds in
 * a raw view. Never reads data. Errors as above.
 */
int image_allocated(struct image *image, uint64_t *bytes);

/*
 * The end of the hole that guest offset `guest` is in, from what image_occupancy() found before;
 * 0 where that does not tell. Costs nothing, and finds nothing that the tables would not show.
 */
uint64_t image_known_hole(struct image *image, uint64_t guest);

/*
 * What image_occupancy() found, for when the same image, in the same generation, is opened again.
 * image_forget() takes it out of an image that nobody uses any more; NULL where it knows nothing.
 * image_remember() gives it to one that nobody uses yet; what is known there already stays.
 */
struct learned;
struct learned *image_forget(struct image *image);
void image_remember(struct image *image, struct learned *learned);
void learned_free(struct learned *learned);

/* Builders, for image_occupancy() and tests. Ranges are added in rising order. */
struct occupancy *occupancy_new(uint64_t size); /* virtual size, bytes; NULL out of memory */
int occupancy_add(
	struct occupancy *o, uint64_t start, uint64_t end); /* guest bytes; 0, -ENOMEM, -EFBIG */
void occupancy_finish(struct occupancy *o);
void occupancy_free(struct occupancy *o);

uint64_t occupancy_units(const struct occupancy *o); /* of the guest, occupied or not */
uint64_t occupancy_count(const struct occupancy *o); /* occupied units */
uint64_t occupancy_bytes(const struct occupancy *o); /* allocated guest bytes in them, exact */
uint64_t occupancy_hash(const struct occupancy *o);  /* of size and map: same map, same hash */

bool occupancy_test(const struct occupancy *o, uint64_t unit);     /* false past the end */
uint64_t occupancy_rank(const struct occupancy *o, uint64_t unit); /* occupied units < unit */
uint64_t occupancy_select(const struct occupancy *o, uint64_t k);  /* k < count */

/*
 * Taking units out again, in any order, once it is finished: those of [64 * word, 64 * word + 64)
 * as bits, and keeping only some of them. Ranks and counts are wrong until occupancy_refit(),
 * which is told how many allocated guest bytes went with them. 0, -ENOMEM, -EFBIG.
 */
uint64_t occupancy_word(const struct occupancy *o, uint64_t word);
int occupancy_keep(struct occupancy *o, uint64_t word, uint64_t bits);
void occupancy_refit(struct occupancy *o, uint64_t bytes_gone);

/* Is any unit of [first, last) occupied? */
bool occupancy_any(const struct occupancy *o, uint64_t first, uint64_t last);

/* The first occupied unit >= unit, or occupancy_units(). */
uint64_t occupancy_next(const struct occupancy *o, uint64_t unit);

/* Pages that are not empty, by position; find gives the first whose number is >= number. */
size_t occupancy_page_count(const struct occupancy *o);
const struct occupancy_page *occupancy_page(const struct occupancy *o, size_t index);
size_t occupancy_page_find(const struct occupancy *o, uint64_t number);

#endif
