/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoders of one unit. The input is
 *
 *	0  1  codec
 *	1  2  bytes of the unit, less one
 *	3  2  bytes that the stream must have
 *	5     the stream
 *
 * What is whole for zlib alone must be unpacked to the same bytes, and what is short or has a wrong
 * checksum must not. On streams that zlib cannot decode there is no judge: libdeflate also takes
 * codes for lengths and distances that deflate reserves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "driver.h"
#include "fs/image/unpack.h"
#include "imgfs/wire.h"

#define HEAD    5
#define LONGEST 65536u

static uint8_t first[LONGEST], second[LONGEST], judge[LONGEST];

/* What zlib makes of it. */
struct judgement {
	size_t made;  /* bytes */
	bool ended;   /* the stream, with a checksum that is right */
	bool filled;  /* the unit, before the end of the stream and without an error so far */
	bool refuted; /* by the checksum alone */
};

static struct judgement judge_stream(
	bool wrapped, const uint8_t *in, size_t in_length, size_t out_length)
{
	z_stream z = { .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)in_length };
	struct judgement j;
	int r;

	fuzz_check(inflateInit2(&z, wrapped ? MAX_WBITS : -MAX_WBITS) == Z_OK);
	z.next_out = judge;
	z.avail_out = (uInt)out_length;
	r = inflate(&z, Z_FINISH);
	j.made = out_length - z.avail_out;
	j.ended = r == Z_STREAM_END;
	j.filled = (r == Z_OK || r == Z_BUF_ERROR) && z.avail_out == 0;
	j.refuted = r == Z_DATA_ERROR && strcmp(z.msg, "incorrect data check") == 0;
	inflateEnd(&z);
	return j;
}

static void check_deflate(enum codec codec, const uint8_t *in, size_t in_length, size_t out_length,
	size_t need, int r)
{
	bool wrapped = codec == CODEC_ZLIB;
	struct judgement j = judge_stream(wrapped, in, in_length, out_length);

	if ((j.ended && j.made < need) || j.refuted || (wrapped && j.filled)) {
		fuzz_check(r < 0);
	} else if (j.ended || j.filled) {
		fuzz_check(r == 0);
		memset(judge + j.made, 0, out_length - j.made);
		fuzz_check(memcmp(first, judge, out_length) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum codec codec;
	size_t out_length, need;
	int r;

	if (size < HEAD)
		return 0;
	codec = (enum codec)(data[0] % 3);
	out_length = (size_t)get_le16(data + 1) + 1;
	need = get_le16(data + 3) % (out_length + 1);
	memset(first, 0x11, out_length);
	memset(second, 0x22, out_length);
	r = unpack(codec, data + HEAD, size - HEAD, first, out_length, need);
	fuzz_check(r == 0 || r == -EIO);
	fuzz_check(unpack(codec, data + HEAD, size - HEAD, second, out_length, need) == r);
	if (r == 0)
		fuzz_check(memcmp(first, second, out_length) == 0);
	if (codec != CODEC_ZSTD)
		check_deflate(codec, data + HEAD, size - HEAD, out_length, need, r);
	return 0;
}
