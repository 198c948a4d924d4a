/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders. Each thread keeps its own contexts, since making one costs as much as a small unit.
 *
 * zlib is the judge of what a deflate stream is; libdeflate, where the build has it, is tried
 * first because it is about twice as fast. What libdeflate refuses, zlib sees again: streams
 * that were never terminated but give all their bytes are read by QEMU, and so by us.
 * libdeflate in turn takes codes for lengths and distances that deflate reserves and zlib refuses.
 * No encoder writes them; in a damaged stream they are one way among many to garbage that only a
 * checksum would show, and raw deflate has none.
 */
#include "unpack.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "config.h"

#if HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#if HAVE_ZSTD
#include <zstd.h>
#endif

#define ZSTD_WINDOW_LOG 24
_Static_assert(1u << ZSTD_WINDOW_LOG == PACKED_UNIT_MAX, "a window as large as a unit can be");

struct decoders {
	z_stream raw, wrapped;
	bool raw_ready, wrapped_ready;
#if HAVE_LIBDEFLATE
	struct libdeflate_decompressor *deflate;
#endif
#if HAVE_ZSTD
	ZSTD_DCtx *zstd;
#endif
};

static pthread_key_t decoders_key;
static pthread_once_t decoders_once = PTHREAD_ONCE_INIT;

static void decoders_free(void *p)
{
	struct decoders *d = p;

	if (d->raw_ready)
		inflateEnd(&d->raw);
	if (d->wrapped_ready)
		inflateEnd(&d->wrapped);
#if HAVE_LIBDEFLATE
	libdeflate_free_decompressor(d->deflate);
#endif
#if HAVE_ZSTD
	ZSTD_freeDCtx(d->zstd);
#endif
	free(d);
}

static void decoders_make_key(void)
{
	if (pthread_key_create(&decoders_key, decoders_free) != 0)
		abort();
}

static struct decoders *decoders_of_thread(void)
{
	struct decoders *d;

	pthread_once(&decoders_once, decoders_make_key);
	d = pthread_getspecific(decoders_key);
	if (d)
		return d;
	d = calloc(1, sizeof(*d));
	if (d && pthread_setspecific(decoders_key, d) != 0) {
		free(d);
		d = NULL;
	}
	return d;
}

static int zlib_ready(z_stream *z, bool *ready, int window)
{
	if (*ready)
		return inflateReset(z) == Z_OK ? 0 : -EIO;
	if (inflateInit2(z, window) != Z_OK)
		return -ENOMEM;
	*ready = true;
	return 0;
}

static int zlib_unpack(struct decoders *d, bool wrapped, const uint8_t *in, size_t in_length,
	uint8_t *out, size_t out_length, size_t *produced)
{
	z_stream *z = wrapped ? &d->wrapped : &d->raw;
	int r = zlib_ready(
		z, wrapped ? &d->wrapped_ready : &d->raw_ready, wrapped ? MAX_WBITS : -MAX_WBITS);

	if (r < 0)
		return r;
	z->next_in = (Bytef *)(uintptr_t)in;
	z->avail_in = (uInt)in_length;
	z->next_out = out;
	z->avail_out = (uInt)out_length;
	r = inflate(z, Z_FINISH);
	*produced = out_length - z->avail_out;
	if (r == Z_STREAM_END)
		return 0;
	/* The unit is full but the stream has not ended: fine without a checksum to verify. */
	if ((r == Z_OK || r == Z_BUF_ERROR) && z->avail_out == 0 && !wrapped)
		return 0;
	return r == Z_MEM_ERROR ? -ENOMEM : -EIO;
}

static bool fast_unpack(struct decoders *d, bool wrapped, const uint8_t *in, size_t in_length,
	uint8_t *out, size_t out_length, size_t *produced)
{
#if HAVE_LIBDEFLATE
	if (!d->deflate)
		d->deflate = libdeflate_alloc_decompressor();
	if (!d->deflate)
		return false;
	if (wrapped)
		return libdeflate_zlib_decompress(d->deflate, in, in_length, out, out_length,
			       produced) == LIBDEFLATE_SUCCESS;
	return libdeflate_deflate_decompress(
		       d->deflate, in, in_length, out, out_length, produced) == LIBDEFLATE_SUCCESS;
#else
	(void)d, (void)wrapped, (void)in, (void)in_length, (void)out, (void)out_length;
	(void)produced;
	return false;
#endif
}

static int zstd_unpack(struct decoders *d, const uint8_t *in, size_t in_length, uint8_t *out,
	size_t out_length, size_t *produced)
{
#if HAVE_ZSTD
	ZSTD_inBuffer input = { in, in_length, 0 };
	ZSTD_outBuffer output = { out, out_length, 0 };
	size_t left = 0;

	if (!d->zstd) {
		d->zstd = ZSTD_createDCtx();
		if (!d->zstd)
			return -ENOMEM;
		/* Memory for a window that no unit could fill is not given. */
		ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	}
	ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only);
	while (output.pos < output.size) {
		size_t in_before = input.pos, out_before = output.pos;

		left = ZSTD_decompressStream(d->zstd, &output, &input);
		if (ZSTD_isError(left))
			return -EIO;
		if (input.pos == in_before && output.pos == out_before)
			return -EIO;
	}
	*produced = output.pos;
	return left == 0 ? 0 : -EIO;
#else
	(void)d, (void)in, (void)in_length, (void)out, (void)out_length, (void)produced;
	return -EIO;
#endif
}

bool codec_supported(enum codec codec)
{
	return codec != CODEC_ZSTD || HAVE_ZSTD;
}

int unpack(enum codec codec, const uint8_t *in, size_t in_length, uint8_t *out, size_t out_length,
	size_t need)
{
	struct decoders *d = decoders_of_thread();
	bool wrapped = codec == CODEC_ZLIB;
	size_t produced = 0;
	int r;

	if (!d)
		return -ENOMEM;
	if (codec == CODEC_ZSTD)
		r = zstd_unpack(d, in, in_length, out, out_length, &produced);
	else if (fast_unpack(d, wrapped, in, in_length, out, out_length, &produced))
		r = 0;
	else
		r = zlib_unpack(d, wrapped, in, in_length, out, out_length, &produced);
	if (r < 0)
		return r;
	if (produced < need)
		return -EIO;
	memset(out + produced, 0, out_length - produced);
	return 0;
}
