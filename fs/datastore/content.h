/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_CONTENT_H
#define IMGFS_CONTENT_H

#include "imgfs/datastore.h"

/*
 * What the bytes of a file are where they are not those of its descriptor, from the first to the
 * last: pieces of it (place), or something that has to be made of it (read). One of the two.
 */
struct content {
	/* As file_place(). */
	void (*place)(const struct file *file, uint64_t offset, uint64_t *at, uint64_t *contiguous);

	/* [offset, offset + length) is in the file. 0 or -errno. */
	int (*read)(const struct file *file, void *buffer, uint64_t length, uint64_t offset);

	/* Frees file->content_state. */
	void (*close)(struct file *file);
};

/* Exactly length bytes at offset of the descriptor; -ERANGE where it ends before. */
int descriptor_read(int fd, void *buffer, uint64_t length, uint64_t offset);

#endif
