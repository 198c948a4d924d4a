/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backing files of FUSE passthrough: an open that is answered with the id of one is read from it
 * by the kernel itself. The kernel takes them from who has CAP_SYS_ADMIN.
 */
#ifndef IMGFS_BACKING_H
#define IMGFS_BACKING_H

/*
 * Registers the file with the connection (/dev/fuse). The kernel opens it anew for each reader, so
 * the descriptor may be closed. The id, > 0; or -errno: -EPERM without the right, -ELOOP where the
 * file is on a file system that stands on another one (overlayfs), -EINVAL where it is no regular
 * file, and whatever opening it again says.
 */
int backing_open(int connection, int file);
int backing_close(int connection, int id);

#endif
