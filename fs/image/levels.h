/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that are mapped by two levels of tables of 64-bit entries, all of one kind: an L1 table
 * names L2 tables, and an entry of these says where one cluster is. An entry of 0 is absent in
 * both. (qcow2 has more to tell by its entries and its own code.)
 */
#ifndef IMGFS_IMAGE_LEVELS_H
#define IMGFS_IMAGE_LEVELS_H

#include "imgfs/image.h"

/* What an L2 entry that is not 0 says. */
struct level_place {
	enum extent_kind kind;
	uint64_t offset;        /* DATA, PACKED: in layer->file */
	uint32_t packed_length; /* PACKED: raw deflate of a whole cluster */
};

struct levels {
	uint64_t (*entry)(const void *bytes); /* get_be64 or get_le64 */
	struct level_place (*place)(const struct layer *layer, uint64_t entry);
	uint64_t l1;         /* offset of the L1 table, a multiple of 8 */
	uint64_t l2_entries; /* of each L2 table */
	uint64_t cluster;    /* guest bytes that an L2 entry stands for */
	uint64_t tables;     /* L2 tables begin here or after, */
	uint64_t alignment;  /* and at a multiple of this, which is one of 8 */
};

/* Checks the L1 table as far as a disk of layer->size needs it. 0 or -errno. */
int levels_check(const struct layer *layer, const struct levels *levels, uint64_t l1_bytes_max,
	struct why *why);

/* A format's map. */
int levels_map(const struct layer *layer, const struct levels *levels, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *extent);

#endif
