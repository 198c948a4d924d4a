/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Going to the background as a daemon whose caller hears how its start went: libfuse's own
 * fuse_daemonize() lets the caller go before the process has shut itself in.
 */
#ifndef IMGFS_BACKGROUND_H
#define IMGFS_BACKGROUND_H

struct background {
	int caller; /* a pipe to who waits, -1 for nobody */
	int null;   /* /dev/null, opened while it could be */
};

/*
 * Forks. Returns in the child alone, which has a session of its own and / for a working
 * directory; the caller's process waits for background_done(), and ends with the status given
 * there, or with `failure` if the child ends before that. 0 or -errno (nothing was forked then).
 */
int background_enter(struct background *background, int failure);

/* Tells the caller the status to end with, and lets go of its terminal. */
void background_done(struct background *background, int status);

#endif
