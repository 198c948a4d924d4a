/* SPDX-License-Identifier: Apache-2.0 */
#include "inflater.h"

#include <errno.h>

#include "imgfs/checked.h"
#include "imgfs/compression.h"

#define TRAILER 8u /* of a member: checksum and size */

int inflater_fill(struct inflater *f)
{
	uint64_t length = min_u64(INFLATER_INPUT, f->file->state.size - f->in);
	int r;

	if (f->z.avail_in > 0 || length == 0)
		return 0;
	r = packed_read_stored(f->file, f->input, length, f->in);
	if (r < 0)
		return r;
	f->in += length;
	f->z.next_in = f->input;
	f->z.avail_in = (uInt)length;
	return 0;
}

uint64_t inflater_place(const struct inflater *f)
{
	return f->in - f->z.avail_in;
}

/* Takes the next bytes as they are. 0, 1 where there are not so many, -errno. */
static int take_input(struct inflater *f, uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		int r = inflater_fill(f);

		if (r < 0)
			return r;
		if (f->z.avail_in == 0)
			return 1;
		bytes[i] = *f->z.next_in++;
		f->z.avail_in--;
	}
	return 0;
}

int inflater_start(struct inflater *f, const struct file *file, int window_bits)
{
	f->file = file;
	f->raw = window_bits < 0;
	if (inflateInit2(&f->z, window_bits) != Z_OK)
		return -ENOMEM;
	f->begun = true;
	return 0;
}

void inflater_stop(struct inflater *f)
{
	if (f->begun)
		inflateEnd(&f->z);
	f->begun = false;
}

int inflater_next_member(struct inflater *f)
{
	uint8_t trailer[TRAILER];
	int r = f->raw ? take_input(f, trailer, TRAILER) : 0;

	if (r != 0)
		return r < 0 ? r : DAMAGED;
	for (;;) {
		r = inflater_fill(f);
		if (r < 0 || f->z.avail_in == 0)
			return r;
		if (*f->z.next_in == 0x1f)
			break;
		if (*f->z.next_in != 0)
			return DAMAGED;
		f->z.next_in++;
		f->z.avail_in--;
	}
	f->raw = false;
	return inflateReset2(&f->z, INFLATER_GZIP) == Z_OK ? 1 : DAMAGED;
}

int inflater_read(struct inflater *f, uint8_t *bytes, uint64_t length)
{
	f->z.next_out = bytes;
	f->z.avail_out = (uInt)length;
	while (f->z.avail_out > 0) {
		int status, r = inflater_fill(f);

		if (r < 0)
			return r;
		status = inflate(&f->z, Z_NO_FLUSH);
		if (status == Z_STREAM_END) {
			r = inflater_next_member(f);
			if (r < 0)
				return r;
			if (r == 0)
				break;
		} else if (status != Z_OK) {
			break;
		}
	}
	f->out += length - f->z.avail_out;
	return f->z.avail_out == 0 ? 0 : DAMAGED;
}
