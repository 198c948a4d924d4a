/* SPDX-License-Identifier: Apache-2.0 */
/* The VHDX view against a file that is laid out anew here, from a list of occupied units. */
#include "imgfs/crc32c.h"
#include "sources.h"

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

static bool is_unit(const uint64_t *units, size_t count, uint64_t unit)
{
	for (size_t i = 0; i < count; i++) {
		if (units[i] == unit)
			return true;
	}
	return false;
}

static bool is_block(const uint64_t *units, size_t count, uint64_t number, uint64_t block)
{
	for (size_t i = 0; i < count; i++) {
		if (units[i] * UNIT / block == number)
			return true;
	}
	return false;
}

static void check_sum(const uint8_t *f, size_t length, const char *signature)
{
	uint8_t *copy = malloc(length);

	assert_non_null(copy);
	memcpy(copy, f, length);
	put_le32(copy + 4, 0);
	assert_memory_equal(f, signature, 4);
	assert_int_equal(get_le32(f + 4), crc32c(0, copy, length));
	free(copy);
}

/* The log and the rest of the start are zeros; returns where the second header says the log is. */
static void check_headers(const uint8_t *f)
{
	static const uint8_t nil[16];

	assert_memory_equal(f, "vhdxfilei\0m\0g\0f\0s\0\0\0", 20);
	for (uint64_t number = 1; number <= 2; number++) {
		const uint8_t *h = f + number * 64 * KIB;

		check_sum(h, 4096, "head");
		assert_int_equal(get_le64(h + 8), number);
		assert_memory_not_equal(h + 16, nil, 16);
		assert_memory_not_equal(h + 32, nil, 16);
		assert_memory_not_equal(h + 16, h + 32, 16);
		assert_memory_equal(h + 48, nil, 16);
		assert_int_equal(get_le32(h + 64), 0x10000);
		assert_int_equal(get_le32(h + 68), MIB);
		assert_int_equal(get_le64(h + 72), MIB);
		assert_true(is_zero(h + 80, 64 * KIB - 80));
	}
	assert_true(is_zero(f + 20, 64 * KIB - 20));
	assert_true(is_zero(f + 320 * KIB, 2 * MIB - 320 * KIB));
}

static void check_regions(const uint8_t *f, uint64_t data)
{
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *t = f + (192 + 64 * i) * KIB;

		check_sum(t, 64 * KIB, "regi");
		assert_int_equal(get_le64(t + 8), 2);
		assert_memory_equal(t + 16, "\x66\x77\xc2\x2d\x23\xf6\x00\x42", 8);
		assert_int_equal(get_le64(t + 32), 3 * MIB);
		assert_int_equal(get_le32(t + 40), data - 3 * MIB);
		assert_int_equal(get_le32(t + 44), 1);
		assert_memory_equal(t + 48, "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b", 8);
		assert_int_equal(get_le64(t + 64), 2 * MIB);
		assert_int_equal(get_le32(t + 72), MIB);
		assert_int_equal(get_le32(t + 76), 1);
	}
}

static void check_metadata(const uint8_t *f, uint64_t size, uint64_t block)
{
	static const struct {
		uint32_t id, length, flags;
	} items[] = { { 0xcaa16737, 8, 4 }, { 0x2fa54224, 8, 6 }, { 0xbeca12ab, 16, 6 },
		{ 0x8141bf1d, 4, 6 }, { 0xcda348c7, 4, 6 } };
	const uint8_t *t = f + 2 * MIB, *i = t + 64 * KIB;
	uint32_t at = 64 << 10;

	assert_memory_equal(t, "metadata\0\0\5\0", 12);
	for (size_t k = 0; k < COUNT(items); k++) {
		const uint8_t *e = t + 32 + 32 * k;

		assert_int_equal(get_le32(e), items[k].id);
		assert_int_equal(get_le32(e + 16), at);
		assert_int_equal(get_le32(e + 20), items[k].length);
		assert_int_equal(get_le32(e + 24), items[k].flags);
		at += items[k].length;
	}
	assert_int_equal(get_le64(i), block);
	assert_int_equal(get_le64(i + 8), up(size, 512) * 512);
	assert_int_equal(get_le32(i + 32), 512);
	assert_int_equal(get_le32(i + 36), 4096);
	assert_true(is_zero(i + 40, MIB - 64 * KIB - 40));
}

/* Returns the number of blocks. */
static uint64_t check_table(const uint8_t *f, uint64_t size, const uint64_t *units, size_t count,
	uint64_t block, uint64_t data)
{
	uint64_t ratio = 4096 * MIB / block, entry = 0, there = 0;

	for (uint64_t b = 0; b < up(size, block); b++) {
		bool occupied = is_block(units, count, b, block);

		if (b > 0 && b % ratio == 0)
			assert_int_equal(get_le64(f + 3 * MIB + 8 * entry++), 0);
		assert_int_equal(get_le64(f + 3 * MIB + 8 * entry++),
			occupied ? data + there * block + 6 : 2);
		there += occupied;
	}
	assert_int_equal(data, 3 * MIB + up(8 * entry, MIB) * MIB);
	assert_true(is_zero(f + 3 * MIB + 8 * entry, data - 3 * MIB - 8 * entry));
	return there;
}

static void check_layout(uint64_t size, const uint64_t *units, size_t count, uint64_t block)
{
	struct image *image = source_of_units(size, units, count);
	struct view *view = open_view(image, "vhdx");
	const struct region *table = find_region(view, "block allocation table");
	uint64_t data = 3 * MIB + up(table->end - table->start, MIB) * MIB;
	uint64_t length, random = size, at, there;
	uint8_t *f = read_view(view, &length);

	check_headers(f);
	check_regions(f, data);
	check_metadata(f, size, block);
	there = check_table(f, size, units, count, block, data);
	assert_int_equal(length, data + there * block);
	at = data;
	for (uint64_t b = 0; b < up(size, block); b++) {
		if (!is_block(units, count, b, block))
			continue;
		for (uint64_t guest = b * block; guest < (b + 1) * block; guest++, at++) {
			bool known = is_unit(units, count, guest / UNIT);

			if (f[at] != (known ? source_byte(size, guest) : 0))
				fail_msg("byte %" PRIu64 " of the disk", guest);
		}
	}
	assert_int_equal(at, length);
	check_table_fill(view, "headers, log and metadata", &random);
	check_table_runs(view, "headers, log and metadata");
	check_table_fill(view, "block allocation table", &random);
	free(f);
	view_close(view);
	image_unref(image);
}

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, units[6];
		size_t count;
		uint64_t block;
	} cases[] = {
		{ 1, { 0 }, 0, MIB },
		{ 1, { 0 }, 1, MIB },
		{ 513, { 0 }, 1, MIB },
		{ MIB, { 0, 15 }, 2, MIB },
		{ MIB + 1, { 15, 16 }, 2, MIB },
		{ 3 * MIB - 3, { 32 }, 1, MIB },
		{ 1 * GIB + 700, { 0, 8191, 8192, 1 * GIB / UNIT }, 4, MIB },
		/* More than one chunk: the entry of a bitmap block lies before block 4096. */
		{ 4096 * MIB, { 4095 * 16 }, 1, MIB },
		{ 4097 * MIB, { 4095 * 16, 4096 * 16 }, 2, MIB },
		{ 12289 * MIB, { 1, 8191 * 16, 8192 * 16, 12288 * 16 }, 4, MIB },
		/* The table is longer than 1 MiB. */
		{ 131041 * MIB, { 131040 * 16 }, 1, MIB },
		{ 131042 * MIB, { 131041 * 16 + 15 }, 1, MIB },
		/* Larger blocks. */
		{ TIB, { 0, TIB / UNIT - 1 }, 2, MIB },
		{ TIB + 1, { 31, 32, TIB / UNIT }, 3, 2 * MIB },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count, cases[i].block);
}

static void test_limits(void **state)
{
	static const struct {
		uint64_t size;
		const char *reason; /* NULL: it fits */
		uint64_t length;
	} cases[] = {
		{ 0, "cannot be empty", 0 },
		{ 8 * TIB, NULL, 12 * MIB },
		{ 32 * TIB, NULL, 12 * MIB },
		{ 64 * TIB - 511, NULL, 12 * MIB },
		{ 64 * TIB, NULL, 12 * MIB },
		{ 64 * TIB + 1, "64 TiB at most", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct image *image = source_empty(cases[i].size);
		struct why why = { "" };
		struct view *view = NULL;
		int r = view_open(image, view_format("vhdx"), &view, &why);

		assert_int_equal(r, cases[i].reason ? -EFBIG : 0);
		/* Beyond 8 TiB that is for the map to say. */
		assert_int_equal(view_format("vhdx")->surely_fits(cases[i].size),
			cases[i].size > 0 && cases[i].size <= 8 * TIB);
		if (cases[i].reason)
			assert_non_null(strstr(why.text, cases[i].reason));
		else
			assert_int_equal(view->size, cases[i].length);
		view_close(view);
		image_unref(image);
	}
}

/* A view that is a source again is itself. */
static void test_again(void **state)
{
	static const uint64_t units[] = { 3, 40 };
	struct image *image = source_of_units(5 * MIB + 512, units, 2);
	struct view *view = open_view(image, "vhdx");
	uint64_t length;
	uint8_t *f = read_view(view, &length);

	(void)state;
	store_write("y.vhdx", f, length);
	free(f);
	view_close(view);
	image_unref(image);
	image = open_image("y.vhdx");
	assert_int_equal(image_size(image), 5 * MIB + 512);
	assert_string_equal(image_variant(image), "dynamic");
	view = open_view(image, "vhdx");
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
