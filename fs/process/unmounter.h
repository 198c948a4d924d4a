/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process on the side that keeps the right to unmount, and nothing else, when the one that
 * serves has given it up. It sees no image and takes one order: unmount, now. If the server dies
 * without giving it, the mount stays as it is and umount(8) clears it.
 */
#ifndef IMGFS_UNMOUNTER_H
#define IMGFS_UNMOUNTER_H

struct unmounter {
	int orders; /* a socket to the process; -1 for none */
};

/*
 * Starts it, while there is one thread. mountpoint: absolute. It keeps none of the descriptors
 * of this process: who holds the connection to the kernel keeps a mount alive whose server is
 * dead. 0 or -errno.
 */
int unmounter_start(struct unmounter *unmounter, const char *mountpoint);

/* Gives the order and waits until it is done; then the process ends. 0 or -errno. */
int unmounter_run(struct unmounter *unmounter);

/* Ends it without. */
void unmounter_stop(struct unmounter *unmounter);

#endif
