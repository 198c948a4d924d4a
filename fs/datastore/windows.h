/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_WINDOWS_H
#define IMGFS_WINDOWS_H

#include "imgfs/archive.h"
#include "imgfs/datastore.h"

/*
 * From here on what is read of the file are these windows of its descriptor, in their order. The
 * file is plain and nobody else has it yet. 0, -EINVAL (not inside), -ENOMEM.
 */
int windows_set(struct file *file, const struct file_window *windows, size_t count);

#endif
