/* SPDX-License-Identifier: Apache-2.0 */
/* The qcow2 source: what of a header, its extensions and its L1 table is taken, what refused. */
#include "qcow2_image.h"

#define MAX32     0xffffffffull
#define FILE_NAME "x.qcow2"

/* A number of so many bytes at an offset of the header, and what opening the file says then. */
struct field {
	uint64_t offset;
	unsigned width;
	uint64_t value;
	int err;
	const char *reason;
};

static void poke(uint8_t *bytes, const struct field *f)
{
	for (unsigned i = 0; i < f->width; i++)
		bytes[f->offset + i] = (uint8_t)(f->value >> 8 * (f->width - 1 - i));
}

static void assert_opens(const char *name, uint64_t size)
{
	struct image *image = open_image(name);

	assert_int_equal(image_size(image), size);
	image_unref(image);
}

static void check_outcome(const char *name, int err, const char *reason)
{
	if (err == 0)
		image_unref(open_image(name));
	else
		assert_refused(name, err, reason);
}

/* Each field alone is changed in an image that is otherwise good. */
static void check_fields(struct qcow2_image *q, const struct field *fields, size_t count)
{
	uint8_t *good = malloc(q->length);

	assert_non_null(good);
	memcpy(good, q->file, q->length);
	qcow2_write(q, FILE_NAME);
	assert_opens(FILE_NAME, q->size);
	for (size_t i = 0; i < count; i++) {
		memcpy(q->file, good, q->length);
		poke(q->file, &fields[i]);
		qcow2_write(q, FILE_NAME);
		check_outcome(FILE_NAME, fields[i].err, fields[i].reason);
	}
	memcpy(q->file, good, q->length);
	free(good);
}

static void test_header_fields(void **state)
{
	static const struct field fields[] = {
		{ 0, 4, 0x514649fa, -EINVAL, "does not begin like one" },
		{ 4, 4, 0, -EINVAL, "unsupported version" },
		{ 4, 4, 1, -EINVAL, "but it is qcow" },
		{ 4, 4, 2, 0, "" },
		{ 4, 4, 4, -ENOTSUP, "version 4" },
		{ 4, 4, MAX32, -ENOTSUP, "version" },
		{ 20, 4, 0, -EINVAL, "cluster_bits 0" },
		{ 20, 4, 8, -EINVAL, "cluster_bits 8" },
		{ 20, 4, 22, -EINVAL, "cluster_bits 22" },
		{ 20, 4, 63, -EINVAL, "cluster_bits" },
		{ 20, 4, 64, -EINVAL, "cluster_bits" },
		{ 20, 4, MAX32, -EINVAL, "cluster_bits" },
		{ 24, 8, 0, 0, "" },
		{ 24, 8, 1, 0, "" },
		{ 24, 8, 512 * MIB, 0, "" },
		{ 24, 8, 512 * MIB + 1, -EINVAL, "L1 table is too small" },
		{ 24, 8, INT64_MAX, -EINVAL, "L1 table is too small" },
		{ 24, 8, 1ull << 63, -EINVAL, "beyond 2^63" },
		{ 24, 8, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 32, 4, 1, -ENOTSUP, "encrypted with AES" },
		{ 32, 4, 2, -ENOTSUP, "encrypted with LUKS" },
		{ 32, 4, 3, -ENOTSUP, "encrypted" },
		{ 32, 4, MAX32, -ENOTSUP, "encrypted" },
		{ 36, 4, 0, -EINVAL, "L1 table is too small" },
		{ 36, 4, 2, 0, "" },
		{ 36, 4, 4194304, 0, "" }, /* 32 MiB; only what is needed is looked at */
		{ 36, 4, 4194305, -EINVAL, "larger than 32 MiB" },
		{ 36, 4, MAX32, -EINVAL, "larger than 32 MiB" },
		{ 40, 8, 65536 + 8, -EINVAL, "L1 table lies outside" },
		{ 40, 8, 65536 + 32768, -EINVAL, "L1 table lies outside" },
		{ 40, 8, 3 * 65536, -EINVAL, "L1 table lies outside" },
		{ 40, 8, 1ull << 63, -EINVAL, "L1 table lies outside" },
		{ 40, 8, ~0xffffull, -EINVAL, "L1 table lies outside" },
		{ 40, 8, 65536, 0, "" },
		{ 40, 8, 0, -EINVAL, "L2 table lies outside" }, /* the header as a table */
		{ 48, 8, 65536 + 512, -EINVAL, "refcount table" },
		{ 48, 8, 1, -EINVAL, "refcount table" },
		{ 56, 4, 0, -EINVAL, "refcount table" },
		{ 56, 4, MAX32, 0, "" },
		{ 60, 4, 3, 0, "" }, /* snapshots: the active state is shown */
		{ 64, 8, 65536, 0, "" },
		{ 80, 8, UINT64_MAX, 0, "" }, /* compatible features */
		{ 88, 8, 1, 0, "" },
		{ 88, 8, 2, -EINVAL, "raw data bit" },
		{ 88, 8, ~2ull, 0, "" },
		{ 96, 4, 0, 0, "" },
		{ 96, 4, 6, 0, "" },
		{ 96, 4, 7, -EINVAL, "refcount order" },
		{ 96, 4, MAX32, -EINVAL, "refcount order" },
		{ 100, 4, 0, -EINVAL, "header length 0" },
		{ 100, 4, 72, -EINVAL, "header length 72" },
		{ 100, 4, 103, -EINVAL, "header length 103" },
		{ 100, 4, 105, 0, "" },
		{ 100, 4, 112, 0, "" },
		{ 100, 4, 4096, 0, "" },
		{ 100, 4, 4097, 0, "" },
		{ 100, 4, 65536, 0, "" },
		{ 100, 4, 65537, -EINVAL, "header length 65537" },
		{ 100, 4, MAX32, -EINVAL, "header length" },
	};
	struct qcow2_image q;

	(void)state;
	qcow2_begin(&q, 16, MIB);
	check_fields(&q, fields, COUNT(fields));
	qcow2_end(&q);
}

static void test_incompatible_features(void **state)
{
	struct qcow2_image q;

	(void)state;
	qcow2_begin(&q, 16, MIB);
	for (unsigned bit = 0; bit < 64; bit++) {
		char reason[64];

		put_be64(q.file + 72, 1ull << bit);
		qcow2_write(&q, FILE_NAME);
		snprintf(reason, sizeof(reason), "unknown here (bit %u)", bit);
		if (bit <= 1 || bit == 4) /* dirty, corrupt, extended L2 */
			assert_opens(FILE_NAME, MIB);
		else if (bit == 2)
			assert_refused(FILE_NAME, -EINVAL, "name of its data file");
		else if (bit == 3)
			assert_refused(FILE_NAME, -EINVAL, "compression type contradicts");
		else
			assert_refused(FILE_NAME, -ENOTSUP, reason);
	}
	/* What version 2 has there is not for it. */
	put_be32(q.file + 4, 2);
	memset(q.file + 72, 0, 8);
	qcow2_write(&q, FILE_NAME);
	assert_opens(FILE_NAME, MIB);
	qcow2_end(&q);
}

static void test_compression_type(void **state)
{
	static const struct {
		uint32_t header_length;
		uint8_t type;
		bool bit;
		int err;
		const char *reason;
	} cases[] = {
		{ 104, 0, false, 0, "" }, { 104, 0, true, -EINVAL, "contradicts" },
		{ 112, 0, false, 0, "" }, { 112, 0, true, -EINVAL, "contradicts" },
		{ 112, 1, false, -EINVAL, "contradicts" },
		{ 105, 1, false, -EINVAL, "contradicts" },
		{ 112, 2, true, -ENOTSUP, "compression type 2" },
		{ 112, 2, false, -ENOTSUP, "compression type 2" },
		{ 112, 255, true, -ENOTSUP, "compression type 255" },
		{ 112, 1, true, 1, "zstd" }, /* 1: as the build can */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		int err = cases[i].err;
		struct qcow2_image q;

		if (err == 1)
			err = codec_supported(CODEC_ZSTD) ? 0 : -ENOTSUP;
		qcow2_begin(&q, 16, MIB);
		put_be64(q.file + 72, cases[i].bit ? 8 : 0);
		put_be32(q.file + 100, cases[i].header_length);
		q.file[104] = cases[i].type;
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, err, cases[i].reason);
		qcow2_end(&q);
	}
}

static void test_cluster_bits(void **state)
{
	(void)state;
	for (uint32_t bits = 9; bits <= 21; bits++) {
		uint64_t span = (1ull << bits) * ((1ull << bits) / 8);
		struct qcow2_image q;

		/* The most that one L1 entry maps, and a byte more. */
		qcow2_begin(&q, bits, span);
		qcow2_write(&q, FILE_NAME);
		assert_opens(FILE_NAME, span);
		put_be64(q.file + 24, span + 1);
		qcow2_write(&q, FILE_NAME);
		assert_refused(FILE_NAME, -EINVAL, "L1 table is too small");
		/* Extended entries: clusters of 16 KiB at least, and half the span. */
		put_be64(q.file + 72, 1 << 4);
		put_be64(q.file + 24, span / 2);
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, bits < 14 ? -EINVAL : 0, "extended L2");
		if (bits >= 14) {
			put_be64(q.file + 24, span / 2 + 1);
			qcow2_write(&q, FILE_NAME);
			assert_refused(FILE_NAME, -EINVAL, "L1 table is too small");
		}
		qcow2_end(&q);
	}
}

static void test_short_file(void **state)
{
	struct qcow2_image q;

	(void)state;
	qcow2_begin(&q, 16, 0);
	put_be32(q.file + 36, 0);
	put_be64(q.file + 40, 0);
	for (size_t length = 0; length <= 112; length++) {
		store_write(FILE_NAME, q.file, length);
		if (length < 8)
			assert_refused(FILE_NAME, -EINVAL, "should be qcow2");
		else if (length < 72)
			assert_refused(FILE_NAME, -EINVAL, "cut short");
		else if (length < 104)
			assert_refused(FILE_NAME, -EINVAL, "header length");
		else
			assert_opens(FILE_NAME, 0);
	}
	/* Version 2 has a header of 72 bytes. */
	put_be32(q.file + 4, 2);
	store_write(FILE_NAME, q.file, 72);
	assert_opens(FILE_NAME, 0);
	store_write(FILE_NAME, q.file, 71);
	assert_refused(FILE_NAME, -EINVAL, "cut short");
	qcow2_end(&q);
}

/* ---- the name of the backing file ---- */

/* A name of so many bytes that means "x-base.raw". */
static void long_name(uint8_t *out, size_t length)
{
	static const char name[] = "x-base.raw";
	size_t dots = length - (sizeof(name) - 1);

	for (size_t i = 0; i < dots; i++)
		out[i] = i % 2 ? '/' : '.';
	if (dots % 2)
		out[dots - 1] = '/';
	memcpy(out + dots, name, sizeof(name) - 1);
}

static void test_backing_name(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t length;
		int err;
	} cases[] = {
		{ 104, 10, 0 },
		{ 103, 10, -EINVAL },
		{ 8, 10, -EINVAL },
		{ 112, 0, -EINVAL },
		{ 112, 1022, 0 },
		{ 112, 1023, 0 },
		{ 112, 1024, -EINVAL },
		{ 112, MAX32, -EINVAL },
		/* Across and beyond the first page of the cluster. */
		{ 4096 - 10, 10, 0 },
		{ 4096 - 9, 10, 0 },
		{ 4096, 10, 0 },
		{ 30000, 1023, 0 },
		/* The end of the cluster. */
		{ 65536 - 10, 10, 0 },
		{ 65536 - 9, 10, -EINVAL },
		{ 65536, 10, -EINVAL },
		{ 65535, 1, -EPERM }, /* a name of one byte, which is not of the family */
		{ 1ull << 32, 10, -EINVAL },
		{ UINT64_MAX, 10, -EINVAL },
		{ UINT64_MAX - 9, 10, -EINVAL },
	};

	(void)state;
	store_text("x-base.raw", "base");
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct qcow2_image q;

		qcow2_begin(&q, 16, MIB);
		put_be64(q.file + 8, cases[i].offset);
		put_be32(q.file + 16, cases[i].length);
		if (cases[i].err == 0)
			long_name(q.file + cases[i].offset, cases[i].length);
		if (cases[i].err == -EPERM)
			q.file[cases[i].offset] = 'x';
		/* The format, where the name leaves room for an extension. */
		if (cases[i].offset >= 128 && cases[i].offset < 1ull << 32)
			qcow2_extension(&q, 0xe2792aca, "raw", 3);
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, cases[i].err,
			cases[i].err == -EPERM ? "family" : "name of its backing file");
		qcow2_end(&q);
	}
}

static void test_backing_format(void **state)
{
	static const struct {
		const char *name, *format;
		int err;
		const char *reason;
	} cases[] = {
		{ "x-base.raw", "raw", 0, "" },
		{ "x-base.raw", NULL, 0, "" },
		{ "x-base.raw", "", 0, "" },
		{ "x-base.raw", "qcow2", -EINVAL, "should be qcow2" },
		{ "x-base.raw", "vmdk", -EINVAL, "should be vmdk" },
		{ "x-base.raw", "RAW", -ENOTSUP, "'RAW'" },
		{ "x-base.raw", "nbd", -ENOTSUP, "'nbd'" },
		{ "x-base.raw", "fifteen-letters", -ENOTSUP, "'fifteen-letters'" },
		{ "x-base.raw", "sixteen--letters", -EINVAL, "format is too long" },
		{ "x-base.RAW", NULL, 0, "" },
		{ "x-base.img", NULL, -EINVAL, "does not record the format" },
		{ "x-base.qcow2", NULL, -EINVAL, "does not record the format" },
		{ "x-base.qcow2", "qcow2", 0, "" },
		{ "x-base.qcow2", "raw", 0, "" }, /* recorded, so a name says nothing */
		{ "x-none.raw", "raw", -ENOENT, "x-none.raw" },
		{ "y.raw", "raw", -EPERM, "family" },
		{ "../x-base.raw", "raw", -EPERM, "'..'" },
		{ "json:{}", "raw", -EPERM, "family" },
		{ "x.qcow2", "qcow2", -ELOOP, "comes back" },
	};

	(void)state;
	store_text("x-base.raw", "base");
	store_text("x-base.RAW", "base");
	store_text("x-base.img", "base");
	store_text("y.raw", "base");
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct qcow2_image q, base;

		qcow2_begin(&base, 12, MIB);
		qcow2_write(&base, "x-base.qcow2");
		qcow2_end(&base);
		qcow2_begin(&q, 12, MIB);
		qcow2_backing(&q, cases[i].name, cases[i].format);
		qcow2_write(&q, FILE_NAME);
		qcow2_end(&q);
		check_outcome(FILE_NAME, cases[i].err, cases[i].reason);
	}
}

/* ---- header extensions ---- */

/* Which format the extensions of the header record: "raw" opens, "nbd" is refused by name. */
static void assert_format_seen(struct qcow2_image *q, const char *format)
{
	qcow2_write(q, FILE_NAME);
	if (strcmp(format, "raw") == 0)
		assert_opens(FILE_NAME, MIB);
	else
		assert_refused(FILE_NAME, -ENOTSUP, format);
}

static void test_extensions_skipped(void **state)
{
	static const uint32_t unknown[] = { 1, 0x6803f857, 0x23852875, MAX32, 0x12345678 };
	static uint8_t junk[5000];
	struct qcow2_image q;

	(void)state;
	store_text("x-base.raw", "base");
	memset(junk, 0xee, sizeof(junk));
	for (uint32_t length = 0; length < 20; length++) {
		qcow2_begin(&q, 16, MIB);
		for (size_t i = 0; i < COUNT(unknown); i++)
			qcow2_extension(&q, unknown[i], junk, length);
		qcow2_backing(&q, "x-base.raw", "nbd");
		assert_format_seen(&q, "nbd");
		qcow2_end(&q);
	}
	/* One that takes more than the first page of the cluster, then the one that counts. */
	for (uint32_t length = 3950; length < 4000; length++) {
		qcow2_begin(&q, 16, MIB);
		qcow2_extension(&q, 1, junk, length);
		qcow2_backing(&q, "x-base.raw", "nbd");
		assert_format_seen(&q, "nbd");
		qcow2_end(&q);
	}
	qcow2_begin(&q, 16, MIB);
	qcow2_extension(&q, 1, junk, sizeof(junk));
	qcow2_backing(&q, "x-base.raw", "nbd");
	assert_format_seen(&q, "nbd");
	qcow2_end(&q);
	/* The last of two counts, and none after the end. */
	qcow2_begin(&q, 16, MIB);
	qcow2_extension(&q, 0xe2792aca, "nbd", 3);
	qcow2_backing(&q, "x-base.raw", "raw");
	assert_format_seen(&q, "raw");
	qcow2_end(&q);
	qcow2_begin(&q, 16, MIB);
	qcow2_extension(&q, 0xe2792aca, "raw", 3);
	qcow2_extension(&q, 0, "", 0);
	qcow2_backing(&q, "x-base.raw", "nbd");
	assert_format_seen(&q, "raw");
	qcow2_end(&q);
}

static void test_extensions_cut(void **state)
{
	struct qcow2_image q;

	(void)state;
	/* Up to the end of the cluster, to the byte. 512 - 104 - 8 = 400. */
	for (uint32_t length = 380; length < 420; length++) {
		qcow2_begin(&q, 9, 512);
		put_be32(q.file + 104, 7);
		put_be32(q.file + 108, length);
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, length <= 400 ? 0 : -EINVAL, "0x00000007) is cut short");
		put_be32(q.file + 108, MAX32 - length);
		qcow2_write(&q, FILE_NAME);
		assert_refused(FILE_NAME, -EINVAL, "is cut short");
		qcow2_end(&q);
	}
	/* Up to the name of the backing file. */
	store_text("x-base.raw", "base");
	for (uint32_t length = 80; length < 120; length++) {
		qcow2_begin(&q, 9, 512);
		put_be32(q.file + 104, 7);
		put_be32(q.file + 108, length);
		put_be64(q.file + 8, 212);
		put_be32(q.file + 16, 10);
		memcpy(q.file + 212, "x-base.raw", 10);
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, length <= 100 ? 0 : -EINVAL, "is cut short");
		qcow2_end(&q);
	}
	/* A file that ends in its header cluster. */
	qcow2_begin(&q, 16, 0);
	put_be32(q.file + 36, 0);
	put_be64(q.file + 40, 0);
	put_be32(q.file + 104, 7);
	put_be32(q.file + 108, 100);
	store_write(FILE_NAME, q.file, 212);
	assert_opens(FILE_NAME, 0);
	store_write(FILE_NAME, q.file, 211);
	assert_refused(FILE_NAME, -EINVAL, "is cut short");
	qcow2_end(&q);
	/* A header length that is no multiple of 8: what follows is where it says. */
	qcow2_begin(&q, 9, 512);
	put_be32(q.file + 100, 105);
	put_be32(q.file + 105, 7);
	put_be32(q.file + 109, 600);
	qcow2_write(&q, FILE_NAME);
	assert_refused(FILE_NAME, -EINVAL, "0x00000007) is cut short");
	qcow2_end(&q);
}

/* ---- the L1 table ---- */

static void test_l1_entries(void **state)
{
	/* The file has clusters 0 header, 1 refcounts, 2 L1, 3 and 4. */
	static const struct {
		uint64_t entry;
		int err;
	} cases[] = {
		{ 0, 0 },
		{ 1ull << 63, 0 }, /* copied, but none */
		{ 3 * 512, 0 },
		{ 3 * 512 | 1ull << 63, 0 },
		{ 4 * 512, 0 },
		{ 3 * 512 | 0x1ff, 0 }, /* reserved bits do not count */
		{ 3 * 512 | 0x7f00000000000000, 0 },
		{ 0x1ff, 0 },
		{ 5 * 512, -EINVAL },
		{ 1ull << 55, -EINVAL },
		{ 0x00fffffffffffe00, -EINVAL },
	};
	struct qcow2_image q;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		qcow2_begin(&q, 9, 512);
		qcow2_append(&q, 1024);
		put_be64(q.file + q.l1, cases[i].entry);
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, cases[i].err, "L2 table lies outside");
		/* The same past the disk does not matter. */
		put_be64(q.file + q.l1, 0);
		put_be64(q.file + q.l1 + 8, cases[i].entry);
		qcow2_write(&q, FILE_NAME);
		assert_opens(FILE_NAME, 512);
		qcow2_end(&q);
	}
	/* Clusters of 1 KiB: not aligned, or not a whole one before the end of the file. */
	qcow2_begin(&q, 10, 1024);
	qcow2_append(&q, 1024);
	put_be64(q.file + q.l1, 3 * 1024 + 512);
	qcow2_write(&q, FILE_NAME);
	assert_refused(FILE_NAME, -EINVAL, "L2 table lies outside");
	put_be64(q.file + q.l1, 3 * 1024);
	qcow2_write(&q, FILE_NAME);
	assert_opens(FILE_NAME, 1024);
	store_write(FILE_NAME, q.file, q.length - 1);
	assert_refused(FILE_NAME, -EINVAL, "L2 table lies outside");
	qcow2_end(&q);
}

/* The last entry of a table of several pages is checked like the first. */
static void test_l1_last_entry(void **state)
{
	const uint64_t entries = 5000;
	struct qcow2_image q;

	(void)state;
	qcow2_begin(&q, 9, entries * 32768);
	assert_int_equal(q.l1_entries, entries);
	qcow2_write(&q, FILE_NAME);
	assert_opens(FILE_NAME, entries * 32768);
	for (uint64_t index = entries - 3; index < entries; index++) {
		put_be64(q.file + q.l1 + index * 8, 1ull << 40);
		qcow2_write(&q, FILE_NAME);
		assert_refused(FILE_NAME, -EINVAL, "L2 table lies outside");
		put_be64(q.file + q.l1 + index * 8, 0);
	}
	/* An L1 table that the file cuts short. */
	store_write(FILE_NAME, q.file, q.l1 + entries * 8);
	assert_opens(FILE_NAME, entries * 32768);
	store_write(FILE_NAME, q.file, q.l1 + entries * 8 - 1);
	assert_refused(FILE_NAME, -EINVAL, "L1 table lies outside");
	qcow2_end(&q);
}

/* A tiny file must not map an endless disk by one table that is used over and over. */
static void test_shared_tables(void **state)
{
	struct qcow2_image q;
	uint64_t clusters;

	(void)state;
	qcow2_begin(&q, 9, 1000 * 32768);
	qcow2_append(&q, 512);
	clusters = q.length / 512;
	for (uint64_t i = 0; i < 1000; i++) {
		put_be64(q.file + q.l1 + i * 8, q.length - 512);
		if (i + 1 != clusters && i != clusters)
			continue;
		qcow2_write(&q, FILE_NAME);
		check_outcome(FILE_NAME, i < clusters ? 0 : -EINVAL, "more L2 tables");
	}
	qcow2_write(&q, FILE_NAME);
	assert_refused(FILE_NAME, -EINVAL, "more L2 tables");
	qcow2_end(&q);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_header_fields),
		store_test(test_incompatible_features),
		store_test(test_compression_type),
		store_test(test_cluster_bits),
		store_test(test_short_file),
		store_test(test_backing_name),
		store_test(test_backing_format),
		store_test(test_extensions_skipped),
		store_test(test_extensions_cut),
		store_test(test_l1_entries),
		store_test(test_l1_last_entry),
		store_test(test_shared_tables),
	};

	return run_unit_tests(tests);
}
