/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives: regular files that hold disks, as an OVA does.
 *
 * To the rest of the program the files in "dir/x.ova" have paths, "dir/x.ova/disk1.vmdk", that
 * datastore_open_file() and datastore_stat() take as any others: what an image in an archive
 * names is looked for beside it, in the archive. Which there are is here for who lists them.
 *
 * An archive format (struct archive_format) tells what an archive says that is in it, and where
 * the bytes of that are. It opens nothing.
 */
#ifndef IMGFS_ARCHIVE_H
#define IMGFS_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "imgfs/datastore.h"
#include "imgfs/why.h"

/* Files that an archive can have at most. */
#define ARCHIVE_MAX_FILES 4096

/* Some bytes of the archive. */
struct file_window {
	uint64_t offset, length;
};

/* A file in an archive. What is read of it are its windows, one after the other. */
struct archived_file {
	char *name;   /* without a directory; no "/", not "", "." or ".." */
	bool is_disk; /* it is an image; else a file that an image may name */
	int error;    /* -errno where it cannot be opened, and why */
	char *reason;
	struct file_window *windows; /* all inside the archive */
	size_t window_count;
};

/* What is in an archive. */
struct archived;

struct archive_format {
	const char *name;            /* "ova" */
	const char *const *suffixes; /* lower case; NULL ends the list */

	/*
	 * Adds with archived_add() what is in the file. What cannot be opened is added with the
	 * reason. 0, or -errno with the reason where it is no such archive, or too damaged to tell.
	 */
	int (*list)(const struct file *file, struct archived *archived, struct why *why);
};

/* The formats of this build, in the order of the list in meson.build; NULL ends it. */
extern const struct archive_format *const archive_formats[];

/*
 * Adds a file, whose name is copied; it is good until the next one is added. Two of one name
 * cannot be told apart: neither can be opened. NULL out of memory.
 */
struct archived_file *archived_add(struct archived *archived, const char *name);

/* Adds a window to a file. False: out of memory. */
bool archived_add_window(struct archived_file *file, uint64_t offset, uint64_t length);

/* Says why a file cannot be opened. The first reason stays. */
__attribute__((format(printf, 3, 4))) void archived_refuse(
	struct archived_file *file, int error, const char *fmt, ...);

/* ---- for who lists them ---- */

/*
 * What is in the archive at path; costs a stat where that is known and the file has not changed.
 * -errno with the reason where it cannot be told. Every 0 needs an archived_put().
 */
int datastore_archive(const struct datastore *ds, const char *path,
	const struct archived **archived, struct why *why);
void archived_put(const struct archived *archived);

size_t archived_count(const struct archived *archived);
const struct archived_file *archived_at(const struct archived *archived, size_t index);
const struct archived_file *archived_find(const struct archived *archived, const char *name);

#endif
