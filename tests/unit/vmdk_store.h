/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of VMDK, on top of support.h: numbers poked into files, and maps as tables.
 */
#ifndef IMGFS_TEST_VMDK_STORE_H
#define IMGFS_TEST_VMDK_STORE_H

#include "support.h"

#define SECTOR 512u

/* A little-endian number of 1 to 8 bytes. */
static inline void store_poke_number(
	const char *name, uint64_t offset, size_t width, uint64_t number)
{
	uint8_t bytes[8];

	put_le64(bytes, number);
	store_poke(name, offset, bytes, width);
}

/* One extent of an expected map, from the end of the one before it. */
struct piece_of_map {
	uint64_t end;
	enum extent_kind kind;
	const char *file; /* DATA and PACKED; NULL: not looked at */
	uint64_t offset;
};

static inline void assert_map_of(const struct image *image, enum map_detail detail,
	const struct piece_of_map *pieces, size_t count)
{
	uint64_t at = 0;
	struct extent e;

	for (size_t i = 0; i < count; i++) {
		assert_true(at < image_size(image));
		assert_int_equal(image_map(image, at, image_size(image) - at, detail, &e), 0);
		if (e.kind != pieces[i].kind || e.end != pieces[i].end)
			print_message("# extent %zu: kind %d to %llu, not %d to %llu\n", i,
				(int)e.kind, (unsigned long long)e.end, (int)pieces[i].kind,
				(unsigned long long)pieces[i].end);
		assert_int_equal(e.start, at);
		assert_int_equal(e.kind, pieces[i].kind);
		assert_int_equal(e.end, pieces[i].end);
		if (pieces[i].file) {
			assert_string_equal(e.file->path, pieces[i].file);
			assert_int_equal(e.offset, pieces[i].offset);
		}
		at = e.end;
	}
	assert_int_equal(at, image_size(image));
}

#define assert_map(image, detail, ...)                                 \
	do {                                                           \
		const struct piece_of_map pieces_[] = { __VA_ARGS__ }; \
		assert_map_of(image, detail, pieces_, COUNT(pieces_)); \
	} while (0)

/* Opens the image, compares the map of places, closes it. */
#define assert_places(name, ...)                            \
	do {                                                \
		struct image *image_ = open_image(name);    \
		assert_map(image_, MAP_PLACE, __VA_ARGS__); \
		image_unref(image_);                        \
	} while (0)

/*
 * Whatever the bytes are, an image is refused with a reason, or its map covers the disk once and
 * stays inside the files. Returns whether it was opened.
 */
__attribute__((unused)) static bool survives(const char *name)
{
	struct why why = { "" };
	struct image *image;
	struct extent e;
	int calls = 0;

	if (image_open(&store.context, name, &image, &why) < 0) {
		assert_true(why.text[0] != '\0');
		return false;
	}
	for (int detail = MAP_PLACE; detail <= MAP_KIND; detail++) {
		for (uint64_t at = 0; at < image_size(image) && calls < 1000; at = e.end, calls++) {
			assert_int_equal(image_map(image, at, image_size(image) - at,
						 (enum map_detail)detail, &e),
				0);
			assert_true(e.start == at && e.end > at && e.end <= image_size(image));
			assert_true(e.kind != EXTENT_BACKING);
			if (detail == MAP_PLACE && e.kind == EXTENT_DATA)
				assert_true(e.offset + (e.end - at) <= e.file->size);
		}
	}
	image_unref(image);
	return true;
}

#endif
