/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog: the tree that the mount shows. A name in it is an (image, view) pair.
 *
 * Nodes are known by a number of 64 bits. A directory's is a hash of its path; a view's is a hash
 * of its path and of the state of the files that it is made of. So numbers are the same on every
 * mount, and a source that changes gets a new one: the kernel then has a new inode with a page
 * cache of its own, and pages of two states can never mix.
 */
#ifndef IMGFS_CATALOG_H
#define IMGFS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "imgfs/choice.h"
#include "imgfs/image.h"
#include "imgfs/view.h"

#define CATALOG_ROOT 1 /* as FUSE has it */

struct catalog;
struct handle;
struct listing;

struct catalog_options {
	bool set_uid, set_gid; /* owner of everything, instead of the source's */
	uid_t uid;
	gid_t gid;
	int fmask, dmask;  /* mode bits to take away, instead of the source's mode; -1 for none */
	bool allow_in_use; /* open even what a QEMU holds for writing */

	struct choices choices; /* which views there are; none: the default ones */
	bool folders;           /* each image has a directory of its own: layout=dir */
	bool snapshots;         /* internal ones are images too */
};

int catalog_new(const struct image_context *images, const struct catalog_options *options,
	struct catalog **catalog);
void catalog_free(struct catalog *catalog); /* and what is still open */

/*
 * Finds name in the directory and takes a reference to its node, which catalog_forget() gives
 * back. st->st_ino is its number. -ENOENT also for what is there but refused.
 */
int catalog_lookup(struct catalog *catalog, uint64_t directory, const char *name, struct stat *st);
void catalog_forget(struct catalog *catalog, uint64_t id, uint64_t count);

/* -ESTALE where the sources of the view are no longer those that the number stands for. */
int catalog_getattr(struct catalog *catalog, uint64_t id, struct stat *st);

/*
 * A view, open: it and all its sources stay as they were, or reads of it fail. -EBUSY where a QEMU
 * may be writing to one of them, unless the options allow that.
 */
int catalog_open(struct catalog *catalog, uint64_t id, struct handle **handle);
void catalog_close(struct catalog *catalog, struct handle *handle);
const struct view *handle_view(const struct handle *handle);
const struct stat *handle_stat(const struct handle *handle);

/*
 * Is what the kernel has of the view as good as what it would read now? Not right after a change:
 * its pages may come from a time when the source had its new times and not all of its new bytes.
 */
bool handle_keeps_pages(const struct handle *handle);

/* A directory that is being read. Its names are those of the call. */
int catalog_list(struct catalog *catalog, uint64_t directory, struct listing **listing);
void listing_free(struct catalog *catalog, struct listing *listing);

struct listing_entry {
	const char *name; /* the listing's, or the reader's until its next entry */
	bool directory;
	uint64_t id;
};

/* A stretch of it, read by one thread. */
struct listing_reader {
	const struct listing *listing;
	uint64_t position; /* of the entry; any number from 0 on, the same for the same name */
	bool attributes;   /* will be asked for of all entries */
	struct open_directory directory;
	int64_t since;
	char name[256]; /* of the entry that was read last, where the listing does not have it */
};

void listing_read_begin(struct listing_reader *reader, const struct listing *listing,
	uint64_t position, bool attributes);
void listing_read_end(struct listing_reader *reader);

/*
 * The first entry at or after reader->position, which becomes that entry's. Refused images are
 * left out, as of now. 1, 0 where none follows, or -ENOMEM.
 */
int listing_read_next(struct listing_reader *reader, struct listing_entry *entry);

/* As catalog_lookup() of the entry that was just read. */
int listing_read_attributes(struct listing_reader *reader, struct stat *st);

#endif
