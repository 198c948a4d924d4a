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

struct view;

enum region_kind {
	REGION_BYTES, /* a few bytes, made at layout */
	REGION_TABLE, /* filled on demand by a pure function of the view */
	REGION_ZERO,  /* padding: a hole */
	REGION_GUEST, /* guest bytes from `guest` on; zeros past the end of the disk */
	REGION_UNITS, /* the occupied units in their order, each OCCUPANCY_UNIT bytes */
	REGION_FILE,  /* the source file itself, byte for byte */
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

struct region {
	const char *name;    /* static */
	uint64_t start, end; /* bytes of the file, half-open; regions follow without gaps */
	enum region_kind kind;
	uint8_t *bytes;                 /* BYTES: owned by the view */
	const struct view_table *table; /* TABLE */
	uint64_t guest;                 /* GUEST: guest offset of the first byte */
};

struct view_format {
	const char *name;   /* "qcow2"; a standalone source of that name is served as it is */
	const char *suffix; /* of the file's name, without the dot */
	bool compact;       /* needs the occupancy */

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
	bool identity;                     /* the source file, byte for byte */

	struct region regions[VIEW_MAX_REGIONS];
	size_t region_count;
	uint64_t size; /* bytes: the end of the last region */

	/* What the format's table functions need to know; from calloc, freed with the view. */
	void *params;
};

/* ---- for layout ---- */

/* The disk as the file states it: the virtual size rounded up to whole sectors of 512. */
uint64_t view_disk_size(const struct view *view);

/* Each appends a region of length bytes at the end of the file. Empty ones are left out. */
uint8_t *view_add_bytes(struct view *view, const char *name, size_t length); /* zeroed; NULL */
void view_add_table(
	struct view *view, const char *name, uint64_t length, const struct view_table *table);
void view_add_zero(struct view *view, const char *name, uint64_t length);
void view_add_guest(struct view *view, const char *name, uint64_t guest, uint64_t length);
void view_add_units(struct view *view, const char *name); /* all occupied units */

/* ---- for everybody else ---- */

/*
 * The view of an image in a format. Takes its own reference to the image. 0; -EFBIG where the
 * disk does not fit the format; -errno where the tables of the image cannot be read.
 */
int view_open(
	struct image *image, const struct view_format *format, struct view **view, struct why *why);
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

/* Copies the bytes of the plan. 0, -EIO, or -ESTALE where a file turned out shorter. */
int plan_read(const struct plan *plan, uint8_t *buffer);

/*
 * Reads up to length bytes at offset; *done is less only at the end of the view. What comes back
 * is of one state of the source: image_verify() has held after the last byte was read.
 */
int view_read(
	const struct view *view, uint64_t offset, uint64_t length, uint8_t *buffer, uint64_t *done);

#endif
