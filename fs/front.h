/* SPDX-License-Identifier: Apache-2.0 */
/* The front: FUSE requests, decoded, passed to the catalog and views, and answered once. */
#ifndef IMGFS_FRONT_H
#define IMGFS_FRONT_H

#include <stdatomic.h>

#include "fuse_api.h"
#include "imgfs/catalog.h"
#include "passthrough.h"

/* More is never asked for in one read: 256 pages of 4 KiB. */
#define FRONT_READ_MAX (1u << 20)

/*
 * The same where replies are spliced: a pipe holds 1 MiB at most, and one that is too small for a
 * reply costs ten times the copy that it saves.
 */
#define FRONT_ZERO_COPY_MAX (512u << 10)

struct front {
	struct catalog *catalog;
	const struct datastore *datastore;

	/*
	 * Let the kernel take plain data from the sources' descriptors instead of from a copy.
	 * It saves a fifth of the daemon's time; but what a writer does to the source after the
	 * last look at it goes into the reply, so a read can carry two states of it.
	 */
	bool zero_copy;

	/* A first look at a view reads all of its data: a listing does not do so by itself. */
	bool slow_looks;

	/* To know when it is about to end; once there is one. */
	struct fuse_session *session;

	/*
	 * A part of zero_copy: the kernel reads a view that is its source from there. NULL: no.
	 * Taken away by INIT where this kernel cannot.
	 */
	struct passthrough *passthrough;

	/* Whether requests come by a ring as was asked for is not known yet. */
	atomic_bool ring_wanted;
};

/* Has whoever made this thread's request given up, or is the program to end? */
bool front_interrupted(void);

/* The user data of the session is a struct front. */
extern const struct fuse_lowlevel_ops front_operations;

#endif
