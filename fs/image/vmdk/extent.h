/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extents of a VMDK: the pieces that a disk is made of, one after the other.
 *
 * An extent is a range of the disk and, unless it is empty by definition, one file. What the file
 * holds depends on the kind: the bytes themselves (flat), or grains that two levels of tables
 * place (hosted sparse, COWD, seSparse). The sparse kinds differ in their headers and in what an
 * entry of a table means; the walk over the tables is the same for all (tables.c).
 *
 * Offsets that a kind sees count from the start of its extent.
 */
#ifndef IMGFS_VMDK_EXTENT_H
#define IMGFS_VMDK_EXTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "descriptor.h"
#include "imgfs/image.h"

struct vmdk_extent;

/* What an entry of a directory or of a table of grains says. */
enum vmdk_entry {
	VMDK_ENTRY_ABSENT, /* nothing here: the parent's, or zeros */
	VMDK_ENTRY_ZERO,   /* zeros, whatever the parent has */
	VMDK_ENTRY_PLACED, /* at an offset of the file */
	VMDK_ENTRY_NONSENSE,
};

struct vmdk_extent_kind {
	const char *name; /* for the reason of a refusal: "a COWD extent" */

	/*
	 * Validates the file. extent->size is what the descriptor says and must be what the header
	 * says too; 0: take the header's. 0, -EINVAL, -ENOTSUP, or what a read returned.
	 */
	int (*open)(const struct layer *layer, struct vmdk_extent *extent, struct why *why);

	/* As image_format.map; the caller cuts the answer at the extent's end. */
	int (*map)(const struct layer *layer, const struct vmdk_extent *extent, uint64_t offset,
		uint64_t length, enum map_detail detail, struct extent *e);

	/*
	 * The sparse kinds: decode an entry of the directory, and one of a table of grains. *offset
	 * is set with VMDK_ENTRY_PLACED, in bytes of the file, not yet checked against its size.
	 */
	enum vmdk_entry (*table_at)(
		const struct vmdk_extent *extent, uint64_t entry, uint64_t *offset);
	enum vmdk_entry (*grain_at)(
		const struct vmdk_extent *extent, uint64_t entry, uint64_t *offset);
};

/* Where the tables are and how they are cut. All in bytes unless said otherwise. */
struct vmdk_tables {
	uint64_t directory;   /* of the file; aligned to sectors, as the tables are */
	uint32_t entry_size;  /* 4 or 8 */
	uint32_t entries;     /* of one table */
	uint64_t grain;       /* guest bytes of an entry */
	bool packed;          /* each grain is a compressed unit behind a marker */
	uint64_t first;       /* no grain lies before this offset */
	uint64_t least_place; /* entries of tables from this value on are places or nonsense */
	uint64_t table_base, grain_base; /* seSparse: what indexes count from */
};

struct vmdk_extent {
	const struct vmdk_extent_kind *kind;
	const struct file *file;   /* the image's; NULL for zeros */
	uint64_t start, size;      /* guest bytes */
	uint64_t offset;           /* flat: where the extent begins in the file */
	bool on_parent;            /* what is absent is the parent's */
	bool last;                 /* of the disk */
	struct vmdk_tables tables; /* the sparse kinds */
};

extern const struct vmdk_extent_kind vmdk_flat, vmdk_zero, vmdk_hosted, vmdk_cowd, vmdk_sesparse;

/* The first bytes of the files. */
#define VMDK_HOSTED_MAGIC     0x564d444bu           /* "KDMV" */
#define VMDK_UNFINISHED_MAGIC 0x766d646bu           /* "kdmv" */
#define VMDK_COWD_MAGIC       0x44574f43u           /* "COWD" */
#define VMDK_SESPARSE_MAGIC   0x00000000cafebabeull /* 64 bits */

/* ---- hosted.c, for a disk that is one file ---- */

struct vmdk_hosted_header {
	uint32_t version, flags;
	uint64_t capacity, grain;                    /* sectors */
	uint64_t descriptor_offset, descriptor_size; /* sectors; of the header at the start */
	uint32_t entries;                            /* of a table */
	uint64_t directory, overhead;                /* sectors */
	uint32_t algorithm;

	/* Every reader would see the same: newline bytes intact, footer where it belongs. */
	bool regular;
};

/*
 * Reads the header and, where it says so, the footer that replaces it. Checks what it takes to
 * understand them, not yet the geometry: a header of capacity 0 may only hold a descriptor.
 */
int vmdk_hosted_read(const struct file *file, struct vmdk_hosted_header *header, struct why *why);

/* ---- tables.c ---- */

/* Sets the size of the extent from the header's capacity; the two must not contradict. */
int vmdk_set_capacity(struct vmdk_extent *extent, uint64_t sectors, struct why *why);

/*
 * Once size and tables are known: the directory is inside the file, and so is every table that
 * an entry of it names.
 */
int vmdk_tables_check(const struct layer *layer, const struct vmdk_extent *extent, struct why *why);

int vmdk_tables_map(const struct layer *layer, const struct vmdk_extent *extent, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *e);

#endif
