/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VHD views against files that are laid out anew here, from a list of occupied units.
 */
#include "imgfs/vhd.h"
#include "sources.h"

#define BLOCK  (2 * MIB)
#define STRIDE (512 + BLOCK)

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

/* The sum is by bytes, so it is the same whichever way it is counted. */
static bool sum_is_right(const uint8_t *p, size_t length, size_t at)
{
	uint32_t sum = get_be32(p + at);

	for (size_t i = 0; i < length; i++)
		sum += i - at < 4 ? 0 : p[i];
	return sum == UINT32_MAX;
}

static void check_footer(const uint8_t *p, uint64_t size, uint32_t type)
{
	static const uint8_t nil[16];

	assert_memory_equal(p, "conectix\0\0\0\2\0\1\0\0", 16);
	assert_true(get_be64(p + 16) == (type == 2 ? UINT64_MAX : 512));
	assert_int_equal(get_be32(p + 24), 0);
	assert_memory_equal(p + 28, "win ", 4);
	assert_memory_equal(p + 36, "Wi2k", 4);
	assert_int_equal(get_be64(p + 40), up(size, 512) * 512);
	assert_int_equal(get_be64(p + 48), up(size, 512) * 512);
	assert_int_equal(get_be32(p + 60), type);
	assert_memory_not_equal(p + 68, nil, 16);
	assert_true(sum_is_right(p, 512, 64));
	for (size_t i = 84; i < 512; i++)
		assert_int_equal(p[i], 0);
}

/* Of the blocks of 32 units that hold any of the units; their number. */
static size_t blocks_of(const uint64_t *units, size_t count, uint64_t *blocks)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		if (n == 0 || blocks[n - 1] != units[i] / 32)
			blocks[n++] = units[i] / 32;
	}
	return n;
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
	struct view *view = open_view(image, "vhd");
	uint64_t table = up(up(size, BLOCK) * 4, 512) * 512, length, random = size, blocks[8];
	size_t n = blocks_of(units, count, blocks);
	uint8_t *f = read_view(view, &length);
	const uint8_t *h = f + 512;

	assert_int_equal(length, 1536 + table + n * STRIDE + 512);
	check_footer(f + length - 512, size, 3);
	assert_bytes(f, f + length - 512, 512);
	assert_memory_equal(h, "cxsparse\xff\xff\xff\xff\xff\xff\xff\xff", 16);
	assert_int_equal(get_be64(h + 16), 1536);
	assert_int_equal(get_be32(h + 24), 0x10000);
	assert_int_equal(get_be32(h + 28), up(size, BLOCK));
	assert_int_equal(get_be32(h + 32), BLOCK);
	assert_true(sum_is_right(h, 1024, 36));
	for (size_t i = 40; i < 1024; i++)
		assert_int_equal(h[i], 0);
	for (uint64_t b = 0, k = 0; b < table / 4; b++) {
		uint64_t at = 1536 + table + k * STRIDE;
		bool there = k < n && blocks[k] == b;

		assert_int_equal(get_be32(f + 1536 + b * 4), there ? at / 512 : UINT32_MAX);
		k += there;
	}
	for (size_t k = 0; k < n; k++) {
		const uint8_t *block = f + 1536 + table + k * STRIDE;

		for (size_t i = 0; i < 512; i++)
			assert_int_equal(block[i], 0xff);
		for (uint64_t i = 0; i < BLOCK; i++) {
			uint64_t guest = blocks[k] * BLOCK + i;
			bool data = is_unit(units, count, guest / UNIT);

			if (block[512 + i] != (data ? source_byte(size, guest) : 0))
				fail_msg("byte %" PRIu64 " of the disk", guest);
		}
	}
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
	} cases[] = {
		{ 1, { 0 }, 0 },
		{ 1, { 0 }, 1 },
		{ 513, { 0 }, 1 },
		{ UNIT + 1, { 1 }, 1 },
		{ BLOCK, { 0, 31 }, 2 },
		{ BLOCK + 1, { 31, 32 }, 2 },
		{ 3 * BLOCK, { 64 }, 1 },
		/* Borders of a sector of the table, 128 blocks, and of an occupancy page. */
		{ 127 * BLOCK, { 5, 126 * 32 }, 2 },
		{ 128 * BLOCK, { 127 * 32 + 31 }, 1 },
		{ 129 * BLOCK - 5, { 127 * 32, 128 * 32 + 31 }, 2 },
		{ 1 * GIB + 700, { 0, 8191, 8192, 1 * GIB / UNIT }, 4 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count);
}

/* The appendix of the specification, and what qemu-img computes for the same sizes. */
static void test_geometry(void **state)
{
	static const struct {
		uint64_t sectors;
		unsigned cylinders, heads, track;
	} cases[] = {
		{ 1, 0, 4, 17 },
		{ 67, 0, 4, 17 },
		{ 68, 1, 4, 17 },
		{ 2048, 30, 4, 17 },
		{ 4 * 17 * 1024 - 1, 1023, 4, 17 },
		{ 4 * 17 * 1024, 1024 * 4 / 16 * 17 / 31, 16, 31 },
		{ 204800, 1003, 12, 17 },
		{ 16 * 31 * 1024 - 1, 1023, 16, 31 },
		{ 16 * 31 * 1024, 503, 16, 63 },
		{ 2097152, 2080, 16, 63 },
		{ 65535ull * 16 * 63 - 1, 65534, 16, 63 },
		{ 65535ull * 16 * 63, 16191, 16, 255 },
		{ 65535ull * 16 * 255 - 1, 65534, 16, 255 },
		{ 65535ull * 16 * 255, 65535, 16, 255 },
		{ 2040ull * 1024 * 2048, 65535, 16, 255 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct image *image = source_empty(cases[i].sectors * 512);
		struct view *view = open_view(image, "vhd");
		const uint8_t *p = view->regions[0].bytes;

		assert_int_equal(get_be16(p + 56), cases[i].cylinders);
		assert_int_equal(p[58], cases[i].heads);
		assert_int_equal(p[59], cases[i].track);
		view_close(view);
		image_unref(image);
	}
}

static void test_fixed(void **state)
{
	static const uint64_t sizes[] = { 1, 512, UNIT + 1, 3 * MIB + 17 };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		const uint64_t units[] = { up(sizes[i], UNIT) - 1 };
		struct image *image = source_of_units(sizes[i], units, 1);
		struct view *view = open_view(image, "vhd-fixed");
		uint64_t length, disk = up(sizes[i], 512) * 512;
		uint8_t *f = read_view(view, &length);

		assert_int_equal(length, disk + 512);
		for (uint64_t b = 0; b < disk; b++)
			assert_int_equal(f[b], b < units[0] * UNIT ? 0 : source_byte(sizes[i], b));
		check_footer(f + disk, sizes[i], 2);
		free(f);
		view_close(view);
		image_unref(image);
	}
}

static void assert_too_large(uint64_t size, const char *format, const char *reason)
{
	struct image *image = source_empty(size);
	struct why why = { "" };
	struct view *view;

	assert_false(view_format(format)->surely_fits(size));
	assert_int_equal(view_open(image, view_format(format), &view, &why), -EFBIG);
	assert_non_null(strstr(why.text, reason));
	image_unref(image);
}

static void test_limits(void **state)
{
	static const char *const formats[] = { "vhd", "vhd-fixed" };

	(void)state;
	for (size_t i = 0; i < COUNT(formats); i++) {
		struct image *image = source_of_clusters(2040 * GIB, 1);
		struct view *view = open_view(image, formats[i]);

		assert_true(view_format(formats[i])->surely_fits(2040 * GIB));
		if (i == 0)
			assert_int_equal(view->size, 1536 + 1044480 * 4 + 1044480 * STRIDE + 512);
		view_close(view);
		image_unref(image);
		assert_too_large(2040 * GIB + 1, formats[i], "2040 GiB");
		assert_too_large(0, formats[i], "cannot be empty");
	}
}

/* The id is that of the disk: the same for the same, another for another. */
static void test_ids(void **state)
{
	static const uint64_t units[] = { 0, 1 };
	uint8_t ids[4][16];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct image *image = source_of_units(MIB, units, i < 3 ? 1 : 2);
		struct view *view;

		if (i == 2) {
			image_unref(image);
			assert_int_equal(rename(store_path("x.qcow2"), store_path("x-2.qcow2")), 0);
			store_text("x-2-base.raw", "");
			store.datastore.references = REFERENCES_DATASTORE;
			image = open_image("x-2.qcow2");
		}
		view = open_view(image, "vhd");
		memcpy(ids[i], view->regions[0].bytes + 68, 16);
		view_close(view);
		image_unref(image);
	}
	assert_memory_equal(ids[0], ids[1], 16);
	assert_memory_not_equal(ids[0], ids[2], 16); /* another path */
	assert_memory_not_equal(ids[0], ids[3], 16); /* another map */
}

/* A view that is a source again is itself. */
static void test_again(void **state)
{
	static const char *const names[][2] = { { "vhd", "y.vhd" },
		{ "vhd-fixed", "z.fixed.vhd" } };
	static const uint64_t units[] = { 3, 40 };

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		struct image *image = source_of_units(5 * MIB + 512, units, 2);
		struct view *view = open_view(image, names[i][0]);
		uint64_t length;
		uint8_t *f = read_view(view, &length);

		store_write(names[i][1], f, length);
		free(f);
		view_close(view);
		image_unref(image);
		image = open_image(names[i][1]);
		assert_int_equal(image_size(image), 5 * MIB + 512);
		assert_true(image_is_standalone(image));
		view = open_view(image, names[i][0]);
		assert_true(view->identity);
		view_close(view);
		/* Both flavours are VHDs; only one of them is fixed. */
		view = open_view(image, "vhd");
		assert_true(view->identity);
		view_close(view);
		view = open_view(image, "vhd-fixed");
		assert_int_equal(view->identity, i == 1);
		view_close(view);
		image_unref(image);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_layout),
		store_test(test_geometry),
		store_test(test_fixed),
		store_test(test_limits),
		store_test(test_ids),
		store_test(test_again),
	};

	return run_unit_tests(tests);
}
