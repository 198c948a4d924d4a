/* SPDX-License-Identifier: Apache-2.0 */
/* Where the mount goes: a directory that is neither inside the datastore nor around it. */
#ifndef IMGFS_MOUNTPOINT_H
#define IMGFS_MOUNTPOINT_H

#include <stdbool.h>

#include "imgfs/datastore.h"
#include "imgfs/why.h"

/* Has somebody else mounted, and handed the connection over as /dev/fd/N? mount.fuse3 does so. */
bool mountpoint_is_handed_over(const char *mountpoint);

/*
 * *canonical is the absolute path without symbolic links, the caller's to free; a copy where the
 * mount was handed over. What an imgfs that was killed has left there is unmounted. 0, or -errno
 * with the reason.
 */
int mountpoint_check(const char *mountpoint, const struct datastore *datastore, char **canonical,
	struct why *why);

#endif
