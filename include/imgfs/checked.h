/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic on numbers that an image chose.
 *
 * All offsets and lengths are uint64_t bytes and all ranges are half-open. A function that can
 * overflow returns false and leaves its result undefined; there is no silent wrap.
 */
#ifndef IMGFS_CHECKED_H
#define IMGFS_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* Is [offset, offset + length) inside [0, size)? An empty range at the end is. */
static inline bool range_ok(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

/* a / b rounded up, without the overflow of (a + b - 1) / b. b > 0. */
static inline uint64_t div_ceil(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* Round a up to a multiple of b; false where that does not fit. b > 0. */
static inline bool checked_round_up(uint64_t a, uint64_t b, uint64_t *rounded)
{
	return checked_mul(div_ceil(a, b), b, rounded);
}

/* The same for values that the program itself has bounded far below 2^63. */
static inline uint64_t round_up(uint64_t a, uint64_t b)
{
	return div_ceil(a, b) * b;
}

static inline bool is_power_of_two(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
