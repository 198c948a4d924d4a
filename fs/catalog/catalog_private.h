/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the catalog share. */
#ifndef IMGFS_CATALOG_PRIVATE_H
#define IMGFS_CATALOG_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "imgfs/age.h"
#include "imgfs/catalog.h"

/*
 * S3 of the policy: the daemon stays below 256 MiB whatever the datastore holds. An image that is
 * known takes about 600 bytes, a name that the kernel holds 120.
 */
#define FOLDER_MAX_FILES 200000u /* in one directory; beyond, it is not shown */
#define KNOWN_MAX_FILES  50000u  /* in directories that are remembered, besides the last one */
#define NODES_MAX_VIEWS  150000u /* that the kernel need not look up again */
#define SNAPSHOTS_KNOWN  20000u  /* of all images; those of further images are not shown */

struct nodes;
struct pool;

/* What the catalog is put together from; none of it changes while it lives. */
struct catalog_parts {
	const struct image_context *images;
	struct catalog_options options;
	struct pool *pool;
	struct nodes *nodes;
};

/* ---- naming.c: which names does a directory show? Pure. ---- */

struct naming {
	const char *file; /* name of the source file */
	bool hidden;      /* no image of its own */
	bool archive;     /* shown as a directory, under its own name */
	bool whole;       /* its views keep the whole name: "a.qcow2.raw" */
};

struct naming_rules {
	const struct choices *choices;
	bool folders;                   /* each image has a directory for its views: layout=dir */
	const char *const *directories; /* names of subdirectories, sorted; they take precedence */
	size_t directory_count;
};

/*
 * Decides for the files of one directory, sorted by name (strcmp), from their names alone, so
 * that what an image holds never changes how another is called. 0 or -ENOMEM.
 */
int naming_decide(struct naming *files, size_t count, const struct naming_rules *rules);

/* What its views are called before the suffix: "a" or "a.qcow2"; of a snapshot "a@NAME". */
int naming_base(const char *file, bool whole, char **base);

/* The name of a view, the caller's to free. -ENAMETOOLONG: there can be none. -ENOMEM. */
int naming_view_name(const char *file, bool whole, const struct choice *choice, char **name);

/* Is name `base` bytes of anything and the suffix of the choice? */
bool naming_ends_in(const char *name, const struct choice *choice, size_t *base);

/* ---- pool.c: images kept open, with their views ---- */

struct pooled;

struct pool *pool_new(const struct image_context *images, const struct choices *choices);
void pool_free(struct pool *pool);

/* The image at path in its present state. Each 0 needs a pool_put(). As image_open(). */
int pool_get(struct pool *pool, const char *path, struct pooled **pooled, struct why *why);
void pool_put(struct pool *pool, struct pooled *pooled);

/* The same of an image that was served a moment ago: -ESTALE where it is not the same any more. */
int pool_get_again(struct pool *pool, const char *path, struct pooled **pooled, struct why *why);
struct image *pooled_image(const struct pooled *pooled);

/* The age of the last change when the image was opened; see age.c. */
int64_t pooled_age(const struct pooled *pooled);

/* Its view by choices->list[index], made at the first call. */
int pooled_view(struct pooled *pooled, size_t index, const struct view **view, struct why *why);

/* ---- item.c: a source file and what is known of it ---- */

struct item;

struct view_facts {
	uint64_t size;   /* bytes */
	uint64_t blocks; /* of 512 bytes */
};

/* What listing and stat need of an image; it outlives the open image. */
struct facts {
	uint64_t generation;
	uint64_t virtual_size;
	mode_t mode; /* of the least readable of the files */
	uid_t uid;
	gid_t gid;
	struct timespec mtime, ctime;
};

struct item *item_new(const struct catalog_parts *c, const char *directory, const char *name);
struct item *item_ref(struct item *item);
void item_unref(struct item *item);
const char *item_name(const struct item *item);
const char *item_path(const struct item *item);

/*
 * What the image is now: opened if it is not known or has changed. -ENOENT where the file is
 * gone, is no image, or is refused (which is logged once). directory: the item's, where it is open
 * already; NULL. Of an archive: whether it can be read.
 */
int item_facts(const struct catalog_parts *c, struct item *item,
	const struct open_directory *directory, struct facts *facts);

/*
 * Its snapshots, images of their own, as they were when it was last looked at: the one of that
 * number, or of that name (length bytes). NULL for none; the caller has a reference.
 */
struct item *item_snapshot(struct item *item, size_t number);
struct item *item_snapshot_named(struct item *item, const char *name, size_t length);

/* Has it been looked at before, whatever came of it? */
bool item_is_known(struct item *item);

/* The same without a look at any file. -EAGAIN where it was last served before `since`. */
int item_facts_since(struct item *item, int64_t since, struct facts *facts);

/* Size and blocks of its view in the state of `facts`. -ESTALE if it has changed since. */
int item_view_facts(const struct catalog_parts *c, struct item *item, size_t view,
	const struct facts *facts, struct view_facts *view_facts);

/* Does the view exist at all? True without a look for disks that every format holds. */
bool item_has_view(
	const struct catalog_parts *c, struct item *item, size_t view, const struct facts *facts);

/* ---- folder.c: a directory, its items, and the names that they show ---- */

/* Instead of a view: the directory that an archive, or with layout=dir an image, is shown as. */
#define SHOWN_DIRECTORY SIZE_MAX

struct shown {
	char *name;
	struct item *item;
	size_t view; /* index of a choice, or SHOWN_DIRECTORY */
	bool whole;  /* the name begins with the file's whole name */
};

/*
 * A directory of the datastore; or of the mount alone: an archive with its disks, an image with
 * its views. Then path is the file's.
 */
struct folder {
	atomic_uint refs;
	const struct choices *choices;
	bool folders; /* it shows a directory for each image: layout=dir */
	char *path;
	struct file_state state;
	bool unsettled;     /* state does not tell whether it is still like that: read it again */
	char **directories; /* of the datastore, sorted */
	size_t directory_count;
	struct item **items; /* sorted by name */
	size_t item_count;
	struct shown *shown; /* sorted by name */
	size_t shown_count;
};

/* Reads the directory at path; takes over items of `before` (may be NULL) by their names. */
int folder_read(const struct catalog_parts *c, const char *path, const struct folder *before,
	struct folder **folder);

/* The directory of the disks of the archive at path, which is in that state. */
int folder_of_archive(const struct catalog_parts *c, const char *path,
	const struct file_state *state, const struct folder *before, struct folder **folder);

/* The directory of the views of one image, which is an item of another folder. */
int folder_of_item(const struct catalog_parts *c, struct item *item, const struct file_state *state,
	struct folder **folder);
struct folder *folder_ref(struct folder *folder);
void folder_unref(struct folder *folder);

bool folder_has_directory(const struct folder *folder, const char *name);

/* The item of the file of that name; NULL for none. */
struct item *folder_item(const struct folder *folder, const char *name);

/* ---- shown.c: which name stands for what in a folder ---- */

/* From files as naming.c has decided, whose items are those of the folder, in the same order. */
int shown_fill(struct folder *folder, const struct naming *files);

/* Of the folder of one image. */
int shown_fill_views(struct folder *folder);

/* What a name stands for, listed or as a whole-name form. False for nothing. */
bool shown_find(const struct folder *folder, const char *name, struct item **item, size_t *view);

/* ---- snapshots.c: their names, with -o snapshots ---- */

/* The name of the snapshot's view, as that of its image is shown: "a@NAME.raw". -errno. */
int snapshots_name(const struct catalog_parts *c, const struct folder *folder,
	const struct shown *shown, const struct item *snapshot, char **name);

/* What such a name stands for; the caller has a reference to the item. NULL for nothing. */
struct item *snapshots_find(
	const struct catalog_parts *c, const struct folder *folder, const char *name, size_t *view);

/* ---- nodes.c: numbers that the kernel holds ---- */

struct node {
	uint64_t id;
	char *path;        /* of a directory; NULL for a view */
	struct item *item; /* NULL for a directory */
	size_t view;
	uint64_t generation;
	time_t old; /* CLOCK_MONOTONIC when first opened after its last change was old, or 0 */
};

struct nodes *nodes_new(void);
void nodes_free(struct nodes *nodes);

uint64_t nodes_directory_id(const char *path);
uint64_t nodes_view_id(const char *item_path, const struct choice *choice, uint64_t generation);

/*
 * Takes a reference to the node, which is made if it is not there. item gets one of its own. Where
 * there are too many, that of the view which was looked up longest ago is forgotten: whoever asks
 * for it is told -ESTALE, and the kernel looks it up again.
 */
int nodes_enter(struct nodes *nodes, const struct node *node);
void nodes_forget(struct nodes *nodes, uint64_t id, uint64_t count);

/*
 * The node is opened, and its last change is old. True: it has been for a while, so the kernel
 * has no page of it from before.
 */
bool nodes_open_old(struct nodes *nodes, uint64_t id);

/* A copy with references of its own; release with node_release(). -ESTALE if not known. */
int nodes_get(struct nodes *nodes, uint64_t id, struct node *node);
void node_release(struct node *node);

/* ---- entry.c: what the kernel is told of a name ---- */

/* A directory that has become something else, or that leads out now, is gone. */
int entry_directory_error(int r);

/* Of the directory at path, or of the file that is shown as one, as it is in the datastore. 0, or
 * -errno as the kernel shall see it. */
int entry_stat_directory(
	const struct catalog_parts *c, const char *path, struct stat *st, bool *is_file);

/* As it is shown. */
void entry_directory_stat(
	const struct catalog_parts *c, const struct stat *source, uint64_t id, struct stat *st);
void entry_view_stat(const struct catalog_parts *c, const struct facts *facts,
	const struct view_facts *view, uint64_t id, struct stat *st);

/* The same, and takes a reference to the node. 0 or -errno. */
int entry_enter_directory(
	const struct catalog_parts *c, const char *parent, const char *name, struct stat *st);
int entry_enter_item(const struct catalog_parts *c, struct item *item, struct stat *st);
int entry_enter_view(const struct catalog_parts *c, struct item *item, size_t view,
	const struct facts *facts, const struct view_facts *view_facts, struct stat *st);

/* ---- listing.c: a directory as it is read ---- */

struct listing {
	struct listing *prev, *next; /* in the catalog's list */
	const struct catalog_parts *parts;
	struct folder *folder;
};

/* Takes its own reference to the folder. 0 or -ENOMEM. */
int listing_new(const struct catalog_parts *parts, struct folder *folder, struct listing **listing);
void listing_destroy(struct listing *listing);

#endif
