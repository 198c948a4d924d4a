/* SPDX-License-Identifier: Apache-2.0 */
#include "mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "imgfs/cleanup.h"
#include "imgfs/log.h"

static bool is_beneath(const char *path, const char *root)
{
	size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

	return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

bool mountpoint_is_handed_over(const char *mountpoint)
{
	return strncmp(mountpoint, "/dev/fd/", 8) == 0;
}

/* The canonical path of what cannot be looked up itself, the caller's to free. */
static char *path_by_parent(const char *mountpoint)
{
	autofree char *for_parent = strdup(mountpoint);
	autofree char *for_name = strdup(mountpoint);
	autofree char *parent = NULL;
	char *path = NULL;

	if (for_parent && for_name)
		parent = realpath(dirname(for_parent), NULL);
	if (parent && asprintf(&path, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent,
			      basename(for_name)) < 0)
		return NULL;
	return path;
}

/* Is the uppermost mount there one of imgfs? */
static bool is_imgfs(const char *path)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *entry;
	bool found = false;

	while (mounts && (entry = getmntent(mounts)) != NULL) {
		if (strcmp(entry->mnt_dir, path) == 0)
			found = strcmp(entry->mnt_type, "fuse.imgfs") == 0;
	}
	if (mounts)
		endmntent(mounts);
	return found;
}

/*
 * A server that was killed has left its mount, where nothing can be opened: takes it away. Looking
 * alone does not tell, the kernel knows a directory's attributes for a while.
 */
static void clear_dead_mount(const char *mountpoint)
{
	autoclose int fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	autofree char *path = NULL;

	if (fd >= 0 || errno != ENOTCONN)
		return;
	path = path_by_parent(mountpoint);
	if (path && is_imgfs(path) && umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		log_warning("%s: cleared the mount of an imgfs that was killed", quote(path).text);
}

int mountpoint_check(const char *mountpoint, const struct datastore *datastore, char **canonical,
	struct why *why)
{
	struct quoted shown = quote(mountpoint);
	autofree char *path = NULL;
	struct stat st;

	if (mountpoint_is_handed_over(mountpoint)) {
		*canonical = strdup(mountpoint);
		return *canonical ? 0 : why_set(why, -ENOMEM, "out of memory");
	}
	clear_dead_mount(mountpoint);
	path = realpath(mountpoint, NULL);
	if (!path || stat(path, &st) < 0)
		return why_set(why, -errno, "mount point %s: %s", shown.text, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "mount point %s: %s", shown.text, strerror(ENOTDIR));
	/* The mount must not show itself. */
	if (is_beneath(path, datastore->root_path))
		return why_set(
			why, -EINVAL, "the mount point %s is inside the datastore", shown.text);
	if (is_beneath(datastore->root_path, path))
		return why_set(
			why, -EINVAL, "the datastore is inside the mount point %s", shown.text);
	*canonical = steal_ptr(path);
	return 0;
}
