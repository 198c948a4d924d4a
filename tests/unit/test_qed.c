/* SPDX-License-Identifier: Apache-2.0 */
/* The QED source: header, both tables, every kind of entry. */
#include "levels_image.h"

#define FILE_NAME "x.qed"
#define CLUSTER   4096u
#define ENTRIES   512u /* of a table of one cluster */
#define SPAN      ((uint64_t)ENTRIES * CLUSTER)
#define L1        CLUSTER
#define L2        (2 * CLUSTER) /* the first table; the second is behind it */
#define DATA      (4 * CLUSTER) /* 4 clusters */
#define LENGTH    (8 * CLUSTER)

static uint8_t file[LENGTH];

static void begin(uint64_t size)
{
	memset(file, 0, sizeof(file));
	memcpy(file, "QED\0", 4);
	put_le32(file + 4, CLUSTER);
	put_le32(file + 8, 1);
	put_le32(file + 12, 1);
	put_le64(file + 40, L1);
	put_le64(file + 48, size);
	put_le64(file + L1, L2);
	put_le64(file + L1 + 8, L2 + CLUSTER);
	pattern(file + DATA, 1, 0, 4 * CLUSTER);
}

static void set(uint64_t cluster, uint64_t entry)
{
	put_le64(file + L2 + cluster * 8, entry);
}

static struct image *written(uint64_t length)
{
	store_write(FILE_NAME, file, length);
	return open_image(FILE_NAME);
}

/* ---- header ---- */

static void test_header(void **state)
{
	static const struct lie lies[] = {
		{ 0, 4, 0, -EINVAL, "does not begin like" },
		{ 4, 4, 0, -EINVAL, "clusters have 0 bytes" },
		{ 4, 4, 2048, -EINVAL, "clusters have 2048 bytes" },
		{ 4, 4, 4097, -EINVAL, "clusters have 4097 bytes" },
		{ 4, 4, 1u << 27, -EINVAL, "clusters have 134217728 bytes" },
		{ 4, 4, 8192, -EINVAL, "L1 table lies outside" },
		{ 4, 4, 1u << 26, -EINVAL, "L1 table lies outside" },
		{ 8, 4, 0, -EINVAL, "tables have 0 clusters" },
		{ 8, 4, 3, -EINVAL, "tables have 3 clusters" },
		{ 8, 4, 32, -EINVAL, "tables have 32 clusters" },
		{ 8, 4, 8, -EINVAL, "L1 table lies outside" },
		{ 12, 4, 0, -EINVAL, "header has no clusters" },
		{ 12, 4, 2, -EINVAL, "L1 table lies outside" },
		{ 12, 4, UINT32_MAX, -EINVAL, "L1 table lies outside" },
		{ 16, 8, 1, -EINVAL, "name of its backing file" },
		{ 16, 8, 8, -ENOTSUP, "unknown here (bit 3)" },
		{ 16, 8, 1ull << 63, -ENOTSUP, "unknown here (bit 63)" },
		{ 40, 8, 0, -EINVAL, "L1 table lies outside" },
		{ 40, 8, L1 + 8, -EINVAL, "L1 table lies outside" },
		{ 40, 8, LENGTH, -EINVAL, "L1 table lies outside" },
		{ 40, 8, UINT64_MAX - 4095, -EINVAL, "L1 table lies outside" },
		{ 48, 8, 1ull << 63, -EINVAL, "beyond 2^63" },
		{ 48, 8, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 48, 8, 511, -EINVAL, "multiple of 512" },
		{ 48, 8, ENTRIES * SPAN + 512, -EINVAL, "too small for its size" },
		{ 48, 8, INT64_MAX - 511, -EINVAL, "too small for its size" },
		{ L1, 8, 1, -EINVAL, "L2 table lies outside" }, /* zeros are for L2 */
		{ L1, 8, L2 + 512, -EINVAL, "L2 table lies outside" },
		{ L1 + 8, 8, LENGTH, -EINVAL, "L2 table lies outside" },
		{ L1 + 8, 8, UINT64_MAX - 4095, -EINVAL, "L2 table lies outside" },
	};

	(void)state;
	begin(2 * SPAN);
	check_lies(FILE_NAME, file, LENGTH, lies, COUNT(lies), put_le);
	for (uint64_t length = 4; length < 64; length++) {
		store_write(FILE_NAME, file, length);
		assert_refused(FILE_NAME, -EINVAL, "cut short");
	}
}

/* An image that needs a check is as good for reading; features that may be ignored are. */
static void test_legal(void **state)
{
	struct image *image;

	(void)state;
	begin(ENTRIES * SPAN);
	put_le64(file + 16, 2 | 4);
	put_le64(file + 24, UINT64_MAX);
	put_le64(file + 32, UINT64_MAX);
	put_le32(file + 56, 1);
	image = written(LENGTH);
	assert_int_equal(image_size(image), ENTRIES * SPAN);
	assert_true(image_is_standalone(image));
	assert_map(image, MAP_PLACE, { ENTRIES * SPAN, EXTENT_ZERO, 0 });
	image_unref(image);
	begin(0);
	image_unref(written(LENGTH));
}

static void test_shared_tables(void **state)
{
	(void)state;
	begin(16 * SPAN);
	for (uint64_t i = 0; i < LENGTH / CLUSTER; i++)
		put_le64(file + L1 + i * 8, L2);
	image_unref(written(LENGTH));
	put_le64(file + L1 + LENGTH / CLUSTER * 8, L2);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "more L2 tables");
}

/* ---- entries ---- */

static void test_entries(void **state)
{
	static const struct {
		uint64_t entry;
		enum extent_kind kind;
	} cases[] = {
		{ 0, EXTENT_ZERO },
		{ 1, EXTENT_ZERO },
		{ 2, EXTENT_DAMAGED },
		{ DATA, EXTENT_DATA },
		{ DATA + 3 * CLUSTER, EXTENT_DATA },
		{ DATA + 512, EXTENT_DAMAGED },
		{ DATA + 1, EXTENT_DAMAGED },
		{ LENGTH, EXTENT_DAMAGED },
		{ 1ull << 63, EXTENT_DAMAGED },
		{ UINT64_MAX - 4095, EXTENT_DAMAGED },
		{ UINT64_MAX, EXTENT_DAMAGED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t entry = cases[i].entry;
		bool damaged = cases[i].kind == EXTENT_DAMAGED;
		uint8_t expected[CLUSTER];
		struct image *image;

		begin(CLUSTER);
		set(0, entry);
		image = written(LENGTH);
		assert_map(image, MAP_PLACE, { CLUSTER, cases[i].kind, entry });
		assert_map(image, MAP_KIND, { CLUSTER, damaged ? EXTENT_DATA : cases[i].kind, 0 });
		memset(expected, 0, sizeof(expected));
		if (cases[i].kind == EXTENT_DATA)
			pattern(expected, 1, entry - DATA, CLUSTER);
		assert_int_equal(read_disk(image, 0, CLUSTER, expected), damaged ? -EIO : 0);
		image_unref(image);
	}
}

/* A regular cluster does not lie in the header. */
static void test_long_header(void **state)
{
	struct image *image;

	(void)state;
	begin(2 * CLUSTER);
	memcpy(file + 2 * CLUSTER, file + CLUSTER, CLUSTER); /* L1 behind two clusters of header */
	put_le32(file + 12, 2);
	put_le64(file + 40, 2 * CLUSTER);
	put_le64(file + 2 * CLUSTER, 3 * CLUSTER);
	put_le64(file + 2 * CLUSTER + 8, 0);
	put_le64(file + 3 * CLUSTER, CLUSTER);
	put_le64(file + 3 * CLUSTER + 8, 2 * CLUSTER);
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { CLUSTER, EXTENT_DAMAGED, 0 },
		{ 2 * CLUSTER, EXTENT_DATA, 2 * CLUSTER });
	image_unref(image);
}

static void test_runs(void **state)
{
	struct image *image;

	(void)state;
	begin(2 * SPAN);
	set(0, DATA);
	set(1, DATA + CLUSTER);
	set(2, DATA + 3 * CLUSTER);
	set(3, DATA + 1);
	set(4, 1);
	set(ENTRIES, DATA + 2 * CLUSTER); /* of the second table */
	set(2 * ENTRIES - 1, DATA + CLUSTER);
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER, EXTENT_DATA, DATA + 3 * CLUSTER },
		{ 4 * CLUSTER, EXTENT_DAMAGED, 0 }, { SPAN, EXTENT_ZERO, 0 },
		{ SPAN + CLUSTER, EXTENT_DATA, DATA + 2 * CLUSTER },
		{ 2 * SPAN - CLUSTER, EXTENT_ZERO, 0 }, { 2 * SPAN, EXTENT_DATA, DATA + CLUSTER });
	assert_map(image, MAP_KIND, { 4 * CLUSTER, EXTENT_DATA, 0 }, { SPAN, EXTENT_ZERO, 0 },
		{ SPAN + CLUSTER, EXTENT_DATA, 0 }, { 2 * SPAN - CLUSTER, EXTENT_ZERO, 0 },
		{ 2 * SPAN, EXTENT_DATA, 0 });
	image_unref(image);
	put_le64(file + L1 + 8, 0);
	image = written(LENGTH - 100); /* which cuts no cluster of the disk but its third */
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER - 100, EXTENT_DATA, DATA + 3 * CLUSTER },
		{ 4 * CLUSTER, EXTENT_DAMAGED, 0 }, { 2 * SPAN, EXTENT_ZERO, 0 });
	image_unref(image);
}

/* ---- the backing file ---- */

static void name_parent(const char *name, uint64_t features)
{
	put_le64(file + 16, features);
	put_le32(file + 56, 64);
	put_le32(file + 60, (uint32_t)strlen(name));
	memcpy(file + 64, name, strlen(name));
}

static void refused_with(const char *name, uint64_t features, int err, const char *reason)
{
	name_parent(name, features);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, err, reason);
}

static void test_backing(void **state)
{
	uint8_t expected[3 * CLUSTER];
	struct image *image;

	(void)state;
	begin(3 * CLUSTER);
	set(0, 1);
	refused_with("x-base.img", 1 | 4, -ENOENT, "x-base.img");
	pattern(expected, 2, 0, CLUSTER + 700);
	store_write("x-base.img", expected, CLUSTER + 700);
	memset(expected, 0, sizeof(expected));
	pattern(expected + CLUSTER, 2, CLUSTER, 700);
	name_parent("x-base.img", 1 | 4);
	image = written(LENGTH);
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 2);
	assert_int_equal(read_disk(image, 0, sizeof(expected), expected), 0);
	image_unref(image);
	refused_with("x-base.img", 1, -EINVAL, "does not record the format");
	refused_with("other.raw", 1, -EPERM, "references=datastore");
	put_le32(file + 60, 1024);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "name of its backing file");
	name_parent("x-base.img", 1 | 4);
	put_le32(file + 56, CLUSTER - 9); /* one byte of the name outside the header */
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "name of its backing file");
	put_le32(file + 56, 63);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "name of its backing file");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_header),
		store_test(test_legal),
		store_test(test_shared_tables),
		store_test(test_entries),
		store_test(test_long_header),
		store_test(test_runs),
		store_test(test_backing),
	};

	return run_unit_tests(tests);
}
