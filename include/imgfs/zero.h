/* SPDX-License-Identifier: Apache-2.0 */
/* Are all of these bytes zero? As fast as memory is, where the compiler makes vectors of it. */
#ifndef IMGFS_ZERO_H
#define IMGFS_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ZERO_STEP 256 /* bytes that are looked at together */

static inline bool is_zero_step(const uint8_t *bytes)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ZERO_STEP; i += 8) {
		uint64_t word;

		memcpy(&word, bytes + i, 8);
		sum |= word;
	}
	return sum == 0;
}

static inline bool is_zero(const uint8_t *bytes, size_t length)
{
	for (; length >= ZERO_STEP; bytes += ZERO_STEP, length -= ZERO_STEP) {
		if (!is_zero_step(bytes))
			return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* How many bytes from the first on are zero for sure; a multiple of ZERO_STEP. */
static inline size_t zero_steps(const uint8_t *bytes, size_t length)
{
	size_t at = 0;

	while (length - at >= ZERO_STEP && is_zero_step(bytes + at))
		at += ZERO_STEP;
	return at;
}

#endif
