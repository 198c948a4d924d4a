/* SPDX-License-Identifier: Apache-2.0 */
/* The qcow2 source: what every kind of L2 entry maps to, and what comes out when it is read. */
#include "mapping.h"
#include "qcow2_image.h"

#define FILE_NAME "x.qcow2"

/* ---- standard entries ---- */

/*
 * A disk of one cluster of 4 KiB: header, refcounts, L1, L2 at 3 * 4096, and data clusters at
 * 4 * 4096 to the end of the file, which is at 6 * 4096.
 */
static struct image *one_cluster(uint32_t version, uint64_t entry, uint64_t file_length)
{
	struct qcow2_image q;

	qcow2_begin(&q, 12, 4096);
	put_be32(q.file + 4, version);
	qcow2_set(&q, 0, entry);
	qcow2_append(&q, 2 * 4096);
	assert_int_equal(q.length, 6 * 4096);
	pattern(q.file + 4 * 4096, 1, 0, 2 * 4096);
	store_write(FILE_NAME, q.file, file_length);
	qcow2_end(&q);
	return open_image(FILE_NAME);
}

static void test_entries(void **state)
{
	static const struct {
		uint64_t entry;
		enum extent_kind kind, kind2; /* version 3, version 2 */
	} cases[] = {
		{ 0, EXTENT_ZERO, EXTENT_ZERO },
		{ QCOW2_COPIED, EXTENT_ZERO, EXTENT_ZERO }, /* allocated, but nowhere */
		{ QCOW2_ZERO, EXTENT_ZERO, EXTENT_DAMAGED },
		{ QCOW2_ZERO | 4 * 4096, EXTENT_ZERO, EXTENT_DAMAGED },
		{ QCOW2_ZERO | 4 * 4096 | QCOW2_COPIED, EXTENT_ZERO, EXTENT_DAMAGED },
		/* A preallocated place that is nonsense is not looked at. */
		{ QCOW2_ZERO | 1ull << 50, EXTENT_ZERO, EXTENT_DAMAGED },
		{ 4 * 4096, EXTENT_DATA, EXTENT_DATA },
		{ 4 * 4096 | QCOW2_COPIED, EXTENT_DATA, EXTENT_DATA },
		{ 5 * 4096, EXTENT_DATA, EXTENT_DATA },
		{ 4 * 4096 | 0x1fe, EXTENT_DATA, EXTENT_DATA }, /* reserved bits */
		{ 4 * 4096 | 0x3f00000000000000, EXTENT_DATA, EXTENT_DATA },
		{ 0x1fe, EXTENT_ZERO, EXTENT_ZERO },
		{ 4 * 4096 + 512, EXTENT_DAMAGED, EXTENT_DAMAGED },
		{ 512, EXTENT_DAMAGED, EXTENT_DAMAGED },
		{ 6 * 4096, EXTENT_DAMAGED, EXTENT_DAMAGED }, /* begins at the end of the file */
		{ 1ull << 40, EXTENT_DAMAGED, EXTENT_DAMAGED },
		{ 0x00fffffffffff000, EXTENT_DAMAGED, EXTENT_DAMAGED },
		{ QCOW2_COMPRESSED | 4 * 4096, EXTENT_PACKED, EXTENT_PACKED },
		{ QCOW2_COMPRESSED | 6 * 4096, EXTENT_DAMAGED, EXTENT_DAMAGED },
		{ QCOW2_COMPRESSED | (6 * 4096 - 1), EXTENT_PACKED, EXTENT_PACKED },
	};

	(void)state;
	for (size_t i = 0; i < 2 * COUNT(cases); i++) {
		uint64_t entry = cases[i / 2].entry;
		enum extent_kind kind = i % 2 ? cases[i / 2].kind2 : cases[i / 2].kind;
		struct image *image = one_cluster(i % 2 ? 2 : 3, entry, 6 * 4096);
		uint8_t expected[4096];

		assert_map(image, MAP_PLACE, { 4096, kind, entry & 0xfffffffff000 });
		assert_map(image, MAP_KIND,
			{ 4096, kind == EXTENT_ZERO ? EXTENT_ZERO : EXTENT_DATA, 0 });
		memset(expected, 0, sizeof(expected));
		if (kind == EXTENT_DATA)
			pattern(expected, 1, entry & 4096 ? 4096 : 0, 4096);
		assert_int_equal(read_disk(image, 0, 4096, expected),
			kind == EXTENT_ZERO || kind == EXTENT_DATA ? 0 : -EIO);
		image_unref(image);
	}
}

/* The end of the file may cut the cluster that the disk ends in, and no other. */
static void test_cut_cluster(void **state)
{
	static const uint64_t lengths[] = { 1, 511, 512, 4095 };
	uint8_t expected[4096];
	struct image *image;

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++) {
		uint64_t there = lengths[i];

		image = one_cluster(3, 5 * 4096, 5 * 4096 + there);
		assert_map(image, MAP_PLACE, { there, EXTENT_DATA, 5 * 4096 },
			{ 4096, EXTENT_ZERO, 0 });
		memset(expected, 0, sizeof(expected));
		pattern(expected, 1, 4096, there);
		assert_int_equal(read_disk(image, 0, 4096, expected), 0);
		for (uint64_t at = there - 1; at <= there + 1 && at < 4096; at++) {
			struct extent e;

			assert_int_equal(image_map(image, at, 1, MAP_PLACE, &e), 0);
			assert_int_equal(e.kind, at < there ? EXTENT_DATA : EXTENT_ZERO);
			assert_int_equal(e.start, at);
			assert_int_equal(e.end, at + 1);
		}
		image_unref(image);
	}
}

static void test_cut_cluster_elsewhere(void **state)
{
	uint8_t bytes[4096];
	struct image *image;
	struct qcow2_image q;
	uint64_t at;

	(void)state;
	pattern(bytes, 2, 0, sizeof(bytes));
	/* Of three clusters the middle one is at the end of the file. */
	qcow2_begin(&q, 12, 2 * 4096 + 1);
	qcow2_data(&q, 0, bytes);
	at = qcow2_data(&q, 8192, bytes);
	qcow2_data(&q, 4096, bytes);
	store_write(FILE_NAME, q.file, q.length - 1);
	image = open_image(FILE_NAME);
	assert_map(image, MAP_PLACE, { 4096, EXTENT_DATA, at - 4096 }, { 8192, EXTENT_DAMAGED, 0 },
		{ 8193, EXTENT_DATA, at });
	assert_int_equal(read_disk(image, 4095, 2, bytes), -EIO);
	assert_int_equal(read_disk(image, 8192, 1, bytes), 0);
	image_unref(image);
	/* The last one needs one byte only. */
	qcow2_set(&q, 4096, 0);
	qcow2_set(&q, 8192, q.length - 4096);
	store_write(FILE_NAME, q.file, q.length - 4095);
	image = open_image(FILE_NAME);
	assert_map(image, MAP_PLACE, { 4096, EXTENT_DATA, at - 4096 }, { 8192, EXTENT_ZERO, 0 },
		{ 8193, EXTENT_DATA, q.length - 4096 });
	image_unref(image);
	store_write(FILE_NAME, q.file, q.length - 4096);
	image = open_image(FILE_NAME);
	assert_map(image, MAP_PLACE, { 4096, EXTENT_DATA, at - 4096 }, { 8192, EXTENT_ZERO, 0 },
		{ 8193, EXTENT_DAMAGED, 0 });
	image_unref(image);
	qcow2_end(&q);
}

/* Neighbours in the file are one extent; an L2 table of many pages makes no difference. */
static void test_long_runs(void **state)
{
	const uint64_t count = 20000; /* entries: five and a half pages of 64 KiB clusters */
	struct qcow2_image q;
	struct image *image;
	uint64_t data;

	(void)state;
	qcow2_begin(&q, 16, count * 65536);
	for (uint64_t i = 0; i < count; i++)
		qcow2_set(&q, i * 65536, 0);
	data = qcow2_append_cluster(&q, 0);
	for (uint64_t i = 0; i < count; i++) {
		if (i != 5000 && i != 5001)
			qcow2_set(&q, i * 65536, data + i * 65536);
	}
	qcow2_set(&q, 12345 * 65536, data + 1);
	qcow2_set(&q, 12346 * 65536, data);
	qcow2_write(&q, FILE_NAME);
	assert_true(store_truncate(FILE_NAME, data + count * 65536));
	image = open_image(FILE_NAME);
	assert_map(image, MAP_PLACE, { 5000 * 65536, EXTENT_DATA, data },
		{ 5002 * 65536, EXTENT_ZERO, 0 },
		{ 12345 * 65536, EXTENT_DATA, data + 5002 * 65536 },
		{ 12346 * 65536, EXTENT_ZERO, 0 }, { 12347 * 65536, EXTENT_DATA, data },
		{ count * 65536, EXTENT_DATA, data + 12347 * 65536 });
	assert_map(image, MAP_KIND, { 5000 * 65536, EXTENT_DATA, 0 },
		{ 5002 * 65536, EXTENT_ZERO, 0 }, { 12345 * 65536, EXTENT_DATA, 0 },
		{ 12346 * 65536, EXTENT_ZERO, 0 }, { count * 65536, EXTENT_DATA, 0 });
	image_unref(image);
	qcow2_end(&q);
}

/* ---- extended L2 ---- */

#define SUB 512u /* bytes of a subcluster of a cluster of 16 KiB */

static struct image *extended(uint64_t word, uint64_t bitmap, uint64_t cut)
{
	struct qcow2_image q;

	qcow2_begin_with(&q, 14, 16384, true);
	qcow2_set_extended(&q, 0, word, bitmap);
	qcow2_append(&q, 2 * 16384);
	assert_int_equal(q.length, 6 * 16384);
	pattern(q.file + 4 * 16384, 3, 0, 2 * 16384);
	store_write(FILE_NAME, q.file, q.length - cut);
	qcow2_end(&q);
	return open_image(FILE_NAME);
}

/* By the book: every subcluster on its own. */
static enum extent_kind sub_kind(uint64_t word, uint64_t bitmap, unsigned sub)
{
	bool allocated = bitmap >> sub & 1, zero = bitmap >> (32 + sub) & 1;
	uint64_t offset = word & 0x00fffffffffffe00;

	if ((word & 1) || (allocated && zero))
		return EXTENT_DAMAGED;
	if (!allocated)
		return EXTENT_ZERO;
	return offset != 0 && offset % 16384 == 0 && offset < 6 * 16384ull ? EXTENT_DATA
									   : EXTENT_DAMAGED;
}

/* At its first byte, the next one and its last one: the extent goes on while the kind is one. */
static void check_subcluster(
	const struct image *image, uint64_t word, uint64_t bitmap, unsigned sub)
{
	const uint64_t at[] = { sub * SUB, sub * SUB + 1, sub * SUB + SUB - 1 };
	enum extent_kind kind = sub_kind(word, bitmap, sub);
	unsigned last = sub;
	struct extent e;

	while (last + 1 < 32 && sub_kind(word, bitmap, last + 1) == kind)
		last++;
	for (size_t i = 0; i < COUNT(at); i++) {
		assert_int_equal(image_map(image, at[i], 16384 - at[i], MAP_PLACE, &e), 0);
		assert_int_equal(e.kind, kind);
		assert_int_equal(e.start, at[i]);
		assert_int_equal(e.end, (last + 1) * SUB);
		if (kind == EXTENT_DATA)
			assert_int_equal(e.offset, (word & 0xfffffffffe00) + at[i]);
		assert_int_equal(image_map(image, at[i], 16384 - at[i], MAP_KIND, &e), 0);
		assert_int_equal(e.kind, kind == EXTENT_ZERO ? EXTENT_ZERO : EXTENT_DATA);
		assert_int_equal(image_map(image, at[i], 1, MAP_PLACE, &e), 0);
		assert_int_equal(e.end, at[i] + 1);
	}
}

static void test_subclusters(void **state)
{
	static const uint64_t words[] = { 0, 4 * 16384, 5 * 16384 | QCOW2_COPIED, 4 * 16384 | 1,
		6 * 16384, 4 * 16384 + 512, QCOW2_COPIED };
	static const uint64_t bitmaps[] = { 0, ~0ull, 0xffffffff, 0xffffffff00000000, 1, 1ull << 31,
		1ull << 32, 1ull << 63, 2, 0x0000003c00000003, 0xaaaaaaaa55555555,
		0x5555555555555555, 0x80000001, 0x0000ffff00ff0000, 0x8000000080000000 };

	(void)state;
	for (size_t i = 0; i < COUNT(words) * COUNT(bitmaps); i++) {
		uint64_t word = words[i / COUNT(bitmaps)], bitmap = bitmaps[i % COUNT(bitmaps)];
		struct image *image = extended(word, bitmap, 0);

		for (unsigned sub = 0; sub < 32; sub++)
			check_subcluster(image, word, bitmap, sub);
		image_unref(image);
	}
}

/* The file ends in the middle of a subcluster: what is missing of that one is zeros. */
static void test_subcluster_cut(void **state)
{
	struct image *image = extended(5 * 16384, 0x7, 16384 - 2 * SUB - 100);
	uint8_t expected[16384] = { 0 };

	(void)state;
	assert_map(image, MAP_PLACE, { 2 * SUB + 100, EXTENT_DATA, 5 * 16384 },
		{ 16384, EXTENT_ZERO, 0 });
	pattern(expected, 3, 16384, 2 * SUB + 100);
	assert_int_equal(read_disk(image, 0, 16384, expected), 0);
	assert_int_equal(read_disk(image, 2 * SUB + 99, 2, expected + 2 * SUB + 99), 0);
	assert_int_equal(read_disk(image, 2 * SUB + 101, 9, expected + 2 * SUB + 101), 0);
	image_unref(image);
}

/* The samples that QEMU wrote: 2 KiB at 2048, and 6000 zeros in a cluster after 4 KiB of data. */
static void test_extended_sample(void **state)
{
	struct qcow2_image q;
	struct image *image;

	(void)state;
	qcow2_begin_with(&q, 16, 2 * 65536, true);
	qcow2_set_extended(&q, 0, 0x8000000000050000, 0x0000000000000002);
	qcow2_set_extended(&q, 65536, 0x8000000000060000, 0x0000003c00000003);
	while (q.length < 0x70000)
		qcow2_append(&q, 65536);
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_map(image, MAP_PLACE, { 2048, EXTENT_ZERO, 0 }, { 4096, EXTENT_DATA, 0x50800 },
		{ 65536, EXTENT_ZERO, 0 }, { 65536 + 4096, EXTENT_DATA, 0x60000 },
		{ 2 * 65536, EXTENT_ZERO, 0 });
	image_unref(image);
	qcow2_end(&q);
}

static void test_extended_compressed(void **state)
{
	static const uint64_t bitmaps[] = { 0, 1, 1ull << 32, 1ull << 63 };

	(void)state;
	for (size_t i = 0; i < COUNT(bitmaps); i++) {
		struct image *image = extended(QCOW2_COMPRESSED | 4 * 16384, bitmaps[i], 0);

		assert_map(image, MAP_PLACE,
			{ 16384, bitmaps[i] ? EXTENT_DAMAGED : EXTENT_PACKED, 0 });
		image_unref(image);
	}
}

/* ---- compressed clusters ---- */

/* The only cluster lies there and in so many sectors after that one. */
static void check_packed(uint32_t bits, uint64_t at, uint64_t extra)
{
	struct image *image = open_image(FILE_NAME);
	struct extent e;

	assert_int_equal(image_map(image, 0, 1ull << bits, MAP_PLACE, &e), 0);
	assert_int_equal(e.kind, EXTENT_PACKED);
	assert_int_equal(e.offset, at);
	assert_int_equal(e.packed_length, (extra + 1) * 512 - (at & 511));
	assert_int_equal(e.unit, 1ull << bits);
	assert_int_equal(e.need, 1ull << bits);
	assert_int_equal(e.skip, 0);
	assert_int_equal(e.codec, CODEC_DEFLATE);
	assert_int_equal(image_map(image, 100, 7, MAP_PLACE, &e), 0);
	assert_int_equal(e.skip, 100);
	assert_int_equal(e.start, 100);
	assert_int_equal(e.end, 107);
	image_unref(image);
}

/*
 * "Compressed Clusters Descriptor": with x = 70 - cluster_bits, bits 0 to x - 1 are the offset,
 * x to 61 the sectors after the one that it is in.
 */
static void test_packed_window(void **state)
{
	static const uint64_t inside[] = { 0, 1, 511, 512, 513, 4095 };
	static const uint64_t sectors[] = { 0, 1, 2, 7, 127, 8191 };

	(void)state;
	for (uint32_t bits = 9; bits <= 21; bits++) {
		uint64_t most = (1ull << (62 - (70 - bits))) - 1;
		struct qcow2_image q;
		uint64_t entry, data;

		qcow2_begin(&q, bits, 1ull << bits);
		entry = qcow2_entry(&q, 0);
		data = qcow2_append(&q, 8192);
		qcow2_write(&q, FILE_NAME);
		qcow2_end(&q);
		for (size_t i = 0; i < COUNT(inside) * COUNT(sectors); i++) {
			uint64_t extra = min_u64(sectors[i / COUNT(inside)], most);
			uint64_t at = data + inside[i % COUNT(inside)];
			uint8_t word[8];

			put_be64(word, QCOW2_COMPRESSED | extra << (70 - bits) | at);
			store_poke(FILE_NAME, entry, word, 8);
			check_packed(bits, at, extra);
		}
	}
}

static void test_packed_read(void **state)
{
	const uint64_t cluster = 65536;
	uint8_t *plain = malloc(3 * cluster), *packed = malloc(2 * cluster);
	struct qcow2_image q;
	struct image *image;
	uint64_t first, length;

	(void)state;
	assert_true(plain && packed);
	/* Bytes of few kinds, so that it packs to something of many sectors, and not many. */
	for (uint64_t i = 0; i < 3 * cluster; i++)
		plain[i] = (uint8_t)(mix(i) % 16);
	qcow2_begin(&q, 16, 3 * cluster - 100);
	qcow2_append(&q, 777);
	/* One right behind the other, and the last one is the end of the file. */
	first = qcow2_packed(&q, 0, plain);
	assert_int_equal(qcow2_packed(&q, 2 * cluster, plain + 2 * cluster) % cluster != 0, true);
	qcow2_packed(&q, cluster, plain + cluster);
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_int_equal(read_disk(image, 0, 3 * cluster - 100, plain), 0);
	assert_int_equal(read_disk(image, cluster - 1, 2, plain + cluster - 1), 0);
	assert_int_equal(read_disk(image, 2 * cluster + 7, 9, plain + 2 * cluster + 7), 0);
	image_unref(image);

	/* A sector too few is damage, in that cluster alone. */
	length = qcow2_deflate(plain, cluster, packed, 2 * cluster);
	assert_true(length > 2048);
	qcow2_set(&q, 0, qcow2_packed_word(16, first, length - 512));
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_int_equal(read_disk(image, 0, 1, plain), -EIO);
	assert_int_equal(read_disk(image, cluster, 5000, plain + cluster), 0);
	image_unref(image);
	/* Sectors too many are not. */
	qcow2_set(&q, 0, qcow2_packed_word(16, first, length + 5 * 512));
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_int_equal(read_disk(image, 0, 3 * cluster - 100, plain), 0);
	image_unref(image);
	qcow2_end(&q);
	free(plain);
	free(packed);
}

/* ---- external data file ---- */

/* A disk of four clusters of 4 KiB whose data file has so many bytes. */
static struct image *with_data_file(const uint64_t entries[4], uint64_t size, uint64_t data_length)
{
	static uint8_t bytes[5 * 4096];
	struct qcow2_image q;

	pattern(bytes, 9, 0, sizeof(bytes));
	store_write("x-data.raw", bytes, data_length);
	qcow2_begin(&q, 12, size);
	put_be64(q.file + 72, 1 << 2);
	qcow2_extension(&q, 0x44415441, "x-data.raw", 10);
	for (uint64_t i = 0; i * 4096 < size; i++)
		qcow2_set(&q, i * 4096, entries[i]);
	qcow2_write(&q, FILE_NAME);
	qcow2_end(&q);
	return open_image(FILE_NAME);
}

static void test_data_file(void **state)
{
	static const uint64_t good[] = { QCOW2_COPIED, QCOW2_COPIED | 4096, 8192,
		QCOW2_COPIED | 12288 };
	static const uint64_t bad[] = { 0, 8192, QCOW2_COMPRESSED | 8192, 12288 | QCOW2_ZERO };
	uint8_t bytes[16384];
	struct image *image = with_data_file(good, 16384, 16384);

	(void)state;
	pattern(bytes, 9, 0, sizeof(bytes));
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 2);
	assert_string_equal(image_file(image, 1)->path, "x-data.raw");
	assert_map(image, MAP_PLACE, { 16384, EXTENT_DATA, 0 });
	assert_int_equal(read_disk(image, 0, 16384, bytes), 0);
	image_unref(image);
	/* Nothing; not where the guest is; packed, which there is none of; zeros. */
	image = with_data_file(bad, 16384, 16384);
	assert_map(image, MAP_PLACE, { 4096, EXTENT_ZERO, 0 }, { 12288, EXTENT_DAMAGED, 0 },
		{ 16384, EXTENT_ZERO, 0 });
	image_unref(image);
	/* The data file may end in the last cluster, and with the disk. */
	image = with_data_file(good, 12289, 12289);
	assert_map(image, MAP_PLACE, { 12289, EXTENT_DATA, 0 });
	image_unref(image);
	image = with_data_file(good, 16384, 12289);
	assert_map(image, MAP_PLACE, { 12289, EXTENT_DATA, 0 }, { 16384, EXTENT_ZERO, 0 });
	image_unref(image);
	image = with_data_file(good, 16384, 12288);
	assert_map(image, MAP_PLACE, { 12288, EXTENT_DATA, 0 }, { 16384, EXTENT_DAMAGED, 0 });
	image_unref(image);
	image = with_data_file(good, 16384, 12287);
	assert_map(image, MAP_PLACE, { 8192, EXTENT_DATA, 0 }, { 16384, EXTENT_DAMAGED, 0 });
	image_unref(image);
}

static void test_data_file_names(void **state)
{
	static const struct {
		const char *name;
		int err;
		const char *reason;
	} cases[] = {
		{ "x-data.raw", 0, "" },
		{ "", -EINVAL, "0 bytes" },
		{ "x-none.raw", -ENOENT, "x-none.raw" },
		{ "y.raw", -EPERM, "family" },
		{ "/etc/passwd", -EPERM, "outside" },
		{ "x.qcow2", -ELOOP, "part of it already" },
	};

	(void)state;
	store_text("x-data.raw", "data");
	store_text("y.raw", "data");
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct qcow2_image q;

		qcow2_begin(&q, 12, 4096);
		put_be64(q.file + 72, 1 << 2);
		put_be64(q.file + 88, 1 << 1);
		qcow2_extension(&q, 0x44415441, cases[i].name, (uint32_t)strlen(cases[i].name));
		qcow2_write(&q, FILE_NAME);
		qcow2_end(&q);
		if (cases[i].err)
			assert_refused(FILE_NAME, cases[i].err, cases[i].reason);
		else
			image_unref(open_image(FILE_NAME));
	}
}

static void test_standalone(void **state)
{
	struct qcow2_image q;
	struct image *image;

	(void)state;
	qcow2_begin(&q, 16, MIB);
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_true(image_is_standalone(image));
	image_unref(image);
	store_text("x-base.raw", "base");
	qcow2_backing(&q, "x-base.raw", "raw");
	qcow2_write(&q, FILE_NAME);
	image = open_image(FILE_NAME);
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 2);
	image_unref(image);
	qcow2_end(&q);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_entries),
		store_test(test_cut_cluster),
		store_test(test_cut_cluster_elsewhere),
		store_test(test_long_runs),
		store_test(test_subclusters),
		store_test(test_subcluster_cut),
		store_test(test_extended_sample),
		store_test(test_extended_compressed),
		store_test(test_packed_window),
		store_test(test_packed_read),
		store_test(test_data_file),
		store_test(test_data_file_names),
		store_test(test_standalone),
	};

	return run_unit_tests(tests);
}
