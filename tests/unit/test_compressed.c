/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed files (packed.c) and their indexes (compression/NAME.c): any place, in any order. */
#include "support.h"

#include <pthread.h>
#include <time.h>
#include <zlib.h>

#include "config.h"
#include "fs/datastore/keeper.h"
#include "imgfs/compression.h"
#include "imgfs/names.h"

#if HAVE_ZSTD
#include <zstd.h>
#endif
#if HAVE_XZ
#include <lzma.h>
#endif

#define SEED 11

static int open_path(const char *path, struct file **file, struct why *why)
{
	*file = NULL;
	why->text[0] = '\0';
	return datastore_open_file(&store.datastore, path, file, why);
}

static struct file *must_open(const char *path)
{
	struct why why;
	struct file *file;
	int r = open_path(path, &file, &why);

	if (r < 0)
		print_message("# %s: %s\n", path, why.text);
	assert_int_equal(r, 0);
	return file;
}

static void must_refuse(const char *path, int err, const char *reason)
{
	struct why why;
	struct file *file;
	int r = open_path(path, &file, &why);

	if (r != err || !strstr(why.text, reason))
		print_message("# %s: %d \"%s\" %s\n", path, r, why.text, reason);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
	assert_null(file);
}

/* ---- content: a third of it cannot be compressed, and it says where it is ---- */

static uint8_t *content(size_t length)
{
	uint8_t *bytes = malloc(length + 1);

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i += 64) {
		size_t n = min_u64(64, length - i);

		if (i / 65536 % 3 == 0)
			pattern(bytes + i, SEED, i, n);
		else
			memset(bytes + i, (int)(mix(i / 64) % 7), n);
	}
	return bytes;
}

/* Reads pieces of all sizes at all places, then all of it in order. */
static void assert_content(const struct file *file, const uint8_t *expected, size_t length)
{
	uint8_t *bytes = malloc(length + 1);
	uint64_t random = length;

	assert_int_equal(file->size, length);
	for (int i = 0; i < 200 && length > 0; i++) {
		uint64_t at = random_below(&random, length);
		uint64_t n = 1 + random_below(&random,
					 i % 10 == 0 ? length - at : min_u64(5000, length - at));

		assert_int_equal(file_read(file, bytes, n, at), 0);
		assert_bytes(bytes, expected + at, n);
	}
	for (uint64_t at = 0; at < length; at += 100000) {
		uint64_t n = min_u64(100000, length - at);

		assert_int_equal(file_read(file, bytes, n, at), 0);
		assert_bytes(bytes, expected + at, n);
	}
	assert_int_equal(file_read(file, bytes, 1, length), -ERANGE);
	assert_int_equal(file_read(file, bytes, 0, length), 0);
	free(bytes);
}

/* ---- gzip ---- */

struct packer {
	uint8_t *bytes;
	size_t length, room;
};

static void append(struct packer *p, const void *bytes, size_t length)
{
	if (p->length + length > p->room) {
		p->room = 2 * (p->length + length);
		p->bytes = realloc(p->bytes, p->room);
		assert_non_null(p->bytes);
	}
	memcpy(p->bytes + p->length, bytes, length);
	p->length += length;
}

static void append_member(struct packer *p, const uint8_t *bytes, size_t length, int level)
{
	z_stream z = { 0 };
	size_t room;
	uint8_t *out;

	assert_int_equal(
		deflateInit2(&z, level, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	room = deflateBound(&z, length) + 64;
	out = malloc(room);
	z.next_in = (Bytef *)(uintptr_t)bytes;
	z.avail_in = (uInt)length;
	z.next_out = out;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	append(p, out, room - z.avail_out);
	deflateEnd(&z);
	free(out);
}

static void write_packer(const char *name, struct packer *p)
{
	store_write(name, p->bytes, p->length);
	free(p->bytes);
	*p = (struct packer) { 0 };
}

static void write_gzip(const char *name, const uint8_t *bytes, size_t length, int level)
{
	struct packer p = { 0 };

	append_member(&p, bytes, length, level);
	write_packer(name, &p);
}

static void test_gzip(void **state)
{
	static const size_t sizes[] = { 0, 1, 255 * KIB, 256 * KIB, 256 * KIB + 1, 5 * MIB + 3 };

	(void)state;
	store.datastore.scan_gzip = true;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		uint8_t *bytes = content(sizes[i]);

		for (int level = 0; level <= 9; level += 3) {
			struct file *file;

			write_gzip("a.raw.gz", bytes, sizes[i], level);
			file = must_open("a.raw.gz");
			assert_content(file, bytes, sizes[i]);
			assert_int_equal(file_descriptor(file), -1);
			assert_int_equal(file->blocks, div_ceil(sizes[i], 512));
			file_unref(file);
		}
		free(bytes);
	}
}

static void test_gzip_members(void **state)
{
	uint8_t *bytes = content(6 * MIB);
	struct packer p = { 0 };
	struct file *file;

	(void)state;
	store.datastore.scan_gzip = true;
	append_member(&p, bytes, 0, 1);
	append_member(&p, bytes, 3 * MIB + 7, 6);
	append_member(&p, bytes, 0, 1);
	append_member(&p, bytes + 3 * MIB + 7, 100, 0);
	append_member(&p, bytes + 3 * MIB + 107, 3 * MIB - 107, 1);
	append_member(&p, bytes, 0, 9);
	append(&p, (uint8_t[5000]) { 0 }, 5000);
	write_packer("a.raw.gz", &p);
	file = must_open("a.raw.gz");
	assert_content(file, bytes, 6 * MIB);
	file_unref(file);
	free(bytes);
}

/* Damage is found by the pass that makes the index. */
static void test_gzip_damaged(void **state)
{
	uint8_t *bytes = content(2 * MIB);
	struct packer p = { 0 }, q;
	size_t length;

	(void)state;
	store.datastore.scan_gzip = true;
	append_member(&p, bytes, 2 * MIB, 6);
	length = p.length;
	for (size_t at = 20; at < length; at += length / 7) {
		store_write("a.raw.gz", p.bytes, length);
		store_poke("a.raw.gz", at, (uint8_t[]) { p.bytes[at] ^ 0x10 }, 1);
		must_refuse("a.raw.gz", -EINVAL, "damaged");
	}
	for (size_t cut = 1; cut < length; cut = cut * 3) {
		store_write("a.raw.gz", p.bytes, length - cut);
		must_refuse("a.raw.gz", -EINVAL, "");
	}
	q = (struct packer) { 0 };
	append(&q, p.bytes, length);
	append(&q, "garbage", 7);
	write_packer("a.raw.gz", &q);
	must_refuse("a.raw.gz", -EINVAL, "damaged");
	store_text("a.raw.gz", "this is not compressed");
	must_refuse("a.raw.gz", -EINVAL, "should be compressed with gzip");
	store_text("a.raw.gz", "");
	must_refuse("a.raw.gz", -EINVAL, "should be compressed with gzip");
	free(p.bytes);
	free(bytes);
}

static void test_gzip_needs_leave(void **state)
{
	uint8_t *bytes = content(1000);

	(void)state;
	write_gzip("a.raw.gz", bytes, 1000, 6);
	must_refuse("a.raw.gz", -ENOTSUP, "-o scan_gzip");
	free(bytes);
}

static bool yes(void)
{
	return true;
}

/* Nobody waits for it any more. */
static void test_gzip_interrupted(void **state)
{
	uint8_t *bytes = content(80 * MIB);
	struct file *file;

	(void)state;
	store.datastore.scan_gzip = true;
	write_gzip("a.raw.gz", bytes, 80 * MIB, 1);
	store.datastore.interrupted = yes;
	must_refuse("a.raw.gz", -EINTR, "");
	store.datastore.interrupted = NULL;
	file = must_open("a.raw.gz");
	assert_int_equal(file->size, 80 * MIB);
	file_unref(file);
	free(bytes);
}

static void let_settle(void)
{
	struct timespec pause = { .tv_nsec = 30 * 1000000 };

	nanosleep(&pause, NULL);
}

static uint64_t bytes_read(void)
{
	char text[512] = "";
	FILE *f = fopen("/proc/self/io", "r");
	unsigned long long count = 0;

	assert_non_null(f);
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	assert_int_equal(sscanf(text, "rchar: %llu", &count), 1);
	fclose(f);
	return count;
}

/*
 * Readers in order read the file once, also two that are a little out of order; and the index is
 * there when the file is opened again.
 */
static void test_gzip_in_order(void **state)
{
	size_t length = 24 * MIB, stored;
	uint8_t *bytes = content(length), *buffer = malloc(MIB);
	struct stat st;
	struct file *file;
	uint64_t before;

	(void)state;
	store.datastore.scan_gzip = true;
	write_gzip("a.raw.gz", bytes, length, 1);
	assert_int_equal(stat(store_path("a.raw.gz"), &st), 0);
	stored = (size_t)st.st_size;
	let_settle();
	before = bytes_read();
	file_unref(must_open("a.raw.gz"));
	assert_true(bytes_read() - before >= stored);

	before = bytes_read();
	file = must_open("a.raw.gz");
	assert_true(bytes_read() - before < 2000);
	before = bytes_read();
	for (uint64_t at = 0; at < length; at += 2 * 256 * KIB) {
		assert_int_equal(file_read(file, buffer, 256 * KIB, at + 256 * KIB), 0);
		assert_bytes(buffer, bytes + at + 256 * KIB, 256 * KIB);
		assert_int_equal(file_read(file, buffer, 256 * KIB, at), 0);
		assert_bytes(buffer, bytes + at, 256 * KIB);
	}
	assert_true(bytes_read() - before < stored + stored / 10);
	file_unref(file);
	free(bytes);
	free(buffer);
}

/* An index does not become larger than it may, whatever is in the file. */
static void test_gzip_memory(void **state)
{
	size_t length = 16 * MIB;
	uint8_t *bytes = malloc(length);
	struct packed packed = { .datastore = &store.datastore };
	const struct compression *gzip = compressions[0];
	struct packer p = { 0 };
	struct file *file;
	struct why why;

	(void)state;
	store.datastore.scan_gzip = true;
	assert_string_equal(gzip->name, "gzip");
	pattern(bytes, SEED, 0, length);
	for (int i = 0; i < 40; i++)
		append_member(&p, bytes, length, 1);
	write_packer("a.bin", &p);
	assert_int_equal(datastore_open_file(&store.datastore, "a.bin", &file, &why), 0);
	assert_int_equal(gzip->open(file, &packed, &why), 0);
	assert_int_equal(packed.size, 40 * length);
	print_message("# index of %zu bytes\n", packed.memory);
	assert_true(packed.memory > 100 * KIB);
	assert_true(packed.memory <= PACKED_INDEX_MAX);
	gzip->close(&packed);
	packed_discharge(&packed, packed.memory);
	file_unref(file);
	free(bytes);
}

struct reader {
	pthread_t thread;
	const struct file *file;
	const uint8_t *expected;
	uint64_t seed;
	bool good;
};

static void *read_here_and_there(void *argument)
{
	struct reader *r = argument;
	uint8_t *bytes = malloc(300 * KIB);

	r->good = true;
	for (int i = 0; i < 100; i++) {
		uint64_t n = 1 + random_below(&r->seed, 300 * KIB - 1);
		uint64_t at = random_below(&r->seed, r->file->size - n);

		if (file_read(r->file, bytes, n, at) < 0 || memcmp(bytes, r->expected + at, n) != 0)
			r->good = false;
	}
	free(bytes);
	return NULL;
}

static void read_from_threads(const char *name, const uint8_t *expected)
{
	struct reader readers[6];
	struct file *file = must_open(name);

	for (size_t i = 0; i < COUNT(readers); i++) {
		readers[i] = (struct reader) { .file = file, .expected = expected, .seed = i };
		assert_int_equal(
			pthread_create(&readers[i].thread, NULL, read_here_and_there, &readers[i]),
			0);
	}
	for (size_t i = 0; i < COUNT(readers); i++) {
		pthread_join(readers[i].thread, NULL);
		assert_true(readers[i].good);
	}
	file_unref(file);
}

static void test_threads(void **state)
{
	uint8_t *bytes = content(8 * MIB);

	(void)state;
	store.datastore.scan_gzip = true;
	write_gzip("a.raw.gz", bytes, 8 * MIB, 1);
	read_from_threads("a.raw.gz", bytes);
	free(bytes);
}

/* ---- xz ---- */

#if HAVE_XZ

static void append_xz(
	struct packer *p, const uint8_t *bytes, size_t length, uint64_t block, lzma_check check)
{
	lzma_mt options = { .threads = 1, .block_size = block, .preset = 0, .check = check };
	lzma_stream s = LZMA_STREAM_INIT;
	uint8_t out[65536];
	lzma_ret ret;

	assert_int_equal(lzma_stream_encoder_mt(&s, &options), LZMA_OK);
	s.next_in = bytes;
	s.avail_in = length;
	do {
		s.next_out = out;
		s.avail_out = sizeof(out);
		ret = lzma_code(&s, LZMA_FINISH);
		append(p, out, sizeof(out) - s.avail_out);
	} while (ret == LZMA_OK);
	assert_int_equal(ret, LZMA_STREAM_END);
	lzma_end(&s);
}

static void write_xz(const char *name, const uint8_t *bytes, size_t length, uint64_t block)
{
	struct packer p = { 0 };

	append_xz(&p, bytes, length, block, LZMA_CHECK_CRC64);
	write_packer(name, &p);
}

static void test_xz(void **state)
{
	static const size_t sizes[] = { 0, 1, MIB, 5 * MIB + 3 };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		uint8_t *bytes = content(sizes[i]);

		for (uint64_t block = 4096; block < 64 * MIB; block *= 17) {
			struct file *file;

			write_xz("a.raw.xz", bytes, sizes[i], block);
			file = must_open("a.raw.xz");
			assert_content(file, bytes, sizes[i]);
			file_unref(file);
		}
		free(bytes);
	}
}

static void test_xz_streams(void **state)
{
	uint8_t *bytes = content(3 * MIB);
	struct packer p = { 0 };
	struct file *file;

	(void)state;
	append_xz(&p, bytes, 0, MIB, LZMA_CHECK_CRC32);
	append_xz(&p, bytes, MIB, 100000, LZMA_CHECK_NONE);
	append(&p, (uint8_t[64]) { 0 }, 64);
	append_xz(&p, bytes + MIB, 2 * MIB, MIB, LZMA_CHECK_SHA256);
	append(&p, (uint8_t[4]) { 0 }, 4);
	write_packer("a.raw.xz", &p);
	file = must_open("a.raw.xz");
	assert_content(file, bytes, 3 * MIB);
	file_unref(file);
	read_from_threads("a.raw.xz", bytes);
	free(bytes);
}

/* Damage in a block is its own; damage in an index is the file's. */
static void test_xz_damaged(void **state)
{
	uint8_t *bytes = content(MIB), *buffer = malloc(MIB);
	struct packer p = { 0 };
	struct file *file;

	(void)state;
	append_xz(&p, bytes, MIB, 256 * KIB, LZMA_CHECK_CRC32);
	for (size_t at = 100; at < 60000; at += 7000) {
		store_write("a.raw.xz", p.bytes, p.length);
		store_poke("a.raw.xz", at, (uint8_t[]) { p.bytes[at] ^ 1 }, 1);
		file = must_open("a.raw.xz");
		assert_int_equal(file_read(file, buffer, 1, 0), -EIO);
		assert_int_equal(file_read(file, buffer, 256 * KIB, 255 * KIB), -EIO);
		assert_int_equal(file_read(file, buffer, 768 * KIB, 256 * KIB), 0);
		assert_bytes(buffer, bytes + 256 * KIB, 768 * KIB);
		file_unref(file);
	}
	for (size_t back = 1; back < 40; back += 3) {
		store_write("a.raw.xz", p.bytes, p.length);
		store_poke("a.raw.xz", p.length - back,
			(uint8_t[]) { p.bytes[p.length - back] ^ 1 }, 1);
		must_refuse("a.raw.xz", -EINVAL, "damaged");
	}
	store_write("a.raw.xz", p.bytes, p.length / 2);
	must_refuse("a.raw.xz", -EINVAL, "damaged");
	store_write("a.raw.xz", p.bytes, 6);
	must_refuse("a.raw.xz", -EINVAL, "damaged");
	free(p.bytes);
	free(bytes);
	free(buffer);
}

static void test_xz_limits(void **state)
{
	uint8_t *bytes = calloc(1, PACKED_BLOCK_MAX + 1);
	struct file *file;
	uint8_t byte;

	(void)state;
	write_xz("a.raw.xz", bytes, PACKED_BLOCK_MAX, 64 * MIB);
	file = must_open("a.raw.xz");
	assert_int_equal(file_read(file, &byte, 1, PACKED_BLOCK_MAX - 1), 0);
	file_unref(file);
	write_xz("a.raw.xz", bytes, PACKED_BLOCK_MAX + 1, 64 * MIB);
	must_refuse("a.raw.xz", -ENOTSUP, "xz -T0");
	write_xz("a.raw.xz", bytes, PACKED_BLOCK_MAX + 1, MIB);
	file_unref(must_open("a.raw.xz"));
	free(bytes);
}

#define XZ_TESTS                                                                       \
	store_test(test_xz), store_test(test_xz_streams), store_test(test_xz_damaged), \
		store_test(test_xz_limits),
#else
#define XZ_TESTS
#endif

/* ---- zstd ---- */

#if HAVE_ZSTD

/* Returns how long the frame is. */
static size_t append_frame(struct packer *p, const uint8_t *bytes, size_t length, bool sized)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	size_t room = ZSTD_compressBound(length), n;
	uint8_t *out = malloc(room);

	ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, sized);
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	n = ZSTD_compress2(context, out, room, bytes, length);
	assert_false(ZSTD_isError(n));
	append(p, out, n);
	ZSTD_freeCCtx(context);
	free(out);
	return n;
}

static void append_le32(struct packer *p, uint32_t number)
{
	uint8_t bytes[4];

	put_le32(bytes, number);
	append(p, bytes, 4);
}

static void append_frames(struct packer *p, const uint8_t *bytes, size_t length, bool sized)
{
	for (size_t at = 0, n = 1; at < length; at += n, n = min_u64(n * 5, 3 * MIB))
		append_frame(p, bytes + at, min_u64(n, length - at), sized);
}

static void test_zstd_sized(void **state)
{
	uint8_t *bytes = content(7 * MIB);
	struct packer p = { 0 };
	struct file *file;

	(void)state;
	append_frame(&p, bytes, 0, true);
	append_frames(&p, bytes, 7 * MIB, true);
	append_le32(&p, 0x184d2a57);
	append_le32(&p, 1000);
	append(&p, (uint8_t[1000]) { 1 }, 1000);
	append_frame(&p, bytes, 0, true);
	write_packer("a.raw.zst", &p);
	file = must_open("a.raw.zst");
	assert_content(file, bytes, 7 * MIB);
	file_unref(file);
	read_from_threads("a.raw.zst", bytes);
	free(bytes);
}

static void test_zstd_unsized(void **state)
{
	uint8_t *bytes = content(7 * MIB);
	struct packer p = { 0 };
	struct file *file;

	(void)state;
	append_frames(&p, bytes, 7 * MIB, false);
	write_packer("a.raw.zst", &p);
	must_refuse("a.raw.zst", -ENOTSUP, "-o scan_gzip");
	store.datastore.scan_gzip = true;
	let_settle();
	keeper_forget(store.datastore.keeper);
	file = must_open("a.raw.zst");
	assert_content(file, bytes, 7 * MIB);
	file_unref(file);
	free(bytes);
}

/* Frames of 100,000 bytes and their table; `wrong` is added to the content size of the third. */
static void write_seekable(
	const char *name, const uint8_t *bytes, size_t length, bool checksums, uint32_t wrong)
{
	struct packer p = { 0 }, table = { 0 };
	uint32_t count = 0;

	for (size_t at = 0; at < length; at += 100000, count++) {
		size_t n = min_u64(100000, length - at);

		append_le32(&table, (uint32_t)append_frame(&p, bytes + at, n, false));
		append_le32(&table, (uint32_t)n + (count == 2 ? wrong : 0));
		if (checksums)
			append_le32(&table, 0);
	}
	append_le32(&p, 0x184d2a5e);
	append_le32(&p, (uint32_t)table.length + 9);
	append(&p, table.bytes, table.length);
	append_le32(&p, count);
	append(&p, checksums ? "\x80" : "\0", 1);
	append_le32(&p, 0x8f92eab1);
	free(table.bytes);
	write_packer(name, &p);
}

static void test_zstd_seekable(void **state)
{
	uint8_t *bytes = content(2 * MIB), *buffer = malloc(2 * MIB);
	struct file *file;

	(void)state;
	for (int checksums = 0; checksums < 2; checksums++) {
		write_seekable("a.raw.zst", bytes, 2 * MIB, checksums, 0);
		file = must_open("a.raw.zst");
		assert_content(file, bytes, 2 * MIB);
		file_unref(file);
	}
	/* A table that is wrong about one frame: what is in that is not what it says. */
	write_seekable("a.raw.zst", bytes, 2 * MIB, false, 1);
	file = must_open("a.raw.zst");
	assert_int_equal(file->size, 2 * MIB + 1);
	assert_int_equal(file_read(file, buffer, 200000, 0), 0);
	assert_int_equal(file_read(file, buffer, 1, 200000), -EIO);
	file_unref(file);
	write_seekable("a.raw.zst", bytes, 2 * MIB, false, UINT32_MAX);
	file = must_open("a.raw.zst");
	assert_int_equal(file_read(file, buffer, 1, 200000), -EIO);
	file_unref(file);
	write_seekable("a.raw.zst", bytes, 2 * MIB, false, PACKED_BLOCK_MAX);
	must_refuse("a.raw.zst", -ENOTSUP, "a zstd frame of 32 MiB");
	free(bytes);
	free(buffer);
}

static void test_zstd_damaged(void **state)
{
	uint8_t *bytes = content(600000), *buffer = malloc(600000);
	struct packer p = { 0 };
	struct file *file;
	size_t first;

	(void)state;
	first = append_frame(&p, bytes, 300000, true);
	append_frame(&p, bytes + 300000, 300000, true);
	for (size_t at = 5000; at + 5000 < first; at += first / 9) {
		store_write("a.raw.zst", p.bytes, p.length);
		store_poke("a.raw.zst", at, (uint8_t[]) { p.bytes[at] ^ 0x40 }, 1);
		file = must_open("a.raw.zst");
		assert_int_equal(file_read(file, buffer, 1, 0), -EIO);
		assert_int_equal(file_read(file, buffer, 300000, 300000), 0);
		assert_bytes(buffer, bytes + 300000, 300000);
		file_unref(file);
	}
	for (size_t cut = 1; cut < p.length; cut *= 4) {
		store_write("a.raw.zst", p.bytes, p.length - cut);
		must_refuse("a.raw.zst", -EINVAL, "damaged");
	}
	/* A reserved bit, a reserved type of block, no frame at all. */
	store_write("a.raw.zst", p.bytes, p.length);
	store_poke("a.raw.zst", 4, (uint8_t[]) { p.bytes[4] | 8 }, 1);
	must_refuse("a.raw.zst", -EINVAL, "damaged");
	store_write("a.raw.zst", p.bytes, p.length);
	store_poke("a.raw.zst", first, "none", 4);
	must_refuse("a.raw.zst", -EINVAL, "damaged");
	store_write("a.raw.zst", "\x28\xb5\x2f\xfd\x20\x01\x07\0\0a", 10);
	must_refuse("a.raw.zst", -EINVAL, "damaged");
	store_write("a.raw.zst", "\x28\xb5\x2f\xfd\x23\1\2\3\4\1\x09\0\0a", 14);
	must_refuse("a.raw.zst", -ENOTSUP, "dictionary");
	free(p.bytes);
	free(bytes);
	free(buffer);
}

static void test_zstd_limits(void **state)
{
	uint8_t *bytes = calloc(1, PACKED_BLOCK_MAX + 1);
	struct packer p = { 0 };

	(void)state;
	append_frame(&p, bytes, PACKED_BLOCK_MAX, true);
	write_packer("a.raw.zst", &p);
	file_unref(must_open("a.raw.zst"));
	append_frame(&p, bytes, PACKED_BLOCK_MAX + 1, true);
	write_packer("a.raw.zst", &p);
	must_refuse("a.raw.zst", -ENOTSUP, "pzstd");
	store.datastore.scan_gzip = true;
	append_frame(&p, bytes, PACKED_BLOCK_MAX + 1, false);
	write_packer("a.raw.zst", &p);
	must_refuse("a.raw.zst", -EINVAL, "more than 32 MiB");
	free(bytes);
}

#define ZSTD_TESTS                                                             \
	store_test(test_zstd_sized), store_test(test_zstd_unsized),            \
		store_test(test_zstd_seekable), store_test(test_zstd_damaged), \
		store_test(test_zstd_limits),
#else
#define ZSTD_TESTS
#endif

/* ---- what is not one compression's ---- */

static void test_names(void **state)
{
	static const struct {
		const char *name, *compression;
		size_t stem;
	} cases[] = {
		{ "a.raw.gz", "gz", 1 },
		{ "a.QCow2.XZ", "XZ", 1 },
		{ "a.b.vmdk.zst", "zst", 3 },
		{ "a.img.bz2", "bz2", 1 },
		{ "a.raw", NULL, 1 },
		{ "a.gz", NULL, 4 },
		{ "a.tar.gz", NULL, 8 },
		{ "a.raw.gz.gz", NULL, 11 },
		{ "raw.gz", NULL, 6 },
		{ ".raw.gz", NULL, 7 },
		{ "a.raw.", NULL, 6 },
		{ "", NULL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *found = name_compression(cases[i].name);

		if (cases[i].compression)
			assert_string_equal(found, cases[i].compression);
		else
			assert_null(found);
		assert_int_equal(name_stem_length(cases[i].name), cases[i].stem);
	}
}

static void test_refused(void **state)
{
	(void)state;
	store_text("a.raw.bz2", "BZh");
	must_refuse("a.raw.bz2", -ENOTSUP, "compressed as .bz2");
	store_text("a.raw.gz", "");
	store.datastore.cache = NULL;
	must_refuse("a.raw.gz", -ENOTSUP, "no cache");
	must_refuse("b.raw.gz", -ENOENT, "");
	store_mkdir("c.raw.gz");
	must_refuse("c.raw.gz", -EINVAL, "directory");
	store.datastore.cache = store.context.cache;
}

/* What says nothing of an image is not unpacked. */
static void test_left_alone(void **state)
{
	struct file *file;

	(void)state;
	store_text("a.tar.gz", "hello");
	file = must_open("a.tar.gz");
	assert_int_equal(file->size, 5);
	assert_int_equal(file_descriptor(file), file->fd);
	file_unref(file);
}

static void test_changed(void **state)
{
	uint8_t *bytes = content(MIB), byte;
	struct file *file;

	(void)state;
	store.datastore.scan_gzip = true;
	write_gzip("a.raw.gz", bytes, MIB, 6);
	let_settle();
	file = must_open("a.raw.gz");
	assert_int_equal(file_verify(file), 0);
	assert_true(store_truncate("a.raw.gz", 100));
	assert_int_equal(file_verify(file), -ESTALE);
	assert_int_not_equal(file_read(file, &byte, 1, MIB - 1), 0);
	file_unref(file);
	write_gzip("a.raw.gz", bytes, 1000, 6);
	file = must_open("a.raw.gz");
	assert_content(file, bytes, 1000);
	file_unref(file);
	free(bytes);
}

/* An image, its identity view, and that nobody passes the descriptor through. */
static void test_image(void **state)
{
	uint8_t *bytes = content(MIB), *read;
	struct image *image;
	struct view *view;
	uint64_t size;

	(void)state;
	store.datastore.scan_gzip = true;
	write_gzip("a.raw.gz", bytes, MIB, 6);
	image = open_image("a.raw.gz");
	assert_string_equal(image_format_of(image)->name, "raw");
	assert_int_equal(image_size(image), MIB);
	view = open_view(image, "raw");
	assert_true(view->identity);
	assert_int_equal(file_descriptor(image_file(image, 0)), -1);
	read = read_view(view, &size);
	assert_int_equal(size, MIB);
	assert_bytes(read, bytes, MIB);
	view_close(view);
	image_unref(image);
	free(read);
	/* What is in it has to be what the name says. */
	write_gzip("b.qcow2.gz", bytes, MIB, 6);
	assert_refused("b.qcow2.gz", -EINVAL, "should be qcow2");
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_gzip),
		store_test(test_gzip_members),
		store_test(test_gzip_damaged),
		store_test(test_gzip_needs_leave),
		store_test(test_gzip_interrupted),
		store_test(test_gzip_in_order),
		store_test(test_gzip_memory),
		store_test(test_threads),
		XZ_TESTS ZSTD_TESTS store_test(test_names),
		store_test(test_refused),
		store_test(test_left_alone),
		store_test(test_changed),
		store_test(test_image),
	};

	return run_unit_tests(tests);
}
