/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/uuid.h"

#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "imgfs/wire.h"

bool uuid_is_nil(const uint8_t *uuid)
{
	static const uint8_t nil[UUID_BYTES];

	return uuid_equal(uuid, nil);
}

bool uuid_equal(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, UUID_BYTES) == 0;
}

static struct uuid_text format(const uint8_t *u, uint32_t low, uint16_t middle, uint16_t high)
{
	struct uuid_text t;

	snprintf(t.text, sizeof(t.text), "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", low,
		middle, high, u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	return t;
}

struct uuid_text uuid_text(const uint8_t *uuid)
{
	return format(uuid, get_be32(uuid), get_be16(uuid + 4), get_be16(uuid + 6));
}

struct uuid_text uuid_text_le(const uint8_t *uuid)
{
	return format(uuid, get_le32(uuid), get_le16(uuid + 4), get_le16(uuid + 6));
}

void uuid_from_hash(uint64_t hash, uint64_t number, uint8_t *uuid)
{
	uint8_t seed[16];

	put_le64(seed, hash);
	put_le64(seed + 8, number);
	put_le64(uuid, XXH3_64bits_withSeed(seed, sizeof(seed), 1));
	put_le64(uuid + 8, XXH3_64bits_withSeed(seed, sizeof(seed), 2));
	/* The version is the first hexadecimal digit of the third field. */
	uuid[6] = 0x80 | (uuid[6] & 0x0f);
	uuid[7] = 0x80 | (uuid[7] & 0x0f);
	uuid[8] = 0x80 | (uuid[8] & 0x3f);
}
