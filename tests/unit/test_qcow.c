/* SPDX-License-Identifier: Apache-2.0 */
/* The qcow source (version 1): header, both tables, every kind of entry. */
#include <zlib.h>

#include "levels_image.h"

#define FILE_NAME  "x.qcow"
#define CLUSTER    512u
#define L1         56u            /* with a name of 8 bytes before it it would be there */
#define SPAN       (64 * CLUSTER) /* of an L2 table of 64 entries */
#define L2         512u           /* the first table; the second is behind it */
#define DATA       (L2 + 2 * 512) /* 4 clusters */
#define LENGTH     (DATA + 4 * CLUSTER)
#define COMPRESSED (1ull << 63)

static uint8_t file[LENGTH];

/* Two L2 tables, of which the second maps what is left of the disk. */
static void begin(uint64_t size)
{
	memset(file, 0, sizeof(file));
	memcpy(file, "QFI\xfb", 4);
	put_be32(file + 4, 1);
	put_be64(file + 24, size);
	file[32] = 9;
	file[33] = 6;
	put_be64(file + 40, L1);
	put_be64(file + L1, L2);
	put_be64(file + L1 + 8, L2 + 512);
	pattern(file + DATA, 1, 0, 4 * CLUSTER);
}

static void set(uint64_t cluster, uint64_t entry)
{
	put_be64(file + L2 + cluster * 8, entry);
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
		{ 4, 4, 0, -EINVAL, "unsupported version" },
		{ 4, 4, 2, -EINVAL, "cluster_bits" }, /* read as qcow2 */
		{ 8, 8, 40, -EINVAL, "name of its backing file" },
		{ 8, 8, 48, -EINVAL, "name of its backing file" }, /* of no bytes */
		{ 8, 8, LENGTH, -EINVAL, "name of its backing file" },
		{ 8, 8, UINT64_MAX, -EINVAL, "name of its backing file" },
		{ 24, 8, 1ull << 63, -EINVAL, "beyond 2^63" },
		{ 24, 8, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 24, 8, INT64_MAX, -EINVAL, "L1 table would need" },
		{ 24, 8, (1ull << 39) + 1, -EINVAL, "L1 table would need" },
		{ 24, 8, 1ull << 38, -EINVAL, "L1 table lies outside" },
		{ 32, 1, 8, -EINVAL, "cluster_bits 8 " },
		{ 32, 1, 17, -EINVAL, "cluster_bits 17 " },
		{ 32, 1, 255, -EINVAL, "cluster_bits 255 " },
		{ 33, 1, 5, -EINVAL, "l2_bits 5 " },
		{ 33, 1, 14, -EINVAL, "l2_bits 14 " },
		{ 33, 1, 13, -EINVAL, "L2 table lies outside" },
		{ 36, 4, 1, -ENOTSUP, "encrypted with AES" },
		{ 36, 4, 2, -ENOTSUP, "encrypted" },
		{ 40, 8, 0, -EINVAL, "in its header" },
		{ 40, 8, 40, -EINVAL, "in its header" },
		{ 40, 8, L1 + 4, -EINVAL, "L1 table lies outside" },
		{ 40, 8, LENGTH, -EINVAL, "L1 table lies outside" },
		{ 40, 8, UINT64_MAX - 7, -EINVAL, "L1 table lies outside" },
		{ L1, 8, 40, -EINVAL, "L2 table lies outside" },
		{ L1, 8, L2 + 4, -EINVAL, "L2 table lies outside" },
		{ L1 + 8, 8, LENGTH - 504, -EINVAL, "L2 table lies outside" },
		{ L1 + 8, 8, COMPRESSED | L2, -EINVAL, "L2 table lies outside" },
	};

	(void)state;
	begin(2 * SPAN);
	check_lies(FILE_NAME, file, LENGTH, lies, COUNT(lies), put_be);
	for (uint64_t length = 8; length < 48; length++) {
		store_write(FILE_NAME, file, length);
		assert_refused(FILE_NAME, -EINVAL, "cut short");
	}
}

/* Any multiple of 8 does for the tables; what nobody looks at may be anything. */
static void test_legal(void **state)
{
	struct image *image;

	(void)state;
	begin(2 * SPAN);
	put_be32(file + 16, 77);         /* bytes of a name that is not there */
	put_be32(file + 20, 0xffffffff); /* time */
	put_be16(file + 34, 0xffff);
	put_be64(file + L1, L2 + 8);
	set(1, DATA);
	image = written(LENGTH);
	assert_int_equal(image_size(image), 2 * SPAN);
	assert_true(image_is_standalone(image));
	assert_map(image, MAP_PLACE, { CLUSTER, EXTENT_DATA, DATA }, { 2 * SPAN, EXTENT_ZERO, 0 });
	image_unref(image);
	begin(0);
	image = written(LENGTH);
	assert_int_equal(image_size(image), 0);
	image_unref(image);
}

/* More tables than the file has room for are one that is used again and again. */
static void test_shared_tables(void **state)
{
	(void)state;
	begin(8 * SPAN);
	for (uint64_t i = 0; i < LENGTH / 512; i++)
		put_be64(file + L1 + i * 8, L2);
	image_unref(written(LENGTH));
	put_be64(file + L1 + LENGTH / 512 * 8, L2);
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
		{ 1, EXTENT_DAMAGED }, /* no mark of zeros here */
		{ DATA, EXTENT_DATA },
		{ DATA + 3 * CLUSTER, EXTENT_DATA },
		{ DATA + 256, EXTENT_DAMAGED },
		{ LENGTH, EXTENT_DAMAGED },
		{ 1ull << 62, EXTENT_DAMAGED },
		{ COMPRESSED - 512, EXTENT_DAMAGED },
		{ COMPRESSED, EXTENT_DAMAGED }, /* of no bytes */
		{ COMPRESSED | DATA, EXTENT_DAMAGED },
		{ COMPRESSED | 1ull << 54 | DATA, EXTENT_PACKED },
		{ COMPRESSED | 511ull << 54 | (DATA + 1), EXTENT_PACKED },
		{ COMPRESSED | 1ull << 54 | (LENGTH - 1), EXTENT_PACKED },
		{ COMPRESSED | 2ull << 54 | (LENGTH - 1), EXTENT_DAMAGED },
		{ COMPRESSED | 1ull << 54 | LENGTH, EXTENT_DAMAGED },
		{ UINT64_MAX, EXTENT_DAMAGED },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t entry = cases[i].entry;
		bool zero = cases[i].kind == EXTENT_ZERO;
		uint8_t expected[CLUSTER];
		struct image *image;

		begin(CLUSTER);
		set(0, entry);
		image = written(LENGTH);
		assert_map(image, MAP_PLACE, { CLUSTER, cases[i].kind, entry });
		assert_map(image, MAP_KIND, { CLUSTER, zero ? EXTENT_ZERO : EXTENT_DATA, 0 });
		memset(expected, 0, sizeof(expected));
		if (cases[i].kind == EXTENT_DATA)
			pattern(expected, 1, entry - DATA, CLUSTER);
		assert_int_equal(read_disk(image, 0, CLUSTER, expected),
			zero || cases[i].kind == EXTENT_DATA ? 0 : -EIO);
		image_unref(image);
	}
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
	set(4, COMPRESSED | 100ull << 54 | DATA);
	set(64, DATA + 2 * CLUSTER); /* of the second table */
	set(127, DATA + CLUSTER);
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { 2 * CLUSTER, EXTENT_DATA, DATA },
		{ 3 * CLUSTER, EXTENT_DATA, DATA + 3 * CLUSTER },
		{ 4 * CLUSTER, EXTENT_DAMAGED, 0 }, { 5 * CLUSTER, EXTENT_PACKED, 0 },
		{ SPAN, EXTENT_ZERO, 0 }, { SPAN + CLUSTER, EXTENT_DATA, DATA + 2 * CLUSTER },
		{ 2 * SPAN - CLUSTER, EXTENT_ZERO, 0 }, { 2 * SPAN, EXTENT_DATA, DATA + CLUSTER });
	assert_map(image, MAP_KIND, { 5 * CLUSTER, EXTENT_DATA, 0 }, { SPAN, EXTENT_ZERO, 0 },
		{ SPAN + CLUSTER, EXTENT_DATA, 0 }, { 2 * SPAN - CLUSTER, EXTENT_ZERO, 0 },
		{ 2 * SPAN, EXTENT_DATA, 0 });
	image_unref(image);
	put_be64(file + L1, 0); /* without the first table */
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { SPAN, EXTENT_ZERO, 0 },
		{ SPAN + CLUSTER, EXTENT_DATA, DATA + 2 * CLUSTER },
		{ 2 * SPAN - CLUSTER, EXTENT_ZERO, 0 }, { 2 * SPAN, EXTENT_DATA, DATA + CLUSTER });
	image_unref(image);
}

/* What the end of the file cuts is lost, unless the disk has ended before. */
static void test_cut(void **state)
{
	uint8_t expected[CLUSTER];
	struct image *image;

	(void)state;
	memset(expected, 0, sizeof(expected));
	begin(CLUSTER + 100);
	set(0, DATA + 2 * CLUSTER);
	set(1, DATA + 3 * CLUSTER);
	image = written(LENGTH - CLUSTER + 100);
	assert_map(image, MAP_PLACE, { CLUSTER + 100, EXTENT_DATA, DATA + 2 * CLUSTER });
	image_unref(image);
	image = written(LENGTH - CLUSTER + 99);
	assert_map(image, MAP_PLACE, { CLUSTER + 99, EXTENT_DATA, DATA + 2 * CLUSTER },
		{ CLUSTER + 100, EXTENT_DAMAGED, 0 });
	assert_int_equal(read_disk(image, CLUSTER + 99, 1, expected), -EIO);
	image_unref(image);
}

/* ---- compressed clusters ---- */

static uint64_t pack(const uint8_t *bytes, uint64_t length, uint8_t *out, uint64_t room)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)bytes;
	z.avail_in = (uInt)length;
	z.next_out = out;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}

static void test_compressed(void **state)
{
	uint8_t text[CLUSTER + 1], packed[CLUSTER];
	struct image *image;
	uint64_t length;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i / 7);
	begin(3 * CLUSTER);
	length = pack(text, CLUSTER, packed, sizeof(packed));
	memcpy(file + DATA + 3, packed, length);
	set(1, COMPRESSED | length << 54 | (DATA + 3));
	image = written(LENGTH);
	assert_int_equal(read_disk(image, CLUSTER, CLUSTER, text), 0);
	assert_int_equal(read_disk(image, CLUSTER + 77, 100, text + 77), 0);
	image_unref(image);
	/* Two of them side by side are two. */
	set(0, COMPRESSED | length << 54 | (DATA + 3));
	image = written(LENGTH);
	assert_map(image, MAP_PLACE, { CLUSTER, EXTENT_PACKED, 0 },
		{ 2 * CLUSTER, EXTENT_PACKED, 0 }, { 3 * CLUSTER, EXTENT_ZERO, 0 });
	assert_int_equal(read_disk(image, 0, CLUSTER, text), 0);
	assert_int_equal(read_disk(image, CLUSTER, CLUSTER, text), 0);
	image_unref(image);
	/* Its length is what the entry says, and not more. */
	set(1, COMPRESSED | (length - 3) << 54 | (DATA + 3));
	image = written(LENGTH);
	assert_int_equal(read_disk(image, CLUSTER, CLUSTER, text), -EIO);
	image_unref(image);
	/* A stream that ends before the cluster does is no cluster. */
	begin(3 * CLUSTER);
	length = pack(text, CLUSTER - 1, packed, sizeof(packed));
	memcpy(file + DATA + 3, packed, length);
	set(1, COMPRESSED | length << 54 | (DATA + 3));
	image = written(LENGTH);
	assert_int_equal(read_disk(image, CLUSTER, 1, text), -EIO);
	image_unref(image);
}

/* ---- the backing file ---- */

static void name_parent(const char *name)
{
	put_be64(file + 8, 200);
	put_be32(file + 16, (uint32_t)strlen(name));
	memcpy(file + 200, name, strlen(name));
}

static void test_backing(void **state)
{
	uint8_t expected[2 * CLUSTER];
	struct image *image;

	(void)state;
	begin(3 * CLUSTER);
	set(0, DATA);
	name_parent("x-base.raw");
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -ENOENT, "x-base.raw");
	pattern(expected, 2, 0, 700);
	store_write("x-base.raw", expected, 700);
	memset(expected, 0, sizeof(expected));
	pattern(expected, 2, 512, 700 - 512);
	image = written(LENGTH);
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 2);
	assert_int_equal(read_disk(image, CLUSTER, 2 * CLUSTER, expected), 0);
	image_unref(image);
	name_parent("x-base.img"); /* of which the format is not recorded */
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "does not record the format");
	name_parent("other.raw\0");
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EPERM, "references=datastore");
	put_be32(file + 16, 1024);
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "name of its backing file");
	name_parent("x-base.raw");
	put_be64(file + 8, 47); /* with a byte of the header */
	store_write(FILE_NAME, file, LENGTH);
	assert_refused(FILE_NAME, -EINVAL, "name of its backing file");
	/* Found by its content alone it may name nothing. */
	name_parent("x-base.raw");
	store_write("x", file, LENGTH);
	assert_refused("x", -EPERM, "only its content says that it is qcow,");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_header),
		store_test(test_legal),
		store_test(test_shared_tables),
		store_test(test_entries),
		store_test(test_runs),
		store_test(test_cut),
		store_test(test_compressed),
		store_test(test_backing),
	};

	return run_unit_tests(tests);
}
