/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the unit tests share: a datastore in a temporary directory, files made of bytes, numbers
 * that look random and are the same in every run. Not every test uses every function.
 */
#ifndef IMGFS_TEST_SUPPORT_H
#define IMGFS_TEST_SUPPORT_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "imgfs/cache.h"
#include "imgfs/checked.h"
#include "imgfs/image.h"
#include "imgfs/view.h"
#include "imgfs/wire.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define KIB          ((uint64_t)1 << 10)
#define MIB          ((uint64_t)1 << 20)
#define GIB          ((uint64_t)1 << 30)
#define TIB          ((uint64_t)1 << 40)

/* A test of a datastore of its own, which is removed afterwards. */
#define store_test(function) cmocka_unit_test_setup_teardown(function, store_setup, store_teardown)

/* Runs the table of tests; output is TAP. */
#define run_unit_tests(tests) \
	(cmocka_set_message_output(CM_OUTPUT_TAP), cmocka_run_group_tests(tests, NULL, NULL))

/* Leaves the test. cmocka's skip() prints "not ok", which a reader of TAP takes for a failure. */
#define SKIP_REST(reason)                                 \
	do {                                              \
		print_message("# skipped: %s\n", reason); \
		return;                                   \
	} while (0)

/* ---- the datastore ---- */

static struct {
	char path[64];
	struct datastore datastore;
	struct image_context context;
} store;

static inline int store_setup(void **state)
{
	const char *base = getenv("TMPDIR");
	struct why why = { "" };

	(void)state;
	memset(&store, 0, sizeof(store));
	snprintf(store.path, sizeof(store.path), "%s/imgfs-unit-XXXXXX",
		base && *base && strlen(base) < 40 ? base : "/tmp");
	assert_non_null(mkdtemp(store.path));
	assert_int_equal(datastore_open(&store.datastore, store.path, REFERENCES_FAMILY, &why), 0);
	store.context.datastore = &store.datastore;
	store.context.cache = cache_new(8u << 20);
	assert_non_null(store.context.cache);
	store.datastore.cache = store.context.cache;
	return 0;
}

static inline int store_remove(
	const char *path, const struct stat *st, int type, struct FTW *position)
{
	(void)st, (void)type, (void)position;
	return remove(path);
}

static inline int store_teardown(void **state)
{
	(void)state;
	cache_free(store.context.cache);
	datastore_close(&store.datastore);
	return nftw(store.path, store_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The absolute path of name; good until the fourth call after this one. */
static inline const char *store_path(const char *name)
{
	static char paths[4][4352];
	static unsigned next;
	char *path = paths[next++ % COUNT(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", store.path, name);
	return path;
}

static inline int store_open(const char *name, int flags)
{
	int fd = open(store_path(name), flags | O_CLOEXEC, 0644);

	if (fd < 0)
		print_message("# %s: %s\n", name, strerror(errno));
	assert_true(fd >= 0);
	return fd;
}

static inline void store_mkdir(const char *name)
{
	assert_int_equal(mkdir(store_path(name), 0755), 0);
}

/* Writes into the file, which is made where it is not there. */
static inline void store_poke(const char *name, uint64_t offset, const void *bytes, size_t length)
{
	int fd = store_open(name, O_CREAT | O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

/* Gives the file its size, and makes it where it is not there. False: too large for here. */
static inline bool store_truncate(const char *name, uint64_t size)
{
	int fd = store_open(name, O_CREAT | O_WRONLY);
	bool ok = ftruncate(fd, (off_t)size) == 0;

	close(fd);
	return ok;
}

/* The file is these bytes. Another inode where it was there, so nothing holds on to the old. */
static inline void store_write(const char *name, const void *bytes, size_t length)
{
	unlink(store_path(name));
	store_poke(name, 0, bytes, length);
}

static inline void store_text(const char *name, const char *text)
{
	store_write(name, text, strlen(text));
}

/* ---- images and views ---- */

static inline struct image *open_image(const char *name)
{
	struct why why = { "" };
	struct image *image = NULL;
	int r = image_open(&store.context, name, &image, &why);

	if (r < 0)
		print_message("# %s: %s\n", name, why.text);
	assert_int_equal(r, 0);
	return image;
}

/* The image is refused so, and the sentence that says why has these words in it. */
static inline void assert_refused(const char *name, int err, const char *reason)
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
	if (err != -ENOMEDIUM)
		assert_true(why.text[0] != '\0');
}

static inline const struct view_format *view_format(const char *name)
{
	for (const struct view_format *const *f = view_formats; *f; f++) {
		if (strcmp((*f)->name, name) == 0)
			return *f;
	}
	fail_msg("no view format %s", name);
	return NULL;
}

static inline struct view *open_view(struct image *image, const char *format)
{
	struct why why = { "" };
	struct view *view = NULL;
	int r = view_open(image, view_format(format), &view, &why);

	if (r < 0)
		print_message("# view %s: %s\n", format, why.text);
	assert_int_equal(r, 0);
	return view;
}

/* All of the view, from malloc; *size is its length. */
static inline uint8_t *read_view(const struct view *view, uint64_t *size)
{
	uint8_t *bytes = malloc(view->size + 1);
	uint64_t done;

	assert_non_null(bytes);
	assert_int_equal(view_read(view, 0, view->size + 1, bytes, &done), 0);
	assert_int_equal(done, view->size);
	*size = done;
	return bytes;
}

static inline const struct region *find_region(const struct view *view, const char *name)
{
	for (size_t i = 0; i < view->region_count; i++) {
		if (strcmp(view->regions[i].name, name) == 0)
			return &view->regions[i];
	}
	fail_msg("no region %s", name);
	return NULL;
}

/* ---- bytes and numbers ---- */

static inline uint64_t mix(uint64_t v)
{
	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ull;
	v = (v ^ v >> 27) * 0x94d049bb133111ebull;
	return v ^ v >> 31;
}

/* A number below n, the next one of the sequence that *state stands in. */
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix(*state) % n;
}

/* The byte that a test writes at an offset of a file or disk: never zero. */
static inline uint8_t pattern_byte(uint64_t seed, uint64_t offset)
{
	return (uint8_t)(1 + mix(seed * 0x10001 + offset) % 255);
}

static inline void pattern(uint8_t *out, uint64_t seed, uint64_t offset, size_t length)
{
	for (size_t i = 0; i < length; i++)
		out[i] = pattern_byte(seed, offset + i);
}

static inline bool is_zero(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] != 0)
			return false;
	}
	return true;
}

/* As assert_memory_equal(), which says so for every byte that differs. */
static inline void assert_bytes(const uint8_t *got, const uint8_t *expected, size_t length)
{
	size_t i = 0;

	if (memcmp(got, expected, length) == 0)
		return;
	while (got[i] == expected[i])
		i++;
	fail_msg("byte %zu of %zu is 0x%02x, not 0x%02x", i, length, got[i], expected[i]);
}

#endif
