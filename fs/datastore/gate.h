/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the datastore share. */
#ifndef IMGFS_GATE_H
#define IMGFS_GATE_H

#include "imgfs/datastore.h"

/* As datastore_open_file(), of a file that has a name of its own; what is read is what is in it. */
int gate_open(const struct datastore *ds, const char *path, struct file **file, struct why *why);

/* As datastore_stat() of such a file, or of anything else. */
int gate_stat(const struct datastore *ds, const char *path, struct stat *st);

/*
 * The same of a file in an archive, whose path is the archive's and one component. -ENOTDIR where
 * it is not that.
 */
int archive_open_file(
	const struct datastore *ds, const char *path, struct file **file, struct why *why);
int archive_stat(const struct datastore *ds, const char *path, struct stat *st);

/*
 * The plain file, whose name ends in the suffix of a compression, becomes what is in it. 0 or
 * -errno with the reason.
 */
int packed_set(const struct datastore *ds, struct file *file, const char *suffix, struct why *why);

/* Gives the file another path. 0 or -ENOMEM. */
int file_set_path(struct file *file, const char *path);

#endif
