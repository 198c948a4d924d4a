/* SPDX-License-Identifier: Apache-2.0 */
/* A file whose bytes are windows of its descriptor (windows.c), and what is read through that. */
#include "support.h"

#include "fs/datastore/gate.h"
#include "fs/datastore/windows.h"
#include "imgfs/view.h"

#define SEED 7

/* 1 MiB of pattern, as "f". */
static void write_pattern(void)
{
	uint8_t *bytes = malloc(MIB);

	assert_non_null(bytes);
	pattern(bytes, SEED, 0, MIB);
	store_write("f", bytes, MIB);
	free(bytes);
}

static struct file *open_windows(const char *name, const struct file_window *windows, size_t count)
{
	struct why why = { "" };
	struct file *file;

	assert_int_equal(gate_open(&store.datastore, name, &file, &why), 0);
	assert_int_equal(windows_set(file, windows, count), 0);
	return file;
}

/* The byte of the descriptor that is read at offset. */
static uint64_t descriptor_offset(const struct file_window *windows, uint64_t offset)
{
	while (offset >= windows->length) {
		offset -= windows->length;
		windows++;
	}
	return windows->offset + offset;
}

static const struct file_window scattered[] = {
	{ 1000, 512 },
	{ 700000, 0 },
	{ 4096, 70000 },
	{ 1512, 1 },
	{ 900000, 148576 },
	{ 0, 100 },
};
#define SCATTERED_SIZE (512u + 70000 + 1 + 148576 + 100)

static void test_read(void **state)
{
	struct file *file;
	uint8_t *bytes = malloc(SCATTERED_SIZE);
	static const uint64_t starts[] = { 0, 1, 511, 512, 513, 70511, 70512, 70513, 219088, 219089,
		219188 };

	(void)state;
	write_pattern();
	file = open_windows("f", scattered, COUNT(scattered));
	assert_int_equal(file->size, SCATTERED_SIZE);
	assert_int_equal(file->state.size, MIB);
	for (size_t i = 0; i < COUNT(starts); i++) {
		uint64_t length = SCATTERED_SIZE - starts[i];

		assert_int_equal(file_read(file, bytes, length, starts[i]), 0);
		for (uint64_t at = 0; at < length; at++)
			assert_int_equal(bytes[at],
				pattern_byte(SEED, descriptor_offset(scattered, starts[i] + at)));
		assert_int_equal(file_read(file, bytes, length + 1, starts[i]), -ERANGE);
	}
	assert_int_equal(file_read(file, bytes, 0, SCATTERED_SIZE), 0);
	assert_int_equal(file_read(file, bytes, 1, UINT64_MAX), -ERANGE);
	assert_int_equal(file_verify(file), 0);
	free(bytes);
	file_unref(file);
}

static void test_place(void **state)
{
	struct file *file;
	uint64_t at, contiguous, next = 0;

	(void)state;
	write_pattern();
	file = open_windows("f", scattered, COUNT(scattered));
	assert_int_equal(file_descriptor(file), -1);
	for (uint64_t offset = 0; offset < SCATTERED_SIZE; offset++) {
		assert_true(file_place(file, offset, &at, &contiguous));
		assert_int_equal(at, descriptor_offset(scattered, offset));
		if (offset == next)
			next += contiguous;
		assert_int_equal(offset + contiguous, next);
	}
	assert_int_equal(next, SCATTERED_SIZE);
	file_will_need(file, 100, 100000);
	file_will_need(file, 100, UINT64_MAX);
	file_unref(file);

	assert_int_equal(datastore_open_file(&store.datastore, "f", &file, NULL), 0);
	assert_int_equal(file_descriptor(file), file->fd);
	assert_true(file_place(file, 1000, &at, &contiguous));
	assert_int_equal(at, 1000);
	assert_int_equal(contiguous, MIB - 1000);
	file_unref(file);
}

/* Holes are those of the descriptor, where they are in a window. */
static void test_holes(void **state)
{
	static const struct file_window windows[] = {
		{ 10 * MIB, MIB },     /* a hole */
		{ 0, 2 * MIB },        /* data, and a hole */
		{ 3 * MIB, MIB },      /* a hole and data */
		{ 20 * MIB, 5 * MIB }, /* a hole */
	};
	static const struct {
		uint64_t offset, start, end;
	} expected[] = {
		{ 0, MIB, 2 * MIB },
		{ MIB, MIB, 2 * MIB },
		{ MIB + 4096, MIB + 4096, 2 * MIB },
		{ 2 * MIB, 3 * MIB + 512 * KIB, 4 * MIB },
		{ 4 * MIB, 9 * MIB, 9 * MIB },
		{ 9 * MIB, 9 * MIB, 9 * MIB },
	};
	uint8_t *bytes = malloc(MIB);
	struct file *file;

	(void)state;
	assert_non_null(bytes);
	pattern(bytes, SEED, 0, MIB);
	store_poke("f", 0, bytes, MIB);
	store_poke("f", 3 * MIB + 512 * KIB, bytes, 512 * KIB);
	store_poke("f", 15 * MIB, bytes, MIB);
	assert_true(store_truncate("f", 32 * MIB));
	free(bytes);
	file = open_windows("f", windows, COUNT(windows));
	assert_true(file->blocks * 512 <= 4 * MIB);
	for (size_t i = 0; i < COUNT(expected); i++) {
		uint64_t start, end;

		assert_int_equal(file_next_data(file, expected[i].offset, &start, &end), 0);
		assert_int_equal(start, expected[i].start);
		assert_int_equal(end, expected[i].end);
	}
	file_unref(file);
}

static void test_refused(void **state)
{
	static const struct file_window outside[][2] = {
		{ { MIB, 1 }, { 0, 1 } },
		{ { 0, 1 }, { 0, MIB + 1 } },
		{ { UINT64_MAX, 1 }, { 0, 1 } },
		{ { 1, UINT64_MAX }, { 0, 1 } },
	};
	struct file *file;

	(void)state;
	write_pattern();
	assert_int_equal(gate_open(&store.datastore, "f", &file, NULL), 0);
	for (size_t i = 0; i < COUNT(outside); i++)
		assert_int_equal(windows_set(file, outside[i], 2), -EINVAL);
	assert_int_equal(file->size, MIB);
	assert_int_equal(file_descriptor(file), file->fd);
	file_unref(file);
}

static void test_nothing(void **state)
{
	static const struct file_window none = { 5, 0 };
	uint64_t start, end;
	struct file *file;

	(void)state;
	write_pattern();
	file = open_windows("f", &none, 1);
	assert_int_equal(file->size, 0);
	assert_int_equal(file_read(file, &start, 1, 0), -ERANGE);
	assert_int_equal(file_next_data(file, 0, &start, &end), 0);
	assert_int_equal(start, 0);
	assert_int_equal(end, 0);
	file_unref(file);
}

/* Where the file ends before a window does by now, nothing is made up. */
static void test_truncated(void **state)
{
	uint8_t *bytes = malloc(SCATTERED_SIZE);
	struct file *file;

	(void)state;
	write_pattern();
	file = open_windows("f", scattered, COUNT(scattered));
	assert_true(store_truncate("f", 950000));
	assert_int_equal(file_read(file, bytes, SCATTERED_SIZE, 0), -ERANGE);
	assert_int_equal(file_read(file, bytes, 70513, 0), 0);
	assert_int_equal(file_verify(file), -ESTALE);
	free(bytes);
	file_unref(file);
}

static void test_same(void **state)
{
	struct file *a, *b;

	(void)state;
	write_pattern();
	a = open_windows("f", scattered, 1);
	b = open_windows("f", scattered, 1);
	assert_true(file_is_same(a, b));
	a->part = 1;
	b->part = 2;
	assert_false(file_is_same(a, b));
	file_unref(a);
	file_unref(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_read),
		store_test(test_place),
		store_test(test_holes),
		store_test(test_refused),
		store_test(test_nothing),
		store_test(test_truncated),
		store_test(test_same),
	};

	return run_unit_tests(tests);
}
