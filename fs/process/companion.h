/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process on the side that keeps the right to unmount, and nothing else, when the one that
 * serves has given it up. Where it is told of the connection it also has the kernel read files
 * for itself (backing.h). It sees no image and takes no other orders. If the server dies without
 * saying anything, the mount stays as it is and umount(8) clears it.
 *
 * What somebody gains by it who has taken the server over: the mount can be ended, and reads of
 * it can be answered from regular files that the server has open, which the server could itself.
 */
#ifndef IMGFS_COMPANION_H
#define IMGFS_COMPANION_H

struct companion {
	int orders; /* a socket to the process; -1 for none */
};

/*
 * Starts it, while there is one thread. mountpoint: absolute. connection: the session's
 * descriptor, or -1. It keeps none of the other descriptors of this process: who holds the
 * connection to the kernel keeps a mount alive whose server is dead, so it ends with the server.
 * 0 or -errno.
 */
int companion_start(struct companion *companion, const char *mountpoint, int connection);

/* Gives the order to unmount and waits until it is done; then the process ends. 0 or -errno. */
int companion_unmount(struct companion *companion);

/*
 * backing_open() and backing_close(), done by the companion. One at a time. -EIO where it is not
 * there any more, -EPERM where it was not told of the connection.
 */
int companion_backing_open(const struct companion *companion, int file);
int companion_backing_close(const struct companion *companion, int id);

/* Ends it without. */
void companion_stop(struct companion *companion);

#endif
