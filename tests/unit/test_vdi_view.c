/* SPDX-License-Identifier: Apache-2.0 */
/* The VDI view against a file that is laid out anew here, from a list of occupied units. */
#include "sources.h"

#define BLOCK MIB

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

static size_t blocks_of(const uint64_t *units, size_t count, uint64_t *blocks)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		if (n == 0 || blocks[n - 1] != units[i] / 16)
			blocks[n++] = units[i] / 16;
	}
	return n;
}

static void check_uuid(const uint8_t *u, const uint8_t *other)
{
	/* Version 8 and the variant of RFC 9562, the third field little-endian. */
	assert_int_equal(u[7] >> 4, 8);
	assert_int_equal(u[8] >> 6, 2);
	assert_memory_not_equal(u, other, 16);
}

static void check_header(const uint8_t *f, uint64_t size, uint64_t blocks, uint64_t data, size_t n)
{
	for (size_t i = 0; i < 512; i++) {
		/* What is neither the text nor a field below is zero. */
		if ((i >= 41 && i < 64) || (i >= 80 && i < 340) || (i >= 348 && i < 360) ||
			(i >= 364 && i < 368) || (i >= 380 && i < 384) || (i >= 424 && i < 468) ||
			i >= 472)
			assert_int_equal(f[i], 0);
	}
	assert_memory_equal(f, "<<< Oracle VM VirtualBox Disk Image >>>\n", 40);
	assert_memory_equal(f + 64, "\x7f\x10\xda\xbe\1\0\1\0\x90\1\0\0\1\0\0\0", 16);
	assert_int_equal(get_le32(f + 340), MIB);
	assert_int_equal(get_le32(f + 344), data);
	assert_int_equal(get_le32(f + 360), 512);
	assert_int_equal(get_le64(f + 368), up(size, 512) * 512);
	assert_int_equal(get_le32(f + 376), MIB);
	assert_int_equal(get_le32(f + 384), blocks);
	assert_int_equal(get_le32(f + 388), n);
	check_uuid(f + 392, f + 408);
	check_uuid(f + 408, f + 392);
	assert_int_equal(get_le32(f + 468), 512);
}

static bool is_unit(const uint64_t *units, size_t count, uint64_t unit)
{
	for (size_t i = 0; i < count; i++) {
		if (units[i] == unit)
			return true;
	}
	return false;
}

static void check_layout(uint64_t size, const uint64_t *units, size_t count)
{
	struct image *image = source_of_units(size, units, count);
	struct view *view = open_view(image, "vdi");
	uint64_t all = up(size, BLOCK), data = MIB + up(all * 4, MIB) * MIB;
	uint64_t length, random = size, blocks[8];
	size_t n = blocks_of(units, count, blocks);
	uint8_t *f = read_view(view, &length);

	assert_int_equal(length, data + n * BLOCK);
	check_header(f, size, all, data, n);
	for (uint64_t i = 512; i < MIB; i++)
		assert_int_equal(f[i], 0);
	for (uint64_t i = MIB + all * 4; i < data; i++)
		assert_int_equal(f[i], 0);
	for (uint64_t b = 0, k = 0; b < all; b++) {
		bool there = k < n && blocks[k] == b;

		assert_int_equal(get_le32(f + MIB + b * 4), there ? k : UINT32_MAX);
		k += there;
	}
	for (uint64_t i = 0; i < n * BLOCK; i++) {
		uint64_t guest = blocks[i / BLOCK] * BLOCK + i % BLOCK;
		bool there = is_unit(units, count, guest / UNIT);

		if (f[data + i] != (there ? source_byte(size, guest) : 0))
			fail_msg("byte %" PRIu64 " of the disk", guest);
	}
	check_table_fill(view, "block map", &random);
	free(f);
	view_close(view);
	image_unref(image);
}

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, units[6];
		size_t count;
	} cases[] = {
		{ 1, { 0 }, 0 },
		{ 1, { 0 }, 1 },
		{ 513, { 0 }, 1 },
		{ UNIT + 1, { 1 }, 1 },
		{ BLOCK, { 0, 15 }, 2 },
		{ BLOCK + 1, { 15, 16 }, 2 },
		{ 3 * BLOCK - 3, { 32 }, 1 },
		{ 1 * GIB + 700, { 0, 8191, 8192, 1 * GIB / UNIT }, 4 },
		/* The map is longer than 1 MiB. */
		{ 262144 * BLOCK, { 7, 262143 * 16 }, 2 },
		{ 262144 * BLOCK + 1, { 262143 * 16 + 15, 262144 * 16 }, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count);
}

static void test_limits(void **state)
{
	const uint64_t most = 536870784ull * BLOCK;
	const struct {
		uint64_t size;
		const char *reason; /* NULL: it fits */
	} cases[] = { { 0, "cannot be empty" }, { most, NULL }, { most + 1, "512 TiB at most" } };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct image *image = source_empty(cases[i].size);
		struct why why = { "" };
		struct view *view = NULL;
		int r = view_open(image, view_format("vdi"), &view, &why);

		assert_int_equal(r, cases[i].reason ? -EFBIG : 0);
		if (cases[i].reason)
			assert_non_null(strstr(why.text, cases[i].reason));
		else
			assert_int_equal(view->size, MIB + 2048 * MIB);
		view_close(view);
		image_unref(image);
	}
}

/* A view that is a source again is itself. */
static void test_again(void **state)
{
	static const uint64_t units[] = { 3, 40 };
	struct image *image = source_of_units(5 * MIB + 512, units, 2);
	struct view *view = open_view(image, "vdi");
	uint64_t length;
	uint8_t *f = read_view(view, &length);

	(void)state;
	store_write("y.vdi", f, length);
	free(f);
	view_close(view);
	image_unref(image);
	image = open_image("y.vdi");
	assert_int_equal(image_size(image), 5 * MIB + 512);
	view = open_view(image, "vdi");
	assert_true(view->identity);
	view_close(view);
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_layout),
		store_test(test_limits),
		store_test(test_again),
	};

	return run_unit_tests(tests);
}
