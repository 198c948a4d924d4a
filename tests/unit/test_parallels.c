/* SPDX-License-Identifier: Apache-2.0 */
/* The Parallels source: both kinds of entries, and where a cluster may be. */
#include "levels_image.h"

#define FILE_NAME "x.hdd"
#define SECTOR    512u
#define CLUSTER   (3 * SECTOR)
#define DATA      (2 * CLUSTER) /* 6 clusters */
#define LENGTH    (8 * CLUSTER)
#define ENTRIES   8u
#define BAT       64u
#define OLD       "WithoutFreeSpace"
#define NEW       "WithouFreSpacExt"

static uint8_t file[LENGTH];

static void begin(const char *magic, uint64_t sectors)
{
	memset(file, 0, sizeof(file));
	memcpy(file, magic, 16);
	put_le32(file + 16, 2);
	put_le32(file + 28, CLUSTER / SECTOR);
	put_le32(file + 32, ENTRIES);
	put_le64(file + 36, sectors);
	put_le32(file + 48, DATA / SECTOR);
	pattern(file + DATA, 1, 0, LENGTH - DATA);
}

static void set(uint64_t cluster, uint32_t entry)
{
	put_le32(file + BAT + cluster * 4, entry);
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
		{ 0, 1, 'w', -EINVAL, "does not begin like" },
		{ 16, 4, 1, -ENOTSUP, "version 1 " },
		{ 16, 4, 3, -ENOTSUP, "version 3 " },
		{ 28, 4, 0, -EINVAL, "clusters have 0 sectors" },
		{ 28, 4, INT32_MAX / 513 + 1, -EINVAL, "sectors" },
		{ 28, 4, UINT32_MAX, -EINVAL, "clusters have 4294967295 sectors" },
		{ 28, 4, 2, -EINVAL, "too small for its size" },
		{ 32, 4, ENTRIES - 1, -EINVAL, "too small for its size" },
		{ 32, 4, UINT32_MAX, -EINVAL, "not inside the file" },
		{ 32, 4, (DATA - BAT) / 4 + 1, -EINVAL, "begins inside its table" },
		{ 36, 8, 25, -EINVAL, "too small for its size" },
		{ 36, 8, 1ull << 54, -EINVAL, "beyond 2^63" },
		{ 36, 8, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 48, 4, 7, -EINVAL, "does not begin with a cluster" },
	};

	(void)state;
	begin(NEW, 24);
	check_lies(FILE_NAME, file, LENGTH, lies, COUNT(lies), put_le);
	for (uint64_t length = 0; length < 64; length++) {
		store_write(FILE_NAME, file, length);
		assert_refused(FILE_NAME, -EINVAL, "does not begin like");
	}
	store_write(FILE_NAME, file, BAT + ENTRIES * 4 - 1);
	assert_refused(FILE_NAME, -EINVAL, "not inside the file");
	image_unref(written(BAT + ENTRIES * 4));
}

static void test_legal(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t value;
		bool standalone;
	} cases[] = {
		{ 20, UINT32_MAX, true },
		{ 24, UINT32_MAX, true },
		{ 44, 0x312e3276, true },
		{ 44, 0x746f6e59, false }, /* open, or not closed */
		{ 44, 12345, true },
		{ 48, 0, true },
		{ 52, 1, true }, /* QEMU leaves it there when it writes */
		{ 52, UINT32_MAX, true },
		{ 56, 4, true },
		{ 56, UINT32_MAX, true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct image *image;

		begin(NEW, 22);
		set(1, 3);
		put_le32(file + cases[i].offset, cases[i].value);
		image = written(LENGTH);
		assert_int_equal(image_size(image), 22 * SECTOR);
		assert_int_equal(image_is_standalone(image), cases[i].standalone);
		assert_map(image, MAP_PLACE, { CLUSTER, EXTENT_ZERO, 0 },
			{ 2 * CLUSTER, EXTENT_DATA, 3 * CLUSTER }, { 22 * SECTOR, EXTENT_ZERO, 0 });
		image_unref(image);
	}
}

/* With the older magic the upper half of the size does not count. */
static void test_old_size(void **state)
{
	struct image *image;

	(void)state;
	begin(OLD, 24 | 7ull << 32);
	image = written(LENGTH);
	assert_int_equal(image_size(image), 24 * SECTOR);
	image_unref(image);
	begin(NEW, 24 | 7ull << 32);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "too small for its size");
	begin(NEW, 0);
	image_unref(written(LENGTH));
}

/* ---- entries ---- */

struct entry_case {
	uint32_t entry;
	enum extent_kind kind;
};

static void check_entries(const char *magic, uint32_t data, uint64_t step,
	const struct entry_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t offset = cases[i].entry * step;
		bool damaged = cases[i].kind == EXTENT_DAMAGED;
		uint8_t expected[CLUSTER];
		struct image *image;

		begin(magic, CLUSTER / SECTOR);
		put_le32(file + 48, data);
		set(0, cases[i].entry);
		image = written(LENGTH);
		assert_map(image, MAP_PLACE, { CLUSTER, cases[i].kind, offset });
		assert_map(image, MAP_KIND, { CLUSTER, damaged ? EXTENT_DATA : cases[i].kind, 0 });
		memset(expected, 0, sizeof(expected));
		if (cases[i].kind == EXTENT_DATA)
			memcpy(expected, file + offset, CLUSTER);
		assert_int_equal(read_disk(image, 0, CLUSTER, expected), damaged ? -EIO : 0);
		image_unref(image);
	}
}

static void test_entries(void **state)
{
	static const struct entry_case clusters[] = {
		{ 0, EXTENT_ZERO },
		{ 1, EXTENT_DAMAGED }, /* before the data */
		{ 2, EXTENT_DATA },
		{ 7, EXTENT_DATA },
		{ 8, EXTENT_DAMAGED },
		{ UINT32_MAX, EXTENT_DAMAGED },
	};
	static const struct entry_case sectors[] = {
		{ 0, EXTENT_ZERO },
		{ 1, EXTENT_DAMAGED },
		{ 5, EXTENT_DAMAGED },
		{ 6, EXTENT_DATA },
		{ 7, EXTENT_DAMAGED }, /* between clusters */
		{ 9, EXTENT_DATA },
		{ 21, EXTENT_DATA },
		{ 24, EXTENT_DAMAGED },
		{ UINT32_MAX, EXTENT_DAMAGED },
	};
	/* Where the data begins is not said: anywhere behind the table. */
	static const struct entry_case anywhere[] = {
		{ 0, EXTENT_ZERO },
		{ 1, EXTENT_DATA },
		{ 7, EXTENT_DATA },
		{ 24, EXTENT_DAMAGED },
		{ UINT32_MAX, EXTENT_DAMAGED },
	};

	(void)state;
	check_entries(NEW, DATA / SECTOR, CLUSTER, clusters, COUNT(clusters));
	check_entries(OLD, DATA / SECTOR, SECTOR, sectors, COUNT(sectors));
	check_entries(OLD, 0, SECTOR, anywhere, COUNT(anywhere));
}

/* The largest clusters that there are, as far away as they can be. */
static void test_far_entries(void **state)
{
	const uint64_t cluster = (uint64_t)(INT32_MAX / 513) * SECTOR;
	struct image *image;

	(void)state;
	begin(NEW, ENTRIES * (INT32_MAX / 513));
	put_le32(file + 28, INT32_MAX / 513);
	put_le32(file + 48, 0);
	for (uint64_t i = 0; i < ENTRIES; i++)
		set(i, UINT32_MAX - 7 + (uint32_t)i);
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { ENTRIES * cluster, EXTENT_DAMAGED, 0 });
	assert_map(image, MAP_KIND, { ENTRIES * cluster, EXTENT_DATA, 0 });
	image_unref(image);
}

static void test_runs(void **state)
{
	struct image *image;

	(void)state;
	begin(NEW, 22);
	set(0, 2);
	set(1, 3);
	set(2, 5);
	set(3, 1);
	set(6, 4);
	set(7, 7);
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER, EXTENT_DATA, 5 * CLUSTER }, { 4 * CLUSTER, EXTENT_DAMAGED, 0 },
		{ 6 * CLUSTER, EXTENT_ZERO, 0 }, { 7 * CLUSTER, EXTENT_DATA, 4 * CLUSTER },
		{ 22 * SECTOR, EXTENT_DATA, 7 * CLUSTER });
	assert_map(image, MAP_KIND, { 4 * CLUSTER, EXTENT_DATA, 0 },
		{ 6 * CLUSTER, EXTENT_ZERO, 0 }, { 22 * SECTOR, EXTENT_DATA, 0 });
	image_unref(image);
	/* Of the last cluster the disk needs a sector only. */
	image = written(LENGTH - 2 * SECTOR);
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER, EXTENT_DATA, 5 * CLUSTER }, { 4 * CLUSTER, EXTENT_DAMAGED, 0 },
		{ 6 * CLUSTER, EXTENT_ZERO, 0 }, { 7 * CLUSTER, EXTENT_DATA, 4 * CLUSTER },
		{ 22 * SECTOR, EXTENT_DATA, 7 * CLUSTER });
	image_unref(image);
	image = written(LENGTH - 2 * SECTOR - 1);
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER, EXTENT_DATA, 5 * CLUSTER }, { 4 * CLUSTER, EXTENT_DAMAGED, 0 },
		{ 6 * CLUSTER, EXTENT_ZERO, 0 }, { 7 * CLUSTER, EXTENT_DATA, 4 * CLUSTER },
		{ 22 * SECTOR - 1, EXTENT_DATA, 7 * CLUSTER }, { 22 * SECTOR, EXTENT_DAMAGED, 0 });
	image_unref(image);
}

/* The file of a snapshot can be told from that of the disk by its name alone. */
static void test_names(void **state)
{
	static const char *const disks[] = { "x.hdd.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds",
		"x.hdd.0.{5FBAABE3-6958-40FF-92A7-860E329AAB41}.hds", "x.hds", "{x}.hds",
		"5fbaabe3-6958-40ff-92a7-860e329aab42}.hds" };
	static const char delta[] = "x.hdd.0.{2ef8ac92-94cb-4b9a-9b5f-000000000001}.hds";

	(void)state;
	begin("WithouFreSpacExt", 2);
	for (size_t i = 0; i < COUNT(disks); i++) {
		store_write(disks[i], file, sizeof(file));
		image_unref(open_image(disks[i]));
	}
	store_write(delta, file, sizeof(file));
	assert_refused(delta, -ENOTSUP, "a snapshot");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_header),
		store_test(test_legal),
		store_test(test_old_size),
		store_test(test_entries),
		store_test(test_far_entries),
		store_test(test_runs),
		store_test(test_names),
	};

	return run_unit_tests(tests);
}
