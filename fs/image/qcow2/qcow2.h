/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of qcow2 share. */
#ifndef IMGFS_QCOW2_H
#define IMGFS_QCOW2_H

#include <stdbool.h>
#include <stdint.h>

#include "imgfs/image.h"

#define QCOW2_OFFSET_MASK  0x00fffffffffffe00ull /* of L1 and L2 entries */
#define QCOW2_L1_MAX_BYTES (32u << 20)           /* as QEMU: 2 EiB of disk with 64 KiB clusters */

struct qcow2 {
	uint32_t cluster_bits;
	uint64_t cluster;    /* bytes */
	uint64_t entry_size; /* bytes of an L2 entry: 8, extended 16 */
	uint64_t l2_span;    /* guest bytes that one L2 table maps */
	uint64_t l1_offset;
	bool version2;
	bool extended;
	enum codec codec;
	const struct file *data; /* external data file; NULL: the image itself */
	uint32_t snapshots;      /* as the header has them */
	uint64_t snapshots_offset;
};

/*
 * Takes the L1 table of `entries` entries at offset for that of the layer, whose size is set:
 * every entry is checked. 0 or -errno with the reason.
 */
int qcow2_use_l1(struct layer *layer, uint64_t offset, uint64_t entries, struct why *why);

/* The functions of struct image_format. */
int qcow2_map(const struct layer *layer, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *extent);
int qcow2_snapshots(const struct layer *layer, snapshot_found *found, void *argument);
int qcow2_use_snapshot(struct layer *layer, uint32_t number, struct why *why);

#endif
