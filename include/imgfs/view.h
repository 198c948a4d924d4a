/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views: what does the file look like?
 *
 * A view format (struct view_format) lays a file out as a handful of named regions, whatever
 * the size of the disk. Everything else is written once on regions: reading, SEEK_DATA and
 * SEEK_HOLE, block counts, a dump for humans. A view format hears nothing of the format that it
 * is fed from; the two meet at guest bytes (image.h) and at the occupancy.
 */
#ifndef IMGFS_VIEW_H
#define IMGFS_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "imgfs/image.h"
#include "imgfs/occupancy.h"
#include "imgfs/why.h"

struct plan;
struct view;

enum region_kind {
	REGION_BYTES,    /* a few bytes, made at layout */
	REGION_TABLE,    /* filled on demand by a pure function of the view */
	REGION_ZERO,     /* padding: a hole */
	REGION_GUEST,    /* guest bytes from `guest` on; zeros past the end of the disk */
	REGION_BLOCKS,   /* the occupied blocks in their order, perhaps with bytes before each */
	REGION_COMPOSED, /* put together by a function, out of guest bytes and others */
	REGION_FILE,     /* the source file itself, byte for byte */
};

/* A table that is computed. Both functions see offsets from the start of the region. */
struct view_table {
	/* Writes bytes [offset, offset + length) of the table. Any alignment. */
	void (*fill)(const struct view *view, uint64_t offset, size_t length, uint8_t *out);

	/*
	 * The end of the run that starts at offset: of zeros if *zero is set true, else of bytes
	 * that may be anything. NULL: the whole table is data.
	 */
	uint64_t (*run)(const struct view *view, uint64_t offset, bool *zero);
};

/* What has guest bytes in it in a way of its own. All of it counts as data. */
struct view_composer {
	/*
	 * Appends bytes [offset, offset + length) of the region to the plan, with plan_add_guest()
	 * and its like. 0 or what those return.
	 */
	int (*compose)(
		const struct view *view, struct plan *plan, uint64_t offset, uint64_t length);
};

struct region {
	const char *name;    /* static */
	uint64_t start, end; /* bytes of the file, half-open; regions follow without gaps */
	enum region_kind kind;
	uint8_t *bytes;                       /* BYTES: owned by the view */
	const struct view_table *table;       /* TABLE */
	const struct view_composer *composer; /* COMPOSED */
	uint64_t guest;                       /* GUEST: guest offset of the first byte */
	uint32_t lead;                        /* BLOCKS: bytes of 0xff before each block */
};

/* What a mount says of all its views. */
struct view_options {
	enum vmdk_adapter { ADAPTER_LSILOGIC, ADAPTER_BUSLOGIC, ADAPTER_IDE } adapter;
	unsigned hardware_version; /* of the virtual machine, 1.. */
	unsigned tools_version;
	unsigned sector_size; /* 512 or 4096: what the guest is told */
	bool monolithic_flat; /* createType of a flat VMDK; else vmfs */
};

extern const struct view_options view_options_default;

struct view_format {
	const char *name; /* "qcow2", "vmdk-flat" */
	const char
		*suffix; /* of the file's name, as -o views= calls it too: "qcow2", "flat.vmdk" */
	bool compact;    /* needs the occupancy */

	/*
	 * A standalone source of this format (and of this variant, where one is said) already is
	 * such a file and is served as it is. NULL: none is.
	 */
	const char *as_is;
	const char *as_is_variant;

	/*
	 * A second file that belongs to each of its files, beside it: "-flat.vmdk" takes the place
	 * of ".vmdk" in the name. The first one's bytes depend on its own name then.
	 */
	const struct view_format *second;

	/*
	 * Does a disk of so many bytes fit the format whatever its map is? Where the answer is no,
	 * it is laid out to know.
	 */
	bool (*surely_fits)(uint64_t virtual_size);

	/* Appends the regions. 0, -EFBIG (does not fit the format, with the reason), -ENOMEM. */
	int (*layout)(struct view *view, struct why *why);
};

/* The views of this build, in the order of the list in meson.build; NULL ends it. */
extern const struct view_format *const view_formats[];

#define VIEW_MAX_REGIONS 16

struct view {
	const struct view_format *format;
	struct image *image;               /* one reference */
	const struct occupancy *occupancy; /* compact formats only; the image's */
	const struct occupancy *blocks;    /* the same by blocks: a unit of it is block_size */
	struct occupancy *own_blocks;      /* where it is not the image's */
	uint64_t block_size;               /* bytes */
	bool identity;                     /* the source file, byte for byte */
	const struct view_options *options;
	char *name; /* that it is shown by; NULL where nothing depends on it */

	struct region regions[VIEW_MAX_REGIONS];
	size_t region_count;
	uint64_t size; /* bytes: the end of the last region */

	/* What the format's table functions need to know; from calloc, freed with the view. */
	void *params;
};

/* ---- for layout ---- */

/* The disk as the file states it: the virtual size rounded up to whole sectors of 512. */
uint64_t view_disk_size(const struct view *view);

/*
 * A UUID for the disk, or for what else `number` stands for: it follows from the path of the image
 * and from what is known of the disk, so views of the same file have the same on every mount, and
 * two disks have two. 16 bytes, in either byte order.
 */
void view_make_uuid(const struct view *view, uint64_t number, uint8_t *uuid);

/* Each appends a region of length bytes at the end of the file. Empty ones are left out. */
uint8_t *view_add_bytes(struct view *view, const char *name, size_t length); /* zeroed; NULL */
void view_add_table(
	struct view *view, const char *name, uint64_t length, const struct view_table *table);
void view_add_zero(struct view *view, const char *name, uint64_t length);
void view_add_guest(struct view *view, const char *name, uint64_t guest, uint64_t length);

/*
 * From here on blocks are of so many bytes, OCCUPANCY_UNIT (as before the first call) times a
 * power of two up to 4096. 0, -EFBIG, -ENOMEM with the reason.
 */
int view_use_blocks(struct view *view, uint64_t block_size, struct why *why);

/* All occupied blocks, each with `lead` bytes of 0xff before it. */
void view_add_blocks(struct view *view, const char *name, uint32_t lead);
void view_add_composed(
	struct view *view, const char *name, uint64_t length, const struct view_composer *composer);

/* The source file, where that is standalone and of the format. False: it is not. */
bool view_add_source(struct view *view, const char *format);

/* ---- for everybody else ---- */

/*
 * The view of an image in a format. Takes its own reference to the image. 0; -EFBIG where the
 * disk does not fit the format; -errno where the tables of the image cannot be read.
 */
int view_open(
	struct image *image, const struct view_format *format, struct view **view, struct why *why);

/* The same as a mount shows it: by this name (NULL: any), with these options. */
int view_open_as(struct image *image, const struct view_format *format, const char *name,
	const struct view_options *options, struct view **view, struct why *why);
void view_close(struct view *view);

/*
 * The next data (or hole) at or after offset, as lseek(2) has it: -ENXIO at or past the end, and
 * for data where only a hole follows; a hole is always found, at the end of the file at last.
 */
int view_seek_data(const struct view *view, uint64_t offset, uint64_t *found);
int view_seek_hole(const struct view *view, uint64_t offset, uint64_t *found);

/* Allocated space in units of 512 bytes: at least 1 unless the view is empty. 0 or -errno. */
int view_blocks(const struct view *view, uint64_t *blocks);

/* The regions, a line each, for a bug report. */
void view_dump(const struct view *view, FILE *out);

/* One stretch of a read. */
enum piece_kind {
	PIECE_ZERO,
	PIECE_MEMORY,
	PIECE_FILE,
};

struct piece {
	enum piece_kind kind;
	uint64_t length;
	const uint8_t *bytes;    /* MEMORY: the plan's */
	const struct file *file; /* FILE: the image's */
	uint64_t offset;         /* FILE */
};

/* What a read consists of, in order, without gaps. Holds cache entries until plan_release(). */
struct plan {
	const struct view *view;
	struct piece *pieces;
	size_t count, capacity;
	struct held *held; /* memory and cache entries that the pieces point into */
	bool has_turn;     /* of those that hold large units; to be released by the same thread */
};

/*
 * Plans the read of [offset, offset + length), cut at the end of the view. 0; -EIO where the
 * range holds damage (log_line() has said so); -errno. plan_release() in any case.
 */
int view_plan(const struct view *view, uint64_t offset, uint64_t length, struct plan *plan);
void plan_release(struct plan *plan);
uint64_t plan_length(const struct plan *plan);

/* For composers. Each appends; 0 or -errno. */
int plan_add_guest(struct plan *plan, uint64_t guest, uint64_t length);
int plan_add_zero(struct plan *plan, uint64_t length);
uint8_t *plan_add_memory(struct plan *plan, uint64_t length); /* to be filled; NULL */

/* Reads guest bytes now, for what is computed from them; zeros past the end of the disk. */
int plan_read_guest(struct plan *plan, uint64_t guest, uint64_t length, uint8_t *buffer);

/* Copies the bytes of the plan. 0, -EIO, or -ESTALE where a file turned out shorter. */
int plan_read(const struct plan *plan, uint8_t *buffer);

/*
 * Reads up to length bytes at offset; *done is less only at the end of the view. What comes back
 * is of one state of the source: image_verify() has held after the last byte was read.
 */
int view_read(
	const struct view *view, uint64_t offset, uint64_t length, uint8_t *buffer, uint64_t *done);

#endif
