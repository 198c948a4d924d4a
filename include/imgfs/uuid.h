/* SPDX-License-Identifier: Apache-2.0 */
/* UUIDs, as 16 bytes in the order of the file: they are compared, shown, and made from a hash. */
#ifndef IMGFS_UUID_H
#define IMGFS_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_BYTES 16

bool uuid_is_nil(const uint8_t *uuid);
bool uuid_equal(const uint8_t *a, const uint8_t *b);

struct uuid_text {
	char text[37];
};

/* As people write it, 8-4-4-4-12. Use as uuid_text(id).text. */
struct uuid_text uuid_text(const uint8_t *uuid);

/* The same of one whose first three fields are little-endian, as Windows and VirtualBox keep them.
 */
struct uuid_text uuid_text_le(const uint8_t *uuid);

/*
 * A UUID that follows from a hash and from a number for what it is the UUID of. It is of version 8
 * (RFC 9562: its maker's own), whichever order its fields are read in, and never nil.
 */
void uuid_from_hash(uint64_t hash, uint64_t number, uint8_t *uuid);

#endif
