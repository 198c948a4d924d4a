/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the VHDX source share. Section numbers are those of [MS-VHDX]. */
#ifndef IMGFS_VHDX_H
#define IMGFS_VHDX_H

#include <stdbool.h>
#include <stdint.h>

#include "imgfs/image.h"
#include "imgfs/uuid.h"

#define VHDX_ALIGN       (1u << 20)     /* of regions, of the log and of blocks */
#define VHDX_PAGE        4096u          /* what the log writes at a time */
#define VHDX_BITMAP      (1u << 20)     /* bytes of a sector bitmap block */
#define VHDX_FILE_MAX    (128ull << 40) /* a disk of 64 TiB and all there is around it */
#define VHDX_LINKAGES    2u
#define VHDX_LINKAGE     39u /* {01234567-89ab-cdef-0123-456789abcdef} and a NUL */
#define VHDX_LOG_MAX     (64u << 20)
#define VHDX_LOG_PATCHES 16384u

/* Bytes of the file that the log has newer ones for. Data is one page, zeros are any number. */
struct vhdx_patch {
	uint64_t start, end;
	uint64_t descriptor; /* DATA: offset of its descriptor in the file */
	uint64_t sector;     /* and of its data sector; 0: zeros */
};

struct vhdx_range {
	uint64_t start, length;
};

enum { VHDX_LOG, VHDX_BAT, VHDX_METADATA, VHDX_REGIONS };

struct vhdx {
	/* The file as it is after a replay of the log: where it ends, and what is different. */
	uint64_t end;
	struct vhdx_patch *patches; /* sorted, apart */
	size_t patch_count;

	uint8_t log_guid[UUID_BYTES];
	uint8_t data_guid[UUID_BYTES];
	bool log_empty;
	struct vhdx_range regions[VHDX_REGIONS];

	uint64_t block;   /* bytes of a payload block */
	uint64_t sector;  /* bytes of a logical sector */
	uint64_t ratio;   /* payload blocks that share a bitmap block */
	uint64_t entries; /* of the BAT */
	bool leave_allocated, differencing;
	char linkages[VHDX_LINKAGES][VHDX_LINKAGE]; /* the parent's data_guid is one of them */
	size_t linkage_count;
};

/* header.c: which header counts, and where the regions are. */
int vhdx_read_header(struct layer *layer, struct vhdx *v, struct why *why);
int vhdx_read_regions(struct layer *layer, struct vhdx *v, struct why *why);

/* log.c: makes patches of what the log holds. */
int vhdx_replay(struct layer *layer, struct vhdx *v, struct why *why);

/* metadata.c: what the disk is like. *locator: of the item that tells of the parent. */
int vhdx_read_metadata(
	struct layer *layer, struct vhdx *v, struct vhdx_range *locator, struct why *why);

/* locator.c: names the parent. */
int vhdx_read_locator(
	struct layer *layer, struct vhdx *v, const struct vhdx_range *locator, struct why *why);

/* map.c */
int vhdx_map(const struct layer *layer, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *extent);

/* ---- patches.c: the file as it is after a replay ---- */

/* A later patch counts more than those before it. -ENOMEM, -EFBIG. */
int vhdx_add_patch(struct vhdx *v, struct vhdx_patch patch);

/* The first patch that ends after offset; NULL for none. */
const struct vhdx_patch *vhdx_find_patch(const struct vhdx *v, uint64_t offset);

/* -ERANGE where the range is not inside the file. */
int vhdx_read(const struct layer *layer, const struct vhdx *v, void *buffer, uint64_t length,
	uint64_t offset);

/* As table_get(), for offsets that are multiples of 8; always at least 8 bytes. */
struct vhdx_table {
	const uint8_t *bytes;
	uint64_t length;
	bool held;
	struct table_view view;
	uint8_t page[VHDX_PAGE];
};
int vhdx_table_get(const struct layer *layer, uint64_t offset, struct vhdx_table *t);
void vhdx_table_done(const struct layer *layer, struct vhdx_table *t, enum map_detail detail);

#endif
