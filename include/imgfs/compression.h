/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed files: "a.raw.xz" is to the rest of the program the file that is in it.
 *
 * A compression (struct compression) finds an index: which block of the compressed bytes has the
 * byte at an offset of what is in it, so that it alone is unpacked for a read. Where a file has
 * no such blocks, or one that is too large, it is refused; what it is like can be told by its
 * maker only. Blocks are kept in the cache.
 */
#ifndef IMGFS_COMPRESSION_H
#define IMGFS_COMPRESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/datastore.h"
#include "imgfs/why.h"

/* Bytes that a block may unpack to: what `xz -T0` makes is of 24 MiB. */
#define PACKED_BLOCK_MAX (32u << 20)

/* Bytes that an index may take, and all that there are. */
#define PACKED_INDEX_MAX   (8u << 20)
#define PACKED_INDEXES_MAX (32u << 20)

/* The index of one state of a compressed file. It outlives the open file. */
struct packed {
	const struct datastore *datastore;
	uint64_t size; /* of what is in it, exactly */
	void *state;   /* the compression's */
	size_t memory; /* bytes, by packed_charge() */
};

/* Bytes [start, start + length) of what is in the file. */
struct packed_block {
	uint64_t start, length;
};

struct compression {
	const char *name;   /* "xz" */
	const char *suffix; /* of file names, lower case: "xz" */

	/* Do these bytes begin such a file? */
	bool (*probe)(const uint8_t *head, size_t length);

	/*
	 * Fills size and state. -EINVAL damaged, -ENOTSUP it cannot be read in place, with the
	 * reason and what can be done about it; -ENOMEM, -EINTR, or what reading says. Frees what
	 * it made where it fails.
	 */
	int (*open)(const struct file *file, struct packed *packed, struct why *why);

	/* The block that has the byte at offset < size; its length is 1..PACKED_BLOCK_MAX. */
	void (*find)(const struct packed *packed, uint64_t offset, struct packed_block *block);

	/*
	 * Unpacks a whole block and verifies what checksums it has. -EIO where it is damaged. Many
	 * threads at once.
	 */
	int (*unpack)(const struct packed *packed, const struct file *file,
		const struct packed_block *block, uint8_t *bytes);

	void (*close)(struct packed *packed);
};

/* The compressions of this build, in the order of the list in meson.build; NULL ends it. */
extern const struct compression *const compressions[];

/* Takes so many more bytes (or gives them back). False: there are too many in all. */
bool packed_charge(struct packed *packed, size_t bytes);
void packed_discharge(struct packed *packed, size_t bytes);

/* Bytes that an index may still become larger by. */
size_t packed_room(const struct packed *packed);

/* Reads the compressed bytes, as file_read(). */
int packed_read_stored(const struct file *file, void *buffer, uint64_t length, uint64_t offset);

/* Has whoever asked for it stopped waiting? For what takes long. */
bool packed_interrupted(const struct packed *packed);

#endif
