/* SPDX-License-Identifier: Apache-2.0 */
/* A file made in memory of which a test says every byte, and then what is to be seen of it. */
#ifndef IMGFS_TEST_LEVELS_IMAGE_H
#define IMGFS_TEST_LEVELS_IMAGE_H

#include "mapping.h"

/* One change of a good image, and the refusal that comes of it. */
struct lie {
	uint64_t offset;
	unsigned bytes;
	uint64_t value;
	int err;
	const char *reason;
};

static inline void put_be(uint8_t *p, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static inline void put_le(uint8_t *p, unsigned bytes, uint64_t value)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(value >> 8 * i);
}

/* The good image of these bytes opens, and with each of the lies it does not. */
static inline void check_lies(const char *name, const uint8_t *good, size_t length,
	const struct lie *lies, size_t count, void (*put)(uint8_t *, unsigned, uint64_t))
{
	uint8_t *bytes = malloc(length);

	assert_non_null(bytes);
	store_write(name, good, length);
	image_unref(open_image(name));
	for (size_t i = 0; i < count; i++) {
		memcpy(bytes, good, length);
		assert_true(range_ok(lies[i].offset, lies[i].bytes, length));
		put(bytes + lies[i].offset, lies[i].bytes, lies[i].value);
		store_write(name, bytes, length);
		assert_refused(name, lies[i].err, lies[i].reason);
	}
	free(bytes);
}

#endif
