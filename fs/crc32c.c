/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight bytes at a time ("slicing by 8"): table k says what a byte does to the sum k bytes later.
 * Every open of a VHDX sums 68 KiB, so a table of one byte at a time would be felt in listings.
 */
#include "imgfs/crc32c.h"

#include <pthread.h>

#include "imgfs/wire.h"

#define POLYNOMIAL 0x82f63b78u /* reflected */

static uint32_t tables[8][256];

static void make_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t sum = i;

		for (int bit = 0; bit < 8; bit++)
			sum = sum >> 1 ^ (sum & 1 ? POLYNOMIAL : 0);
		tables[0][i] = sum;
	}
	for (unsigned k = 1; k < 8; k++) {
		for (unsigned i = 0; i < 256; i++)
			tables[k][i] = tables[k - 1][i] >> 8 ^ tables[0][tables[k - 1][i] & 0xff];
	}
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t length)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	const uint8_t *p = bytes;
	uint32_t sum = ~crc;

	pthread_once(&once, make_tables);
	for (; length >= 8; p += 8, length -= 8) {
		uint64_t word = get_le64(p) ^ sum;

		sum = 0;
		for (unsigned k = 0; k < 8; k++)
			sum ^= tables[7 - k][word >> 8 * k & 0xff];
	}
	for (; length > 0; p++, length--)
		sum = sum >> 8 ^ tables[0][(sum ^ *p) & 0xff];
	return ~sum;
}
