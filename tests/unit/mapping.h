/* SPDX-License-Identifier: Apache-2.0 */
/* What an image maps to, extent by extent, and what comes out when it is read. */
#ifndef IMGFS_TEST_MAPPING_H
#define IMGFS_TEST_MAPPING_H

#include "support.h"

/* One extent of an expected map. */
struct mapped {
	uint64_t end;
	enum extent_kind kind;
	uint64_t offset; /* DATA */
};

static inline void check_map(
	const struct image *image, enum map_detail detail, const struct mapped *m, size_t count)
{
	uint64_t at = 0;
	struct extent e;

	for (size_t i = 0; i < count; i++, at = e.end) {
		assert_int_equal(image_map(image, at, image_size(image) - at, detail, &e), 0);
		if (e.kind != m[i].kind || e.end != m[i].end ||
			(detail == MAP_PLACE && e.kind == EXTENT_DATA && e.offset != m[i].offset))
			print_message("# at %" PRIu64 ": kind %d to %" PRIu64 ", %" PRIu64 "\n", at,
				(int)e.kind, e.end, e.offset);
		assert_int_equal(e.start, at);
		assert_int_equal(e.kind, m[i].kind);
		assert_int_equal(e.end, m[i].end);
		if (detail == MAP_PLACE && e.kind == EXTENT_DATA)
			assert_int_equal(e.offset, m[i].offset);
	}
	assert_int_equal(at, image_size(image));
}

#define assert_map(image, detail, ...)                             \
	do {                                                       \
		const struct mapped mapped_[] = { __VA_ARGS__ };   \
		check_map(image, detail, mapped_, COUNT(mapped_)); \
	} while (0)

/* Reads [offset, offset + length) of the disk; -errno, or 0 where the bytes are as expected. */
static inline int read_disk(
	const struct image *image, uint64_t offset, uint64_t length, const uint8_t *expected)
{
	struct view *view = open_view(image_ref((struct image *)(uintptr_t)image), "raw");
	uint8_t *bytes = malloc(length + 1);
	uint64_t done;
	int r;

	assert_non_null(bytes);
	r = view_read(view, offset, length, bytes, &done);
	if (r == 0) {
		assert_int_equal(done, length);
		assert_bytes(bytes, expected, length);
	}
	free(bytes);
	view_close(view);
	image_unref((struct image *)(uintptr_t)image);
	return r;
}

#endif
