/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_TAR_H
#define IMGFS_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/datastore.h"

struct tar_member {
	char *name;            /* without "./" at its beginning */
	uint64_t offset, size; /* of its bytes, in the file; may lie outside */
	bool plain;            /* a regular file, stored from end to end */
	bool doubled;          /* another member has the same name */
	size_t number;         /* from 0, in the archive */
};

/* The members of a tar archive, by their names. */
struct tar {
	struct tar_member *members;
	size_t count, capacity;
	bool damaged; /* no more of them could be found, though there should be */
};

/* What a tar archive may have of members, and what is read to find them. */
#define TAR_MAX_MEMBERS 4096
#define TAR_MAX_READ    (64u << 20)

/* 0; -EINVAL with the reason where it is no tar archive, or has too much of something. */
int tar_list(const struct file *file, struct tar *tar, struct why *why);
void tar_free(struct tar *tar);

const struct tar_member *tar_find(const struct tar *tar, const char *name);

#endif
