/* SPDX-License-Identifier: Apache-2.0 */
/* Decoders: what counts as a whole stream and what does not. */
#include "support.h"

#include <zlib.h>

#include "config.h"
#include "fs/image/unpack.h"

#if HAVE_ZSTD
#include <zstd.h>
#endif

#define UNIT 65536u
#define ROOM (2 * UNIT)

static uint8_t plain[2 * UNIT]; /* what the streams are made of */
static uint8_t packed[2 * ROOM];
static uint8_t out[UNIT + 1];

/* Half text that repeats, half noise: streams have all kinds of blocks. */
static int make_plain(void **state)
{
	uint64_t random = 1;

	(void)state;
	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = i / 4096 % 2 ? (uint8_t)random_below(&random, 256)
					: (uint8_t)(i % 100 + i / 4096);
	return 0;
}

/* window as deflateInit2() has it: negative for a raw stream. Returns the length. */
static size_t deflate_bytes(const uint8_t *bytes, size_t length, int window, int flush)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)bytes;
	z.avail_in = (uInt)length;
	z.next_out = packed;
	z.avail_out = ROOM;
	assert_int_equal(deflate(&z, flush), flush == Z_FINISH ? Z_STREAM_END : Z_OK);
	assert_int_equal(z.avail_in, 0);
	deflateEnd(&z);
	return ROOM - z.avail_out;
}

/*
 * Unpacks from a buffer of exactly that length, so that a sanitizer sees a byte too many. The
 * output is checked to be `got` bytes of plain and zeros, and nothing past it is touched.
 */
static int unpack_exact(enum codec codec, size_t length, size_t unit, size_t need, size_t got)
{
	uint8_t *in = malloc(length ? length : 1);
	int r;

	assert_non_null(in);
	memcpy(in, packed, length);
	memset(out, 0xee, sizeof(out));
	r = unpack(codec, in, length, out, unit, need);
	free(in);
	if (r == 0) {
		assert_bytes(out, plain, got);
		assert_true(is_zero(out + got, unit - got));
	}
	assert_int_equal(out[unit], 0xee);
	return r;
}

static void test_deflate(void **state)
{
	(void)state;
	for (int window = 9; window <= 15; window++) {
		size_t length = deflate_bytes(plain, UNIT, -window, Z_FINISH);

		assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
		/* The input is rounded up to sectors: what follows the stream does not count. */
		memset(packed + length, 0xa5, 600);
		assert_int_equal(unpack_exact(CODEC_DEFLATE, length + 600, UNIT, UNIT, UNIT), 0);
		memset(packed + length, 0, 600);
		assert_int_equal(unpack_exact(CODEC_DEFLATE, length + 1, UNIT, UNIT, UNIT), 0);
	}
}

/* A match that reaches back 32 KiB, which a window of 12 bits would refuse. */
static void test_deflate_far_match(void **state)
{
	uint8_t saved[UNIT];
	size_t length;

	(void)state;
	memcpy(saved, plain, UNIT);
	pattern(plain, 5, 0, 32000);
	memcpy(plain + 32000, plain, 32000);
	length = deflate_bytes(plain, UNIT, -15, Z_FINISH);
	assert_true(length < 48000); /* the copy was found */
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
	/* The same from a stream that does not end. */
	length = deflate_bytes(plain, UNIT, -15, Z_SYNC_FLUSH);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
	memcpy(plain, saved, UNIT);
}

/* All bytes are there but the stream goes on: QEMU reads those. */
static void test_deflate_unterminated(void **state)
{
	size_t length = deflate_bytes(plain, UNIT, -12, Z_SYNC_FLUSH);

	(void)state;
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length - 100, UNIT, UNIT, UNIT), -EIO);
	/* Longer than the unit: the rest is not looked at. */
	length = deflate_bytes(plain, UNIT + 1000, -15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
}

static void test_deflate_short(void **state)
{
	size_t length = deflate_bytes(plain, UNIT - 1, -15, Z_FINISH);

	(void)state;
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT - 1, UNIT - 1), 0);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT - 1, UNIT - 1, UNIT - 1), 0);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, 0, UNIT - 1), 0);
	/* Cut streams give nothing, wherever the cut is, even if what is needed was there. */
	length = deflate_bytes(plain, 5000, -15, Z_FINISH);
	for (size_t cut = 0; cut < length; cut++)
		assert_int_equal(unpack_exact(CODEC_DEFLATE, cut, UNIT, 0, 0), -EIO);
	length = deflate_bytes(plain, UNIT, -15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length - 512, UNIT, UNIT, 0), -EIO);
}

static void test_deflate_damaged(void **state)
{
	size_t length;

	(void)state;
	memset(packed, 0xff, 100); /* block type 3 */
	assert_int_equal(unpack_exact(CODEC_DEFLATE, 100, UNIT, UNIT, 0), -EIO);
	memset(packed, 0, 100); /* a stored block whose length does not match its complement */
	assert_int_equal(unpack_exact(CODEC_DEFLATE, 100, UNIT, UNIT, 0), -EIO);
	/* A good one works again after a bad one. */
	length = deflate_bytes(plain, UNIT, -15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, UNIT), 0);
	/* A zlib stream is not a raw one, nor the other way round. */
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
	length = deflate_bytes(plain, UNIT, 15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, length, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, 0, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_DEFLATE, 0, UNIT, 0, 0), -EIO);
}

static void test_zlib(void **state)
{
	size_t length = deflate_bytes(plain, UNIT, 15, Z_FINISH);

	(void)state;
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, UNIT), 0);
	memset(packed + length, 0xa5, 600);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length + 600, UNIT, UNIT, UNIT), 0);
	/* The checksum is the last four bytes, and each of them counts. */
	for (size_t i = 1; i <= 4; i++) {
		packed[length - i] ^= 1;
		assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
		packed[length - i] ^= 1;
	}
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, UNIT), 0);
	/* Cut: all bytes may be there, their checksum is not. */
	for (size_t cut = 1; cut <= 5; cut++)
		assert_int_equal(unpack_exact(CODEC_ZLIB, length - cut, UNIT, UNIT, 0), -EIO);
	/* A damaged byte in the middle is found by the checksum at least. */
	packed[length / 2] ^= 0x10;
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
	packed[length / 2] ^= 0x10;
	packed[0] ^= 0x01; /* the header */
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
}

static void test_zlib_length(void **state)
{
	size_t length = deflate_bytes(plain, 1536, 15, Z_FINISH);

	(void)state;
	/* qemu-img's last grain of a stream: short, and the disk needs no more. */
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, 1536, 1536), 0);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, 1535, 1536), 0);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, 1537, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
	packed[length - 1] ^= 1;
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, 1536, 0), -EIO);
	/* More than the unit: there is no checksum of the part, so it is damaged. */
	length = deflate_bytes(plain, UNIT + 1, 15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, 1, 1, 0), -EIO);
	length = deflate_bytes(plain, 1, 15, Z_FINISH);
	assert_int_equal(unpack_exact(CODEC_ZLIB, length, 1, 1, 1), 0);
}

#if HAVE_ZSTD

/* A frame of these bytes at packed + at; returns where it ends. */
static size_t add_frame(size_t at, const uint8_t *bytes, size_t length, bool checksum)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t n;

	assert_non_null(c);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
	n = ZSTD_compress2(c, packed + at, sizeof(packed) - at, bytes, length);
	assert_false(ZSTD_isError(n));
	ZSTD_freeCCtx(c);
	return at + n;
}

static void test_zstd(void **state)
{
	(void)state;
	assert_true(codec_supported(CODEC_ZSTD));
	for (int checksum = 0; checksum < 2; checksum++) {
		size_t length = add_frame(0, plain, UNIT, checksum);

		assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, UNIT), 0);
		memset(packed + length, 0xa5, 600);
		assert_int_equal(unpack_exact(CODEC_ZSTD, length + 600, UNIT, UNIT, UNIT), 0);
		memset(packed + length, 0, 600);
		assert_int_equal(unpack_exact(CODEC_ZSTD, length + 600, UNIT, UNIT, UNIT), 0);
		/* Not finished: QEMU calls that an error, all bytes or not. */
		for (size_t cut = 1; cut <= 5; cut++)
			assert_int_equal(
				unpack_exact(CODEC_ZSTD, length - cut, UNIT, UNIT, 0), -EIO);
		/* Longer than the unit. */
		length = add_frame(0, plain, UNIT + 1, checksum);
		assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, 0), -EIO);
		/* Shorter, with nothing behind it and with garbage. */
		length = add_frame(0, plain, UNIT - 1, checksum);
		assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, 0), -EIO);
		memset(packed + length, 0xa5, 600);
		assert_int_equal(unpack_exact(CODEC_ZSTD, length + 600, UNIT, UNIT, 0), -EIO);
	}
}

static void test_zstd_frames(void **state)
{
	size_t first = add_frame(0, plain, 20000, true);
	size_t second = add_frame(first, plain + 20000, UNIT - 20000, false);

	(void)state;
	assert_int_equal(unpack_exact(CODEC_ZSTD, second, UNIT, UNIT, UNIT), 0);
	assert_int_equal(unpack_exact(CODEC_ZSTD, second + 100, UNIT, UNIT, UNIT), 0);
	assert_int_equal(unpack_exact(CODEC_ZSTD, first, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_ZSTD, second - 1, UNIT, UNIT, 0), -EIO);
	/* The first frame alone is a unit of its own length. */
	assert_int_equal(unpack_exact(CODEC_ZSTD, second, 20000, 20000, 20000), 0);
	/* Of many. */
	second = 0;
	for (size_t at = 0; at < UNIT; at += UNIT / 16)
		second = add_frame(second, plain + at, UNIT / 16, at % 3);
	assert_int_equal(unpack_exact(CODEC_ZSTD, second, UNIT, UNIT, UNIT), 0);
}

static void test_zstd_damaged(void **state)
{
	size_t length;

	(void)state;
	memset(packed, 0x5a, 1000);
	assert_int_equal(unpack_exact(CODEC_ZSTD, 1000, UNIT, UNIT, 0), -EIO);
	assert_int_equal(unpack_exact(CODEC_ZSTD, 0, UNIT, UNIT, 0), -EIO);
	length = add_frame(0, plain, UNIT, true);
	packed[length - 1] ^= 1; /* its checksum */
	assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, 0), -EIO);
	packed[length - 1] ^= 1;
	packed[length / 2] ^= 1;
	assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, 0), -EIO);
	packed[length / 2] ^= 1;
	assert_int_equal(unpack_exact(CODEC_ZSTD, length, UNIT, UNIT, UNIT), 0);
}

#else

static void test_zstd_refused(void **state)
{
	static const uint8_t frame[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x01, 0x09, 0, 0, 'x' };

	(void)state;
	assert_false(codec_supported(CODEC_ZSTD));
	memcpy(packed, frame, sizeof(frame));
	assert_int_equal(unpack_exact(CODEC_ZSTD, sizeof(frame), 1, 1, 0), -EIO);
}

#endif

static void test_supported(void **state)
{
	(void)state;
	assert_true(codec_supported(CODEC_DEFLATE));
	assert_true(codec_supported(CODEC_ZLIB));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deflate),
		cmocka_unit_test(test_deflate_far_match),
		cmocka_unit_test(test_deflate_unterminated),
		cmocka_unit_test(test_deflate_short),
		cmocka_unit_test(test_deflate_damaged),
		cmocka_unit_test(test_zlib),
		cmocka_unit_test(test_zlib_length),
#if HAVE_ZSTD
		cmocka_unit_test(test_zstd),
		cmocka_unit_test(test_zstd_frames),
		cmocka_unit_test(test_zstd_damaged),
#else
		cmocka_unit_test(test_zstd_refused),
#endif
		cmocka_unit_test(test_supported),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_plain, NULL);
}
