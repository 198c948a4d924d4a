/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On-disk integers.
 *
 * Formats name their offsets and read them with these; no packed structure is ever laid over a
 * buffer, so alignment, aliasing and the host's byte order do not matter.
 */
#ifndef IMGFS_WIRE_H
#define IMGFS_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define WIRE_ACCESSORS(order, bits)                                     \
	static inline uint##bits##_t get_##order##bits(const void *p)   \
	{                                                               \
		uint##bits##_t v;                                       \
		memcpy(&v, p, sizeof(v));                               \
		return order##bits##toh(v);                             \
	}                                                               \
	static inline void put_##order##bits(void *p, uint##bits##_t v) \
	{                                                               \
		v = hto##order##bits(v);                                \
		memcpy(p, &v, sizeof(v));                               \
	}

WIRE_ACCESSORS(be, 16)
WIRE_ACCESSORS(be, 32)
WIRE_ACCESSORS(be, 64)
WIRE_ACCESSORS(le, 16)
WIRE_ACCESSORS(le, 32)
WIRE_ACCESSORS(le, 64)

#undef WIRE_ACCESSORS

#endif
