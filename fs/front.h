/* SPDX-License-Identifier: Apache-2.0 */
/* The front: FUSE requests, decoded, passed to the catalog and views, and answered once. */
#ifndef IMGFS_FRONT_H
#define IMGFS_FRONT_H

#include "fuse_api.h"
#include "imgfs/catalog.h"

struct front {
	struct catalog *catalog;
	const struct datastore *datastore;

	/*
	 * Let the kernel take plain data from the sources' descriptors instead of from a copy.
	 * It saves a fifth of the daemon's time; but what a writer does to the source after the
	 * last look at it goes into the reply, so a read can carry two states of it.
	 */
	bool zero_copy;
};

/* The user data of the session is a struct front. */
extern const struct fuse_lowlevel_ops front_operations;

#endif
