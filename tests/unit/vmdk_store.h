/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of VMDK: a datastore in a temporary directory, files made of bytes, maps as tables.
 * Not every test uses every function.
 */
#ifndef IMGFS_TEST_VMDK_STORE_H
#define IMGFS_TEST_VMDK_STORE_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgfs/cache.h"
#include "imgfs/image.h"
#include "imgfs/wire.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define SECTOR       512u

static struct {
	char path[64];
	struct datastore datastore;
	struct image_context context;
	char names[32][64]; /* of what has been written, to be removed again */
	size_t count;
} store;

static int store_setup(void **state)
{
	struct why why;

	(void)state;
	memset(&store, 0, sizeof(store));
	snprintf(store.path, sizeof(store.path), "%s/imgfs-vmdk-XXXXXX",
		getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(store.path));
	assert_int_equal(datastore_open(&store.datastore, store.path, REFERENCES_FAMILY, &why), 0);
	store.context.datastore = &store.datastore;
	store.context.cache = cache_new(4u << 20);
	assert_non_null(store.context.cache);
	return 0;
}

static int store_teardown(void **state)
{
	char path[160];

	(void)state;
	cache_free(store.context.cache);
	datastore_close(&store.datastore);
	for (size_t i = 0; i < store.count; i++) {
		snprintf(path, sizeof(path), "%s/%s", store.path, store.names[i]);
		unlink(path);
	}
	return rmdir(store.path);
}

static int store_open(const char *name, int flags)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", store.path, name);
	fd = open(path, flags | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	return fd;
}

/* Makes the file, or makes it anew. */
static void store_write(const char *name, const void *bytes, size_t length)
{
	int fd = store_open(name, O_CREAT | O_TRUNC | O_WRONLY);
	size_t i = 0;

	assert_int_equal(write(fd, bytes, length), (ssize_t)length);
	close(fd);
	while (i < store.count && strcmp(store.names[i], name) != 0)
		i++;
	if (i < store.count)
		return;
	assert_true(store.count < COUNT(store.names));
	snprintf(store.names[store.count++], sizeof(store.names[0]), "%s", name);
}

__attribute__((unused)) static void store_text(const char *name, const char *text)
{
	store_write(name, text, strlen(text));
}

static void store_poke(const char *name, uint64_t offset, const void *bytes, size_t length)
{
	int fd = store_open(name, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

/* A little-endian number of 1 to 8 bytes. */
static void store_poke_number(const char *name, uint64_t offset, size_t width, uint64_t number)
{
	uint8_t bytes[8];

	put_le64(bytes, number);
	store_poke(name, offset, bytes, width);
}

__attribute__((unused)) static void store_truncate(const char *name, uint64_t size)
{
	int fd = store_open(name, O_WRONLY);

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static struct image *open_image(const char *name)
{
	struct why why = { "" };
	struct image *image = NULL;
	int r = image_open(&store.context, name, &image, &why);

	if (r < 0)
		print_message("# %s: %s\n", name, why.text);
	assert_int_equal(r, 0);
	return image;
}

static void assert_refused(const char *name, int err, const char *reason)
{
	struct why why = { "" };
	struct image *image = NULL;
	int r = image_open(&store.context, name, &image, &why);

	if (r == 0)
		image_unref(image);
	if (r != err || !strstr(why.text, reason))
		print_message("# %s: %d \"%s\", not %d \"%s\"\n", name, r, why.text, err, reason);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
}

/* One extent of an expected map, from the end of the one before it. */
struct piece_of_map {
	uint64_t end;
	enum extent_kind kind;
	const char *file; /* DATA and PACKED; NULL: not looked at */
	uint64_t offset;
};

static void assert_map_of(const struct image *image, enum map_detail detail,
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
				assert_true(e.offset + (e.end - at) <= e.file->state.size);
		}
	}
	image_unref(image);
	return true;
}

#endif
