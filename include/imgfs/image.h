/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: what is at guest offset X?
 *
 * A source format (struct image_format) finds the bytes of a guest range and never reads them:
 * it maps. The core does everything else once for all formats: it recognises and opens, follows
 * parents, checks and merges what map says, reads, unpacks, caches, and knows when a source has
 * changed. A format hears nothing of views.
 *
 * All offsets and lengths are bytes in uint64_t, all ranges half-open.
 */
#ifndef IMGFS_IMAGE_H
#define IMGFS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "imgfs/datastore.h"
#include "imgfs/why.h"

struct cache;
struct image;
struct layer;

/* ---- what a format says ---- */

enum extent_kind {
	EXTENT_ZERO,    /* reads as zeros; nothing is allocated */
	EXTENT_DATA,    /* the bytes at file, offset */
	EXTENT_PACKED,  /* one compressed unit at file, offset */
	EXTENT_BACKING, /* whatever the parent has at the same guest offset */
	EXTENT_DAMAGED, /* allocated, but the entry that says where is nonsense: reads give EIO */
};

enum codec {
	CODEC_DEFLATE, /* raw deflate (RFC 1951), any window up to 32 KiB */
	CODEC_ZLIB,    /* zlib (RFC 1950), its adler32 is verified */
	CODEC_ZSTD,    /* one zstd frame or several */
};

/* Can this build unpack it? A format that finds it cannot refuses the image at open. */
bool codec_supported(enum codec codec);

/* No unit may unpack to more than this; a format that allows it is refused at open. */
#define PACKED_UNIT_MAX (16u << 20)

struct extent {
	uint64_t start, end; /* guest bytes; start <= the offset asked for < end */
	enum extent_kind kind;
	const struct file *file; /* DATA and PACKED */
	uint64_t offset;         /* DATA: where the byte at `start` is; PACKED: first packed byte */

	/* PACKED only. [start, end) is the unit's guest range or a part of it. */
	uint32_t packed_length; /* bytes of input, at most; the decoder stops by itself */
	uint32_t unit;          /* bytes that the unit unpacks to, 1..PACKED_UNIT_MAX */
	uint32_t need;          /* a stream that ends after this many is whole; the rest is zero */
	uint32_t skip;          /* bytes of the unpacked unit before `start` */
	enum codec codec;
};

/* How much of an extent matters to who asks. */
enum map_detail {
	MAP_PLACE, /* everything: the bytes are going to be read */
	MAP_KIND,  /* the kind alone. DATA may then run over scattered places and stand for
		      PACKED and DAMAGED as well; file and offset mean nothing. A format should
		      make its runs as long as one page of its tables lets it. */
};

/* What a format may look at when it is asked whether a file is its own. */
struct probe {
	const uint8_t *head; /* the first bytes of the file */
	size_t head_length;  /* PROBE_BYTES, or the size of the file where that is less */
	const uint8_t *tail; /* its last 512 bytes; NULL where the file is shorter */
	uint64_t size;
};

#define PROBE_BYTES 4096

enum parent_match {
	PARENT_NOT,
	PARENT_CHANGED, /* the disk that it was, but in another state */
	PARENT_YES,
};

/* An internal snapshot as the image has it; both texts without a 0 at their end. */
#define SNAPSHOT_NAME_MAX 200  /* bytes; longer ones cannot be told */
#define SNAPSHOTS_MAX     1024 /* of one image; those after them cannot be told */

struct snapshot_seen {
	uint32_t number;               /* in the image's order, from 0 */
	uint64_t size;                 /* virtual size, bytes */
	size_t name_length, id_length; /* 0: none, or too long */
	char name[SNAPSHOT_NAME_MAX], id[SNAPSHOT_NAME_MAX];
};

/* 0, or -errno, which ends it. */
typedef int snapshot_found(const struct snapshot_seen *seen, void *argument);

struct image_format {
	const char *name;  /* "qcow2": what a backing format field says, and -o format= */
	const char *alias; /* QEMU's name, where that is another one ("vpc"); else NULL */

	/*
	 * Suffixes, lower case, that declare this format; NULL ends the list. Views drop them from
	 * the name. Where several formats have the same, the magic decides between them.
	 */
	const char *const *suffixes;

	/*
	 * Is it mine? 0 no, 100 the magic is there. Looks at the probe alone. raw says 1.
	 */
	int (*probe)(const struct probe *probe);

	/*
	 * Validates the header and every entry of the top-level table of layer->file, and fills
	 * layer->size, ->standalone, ->unit, ->state. May name other files (layer_open_file) and a
	 * parent (layer_set_parent). On failure everything it allocated is freed again, files
	 * excepted (they are the image's); the reason is one sentence for an admin, without the
	 * file's name. -EINVAL damaged, -ENOTSUP legal but not supported, or what the gate said.
	 */
	int (*open)(struct layer *layer, struct why *why);

	/*
	 * The extent that covers offset. 0 <= offset, length > 0, offset + length <= layer->size.
	 * `length` is a hint how much is wanted; the extent may end before or after. Checks every
	 * leaf entry that it uses; one that is nonsense (outside the file, misaligned, reserved
	 * combination) is EXTENT_DAMAGED, never an error and never invented zeros. An error is
	 * returned only where a table cannot be read. Called by many threads at once.
	 */
	int (*map)(const struct layer *layer, uint64_t offset, uint64_t length,
		enum map_detail detail, struct extent *extent);

	/* Frees layer->state. NULL if there is nothing to free. */
	void (*close)(struct layer *layer);

	/*
	 * Is the file that begins like this the parent of a layer that knows it by an id and not by
	 * name (layer_find_parent())? NULL where parents have names.
	 */
	enum parent_match (*is_parent)(const struct layer *layer, const struct probe *probe);

	/*
	 * Internal snapshots, of an open layer: calls found for each. -EINVAL where the table of
	 * them is damaged, after those before the damage. NULL: the format has none.
	 */
	int (*snapshots)(const struct layer *layer, snapshot_found *found, void *argument);

	/* The layer is from now on as it was at that snapshot, its size too. */
	int (*use_snapshot)(struct layer *layer, uint32_t number, struct why *why);

	/*
	 * Once the parent is open: may this layer stand on it (VMDK's CID rule)? NULL: on any.
	 */
	int (*accept_parent)(
		const struct layer *layer, const struct layer *parent, struct why *why);
};

/* The formats of this build, in the order of the list in meson.build; NULL ends it. */
extern const struct image_format *const image_formats[];

const struct image_format *image_format_by_name(const char *name);

/* ---- what a format works on ---- */

/* One image file of a chain: layer 0 is the image itself, the last one has no parent. */
struct layer {
	const struct image_format *format;
	struct image *image;
	struct file *file; /* the file that names the layer: header or descriptor */

	/* Filled by the format's open. */
	uint64_t size;       /* virtual size in bytes; any value up to INT64_MAX */
	bool standalone;     /* layer->file alone is the whole image, and legal as it is */
	uint64_t unit;       /* guest bytes of the smallest entry of its tables; 0: it has none */
	const char *variant; /* static: "streamOptimized", "fixed"; NULL where there is one kind */
	void *state;

	/* The core's. */
	char *parent_name; /* as recorded; NULL for none */
	size_t parent_name_length;
	bool parent_by_id;                        /* parent_name only says whom to look for */
	const struct image_format *parent_format; /* NULL: not recorded */
	struct layer *parent;
};

/*
 * Opens a file that the image names, under the references policy. The name is as found in the
 * image, length bytes. *file is the image's and is closed with it; a file may be asked for twice.
 */
int layer_open_file(
	struct layer *layer, const char *name, size_t length, struct file **file, struct why *why);

/*
 * Records the parent; the core opens it after this layer. format_name is what the image
 * records, NULL or "" where it records none (then the parent is raw if its name ends in ".raw",
 * else the image is refused). -ENOTSUP for a format that this build does not read.
 */
int layer_set_parent(struct layer *layer, const char *name, size_t length, const char *format_name,
	struct why *why);

/*
 * The same for a parent of the layer's own format that it knows by an id alone: the core looks for
 * the file that format->is_parent() says yes to, among those with a suffix of the format that the
 * image may name. `what` is whom it looks for, in a message: "the VDI with UUID 1234".
 */
int layer_find_parent(struct layer *layer, const char *what, struct why *why);

/* A few bytes of a table, held in the cache. */
struct table_view {
	const uint8_t *bytes;
	uint64_t length; /* valid bytes from the offset asked for: to the end of the page or file */
	void *entry;
};

/*
 * Bytes of a table of file at offset, at least `need` of them (need <= 16, and offset must be a
 * multiple of need so that no entry lies across pages), usually many more. -ERANGE where they
 * are not inside the file. Every 0 needs a table_put(), soon: it pins cache memory.
 */
int table_get(const struct layer *layer, const struct file *file, uint64_t offset, uint32_t need,
	struct table_view *view);
void table_put(const struct layer *layer, struct table_view *view);

/* The same by a format's map: what a pass through all tables for MAP_KIND has seen is not kept. */
void table_done(const struct layer *layer, struct table_view *view, enum map_detail detail);

/* Bytes of tables that will be asked for soon: the kernel may read them meanwhile. Only a hint. */
void table_will_need(const struct file *file, uint64_t offset, uint64_t length);

/* ---- what the rest of the program does with an image ---- */

#define IMAGE_MAX_LAYERS 16
#define IMAGE_MAX_FILES  512

/* Everything that opening an image depends on. One per mount; outlives its images. */
struct image_context {
	const struct datastore *datastore;
	struct cache *cache;
	struct crew *crew; /* NULL: every thread works for itself */

	/*
	 * -o format=GLOB:NAME, first match wins: the admin declares. NULL-terminated pattern and
	 * name pairs; the pattern is matched against the path and against the file's own name.
	 */
	struct format_rule *rules;
	size_t rule_count;

	/* -o detect_zeroes: compact views leave out units that are allocated but all zero. */
	bool detect_zeroes;

	/* Does nobody wait any more for what this thread is at? NULL: somebody does. */
	bool (*interrupted)(void);
};

struct format_rule {
	char *pattern;
	const struct image_format *format;
};

/*
 * Opens the image at path, with its chain. *image has one reference. A path may denote an internal
 * snapshot (names.h): -ENOENT where there is none of that name.
 *
 * The format: a rule of the context, else the suffix where it declares one (and then the magic
 * must agree, except for raw, whose bytes are never looked at), else the magic. An image that
 * only its magic recognised may name no other file. -ENOMEDIUM: not an image at all (a text
 * file, say), nothing to report. Any other error comes with a reason worth a log line.
 */
int image_open(const struct image_context *context, const char *path, struct image **image,
	struct why *why);
struct image *image_ref(struct image *image);
void image_unref(struct image *image);

/*
 * The internal snapshots of an image, by the names that they have in paths: their own, or their id
 * where that cannot be (empty, not unique, with a slash or control bytes, too long). Those without
 * either are left out, with a line in the log. The caller frees.
 */
struct snapshots {
	struct {
		char *name;
		uint32_t number;
		uint64_t size; /* virtual size, bytes */
	} * list;
	size_t count;
};

/* 0, -ENOMEM, or what reading says. Of a damaged table those that there are before the damage. */
int image_snapshots(const struct image *image, struct snapshots *snapshots);
void snapshots_free(struct snapshots *snapshots);

uint64_t image_size(const struct image *image); /* virtual size, bytes */
const struct image_format *image_format_of(const struct image *image);
const char *image_variant(const struct image *image); /* of its format; NULL for none */
const char *image_path(const struct image *image);

/* Is the file at image_path() alone the whole image, so that it can be served as it is? */
bool image_is_standalone(const struct image *image);

/* The files that the image is made of; [0] is the one at image_path(). */
size_t image_file_count(const struct image *image);
const struct file *image_file(const struct image *image, size_t index);

/* The newest of its files. */
struct timespec image_mtime(const struct image *image);
struct timespec image_ctime(const struct image *image);

/*
 * A number for the state of all files of the image: equal as long as none of them changed, and
 * on every mount and machine that sees the same inode numbers and times.
 */
uint64_t image_generation(const struct image *image);

/* 0 while all files are as they were at the open, -ESTALE when one is not, or -errno. */
int image_verify(const struct image *image);

/* The file of it that a QEMU may be writing to, by file_in_use(); NULL for none. */
const struct file *image_in_use(const struct image *image);

/*
 * The flattened extent at offset: never BACKING, inside [offset, offset + length), merged with
 * its neighbours as far as they continue it, checked against the files. offset + length <= size.
 * A damaged place comes back as EXTENT_DAMAGED. 0, or -errno where tables cannot be read.
 */
int image_map(const struct image *image, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *extent);

/*
 * What one request may put into finding out where data is. Tables are sparse files' holes or used
 * twice for next to nothing, so that a hostile image of a few sectors can have any number of
 * entries. The unit of work is a call of a format's map, somewhat below a tenth of a microsecond;
 * the limit is what an honest image of 64 KiB clusters takes that is 32 TiB of data from end to
 * end, or 2 TiB with every second cluster allocated.
 */
#define MAP_WORK_MAX (32u << 20)

/* As image_map(), and adds to *work what it took. */
int image_map_work(const struct image *image, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent, uint64_t *work);

/* A whole unpacked unit, in the cache. Every 0 needs an image_unit_put(). -EIO for bad data. */
struct unit_view {
	const uint8_t *bytes; /* extent->unit of them */
	void *entry;
};
int image_unit_get(const struct image *image, const struct extent *extent, struct unit_view *unit);
void image_unit_put(const struct image *image, struct unit_view *unit);

/* The same of several units, on several processors. Each error tells of its own unit. */
struct unit_request {
	const struct extent *extent;
	struct unit_view unit; /* to be put where error is 0 */
	int error;
};
void image_units_get(const struct image *image, struct unit_request *requests, size_t count);

#endif
