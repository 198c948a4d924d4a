/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_OVF_H
#define IMGFS_OVF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/why.h"

/* A File of the References of an OVF descriptor (DSP0243, 7.1). */
struct ovf_file {
	char *id, *href;
	bool is_disk; /* a Disk is in it */
	bool has_size;
	uint64_t size;       /* bytes, all chunks together */
	uint64_t chunk_size; /* 0: it is in one piece */
	char *compression;   /* NULL: none */
};

struct ovf {
	struct ovf_file *files;
	size_t count, capacity;
	char **disks; /* the ids of the files of its disks */
	size_t disk_count, disk_capacity;
};

/* Bytes that a descriptor may have. */
#define OVF_MAX_BYTES (8u << 20)

/* Reads a descriptor. 0, -EINVAL with the reason, -ENOMEM. ovf_free() in any case. */
int ovf_parse(const char *text, size_t length, struct ovf *ovf, struct why *why);
void ovf_free(struct ovf *ovf);

#endif
