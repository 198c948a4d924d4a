/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/utf16.h"

#include <errno.h>
#include <stdlib.h>

#include "imgfs/cleanup.h"
#include "imgfs/wire.h"

/* The next code point; false where there is none. */
static bool next_point(const uint8_t **at, const uint8_t *end, bool big_endian, uint32_t *point)
{
	uint32_t units[2] = { 0, 0 };

	for (int i = 0; i < 2; i++) {
		if (end - *at < 2)
			return false;
		units[i] = big_endian ? get_be16(*at) : get_le16(*at);
		*at += 2;
		if (i == 0 && (units[0] < 0xd800 || units[0] > 0xdfff)) {
			*point = units[0];
			return true;
		}
	}
	*point = 0x10000 + ((units[0] - 0xd800) << 10) + (units[1] - 0xdc00);
	return units[0] < 0xdc00 && units[1] >= 0xdc00 && units[1] <= 0xdfff;
}

static char *put_point(char *out, uint32_t point)
{
	if (point < 0x80) {
		*out++ = (char)point;
		return out;
	}
	if (point < 0x800) {
		*out++ = (char)(0xc0 | point >> 6);
	} else {
		if (point < 0x10000) {
			*out++ = (char)(0xe0 | point >> 12);
		} else {
			*out++ = (char)(0xf0 | point >> 18);
			*out++ = (char)(0x80 | (point >> 12 & 0x3f));
		}
		*out++ = (char)(0x80 | (point >> 6 & 0x3f));
	}
	*out++ = (char)(0x80 | (point & 0x3f));
	return out;
}

int utf16_decode(const uint8_t *bytes, size_t length, bool big_endian, char **text)
{
	const uint8_t *at = bytes, *end = bytes + length;
	/* Two bytes become three at most, four become four. */
	autofree char *decoded = malloc(length / 2 * 3 + 1);
	char *out = decoded;

	*text = NULL;
	if (!decoded)
		return -ENOMEM;
	while (at < end) {
		uint32_t point;

		if (!next_point(&at, end, big_endian, &point))
			return -EINVAL;
		if (point == 0)
			break;
		out = put_point(out, point);
	}
	*out = '\0';
	*text = steal_ptr(decoded);
	return 0;
}
