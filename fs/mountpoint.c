/* SPDX-License-Identifier: Apache-2.0 */
#include "mountpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
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
