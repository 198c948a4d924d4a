/* SPDX-License-Identifier: Apache-2.0 */
/* What file names mean: pure rules on strings, no file is looked at. */
#ifndef IMGFS_NAMES_H
#define IMGFS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The suffix of a file name without its dot: "qcow2" of "a.b.qcow2"; "" for "a", ".a" and "a.".
 * Points into name.
 */
const char *name_suffix(const char *name);

/*
 * The suffix of the compression of an image file: "gz" of "a.raw.gz", "xz" of "a.QCOW2.xz", NULL
 * of "a.gz" and "a.tar.gz", which nothing says that there is an image in. Points into name.
 */
const char *name_compression(const char *name);

/* Is it the suffix of an image file (.qcow2 .img .vmdk …), in any case? */
bool name_suffix_known(const char *suffix);

/*
 * Length of name without one known suffix, and that of its compression; the whole length where
 * there is none.
 */
size_t name_stem_length(const char *name);

/* Does the suffix of name equal `suffix`, in any case? */
bool name_has_suffix(const char *name, const char *suffix);

/*
 * Is name the file of an extent of a VMDK descriptor (x-flat.vmdk, x-s001.vmdk, x-f001.vmdk,
 * x-delta.vmdk, x-sesparse.vmdk, x-ctk.vmdk …)? Then *stem is the length of the descriptor's
 * stem, "x".
 */
bool name_is_extent(const char *name, size_t *stem);

/*
 * The family rule of the references policy: is `name` a file of the disk `top`? It is when it
 * begins with the stem of top (a delta's without its "-000001") and one of "-._@" follows.
 * Both are names without a directory.
 */
bool name_is_family(const char *top, const char *name);

/* Is it an archive of images (.ova)? */
bool name_is_archive(const char *name);

/*
 * Paths of images: "dir/a.qcow2" is a file, "dir/a.qcow2//NAME" one of its snapshots. No path of a
 * file has two slashes in a row.
 */
#define SNAPSHOT_MARK "//"

/* The last component: "a.qcow2", "a.qcow2//NAME". Points into path. */
const char *path_name(const char *path);

/* The file's part, from malloc; NULL out of memory. */
char *path_of_file(const char *path);

/* directory "/" name, or name alone where directory is ""; from malloc, NULL out of memory. */
char *path_join(const char *directory, const char *name);

#endif
