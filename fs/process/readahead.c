/* SPDX-License-Identifier: Apache-2.0 */
#include "readahead.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* KiB. Four requests of 1 MiB; more does not help, and costs whoever reads a little of a view. */
#define READAHEAD "4096"

int readahead_open(const char *mountpoint)
{
	char path[64];
	struct statx stx;
	int fd;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC, 0, &stx) < 0)
		return -errno;
	/* If it is not there any more, or was not made here, this is about a disk of others. */
	if (!(stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) || stx.stx_dev_major != 0)
		return -ENODEV;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", stx.stx_dev_major,
		stx.stx_dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int readahead_raise(int fd)
{
	int r = write(fd, READAHEAD, strlen(READAHEAD)) < 0 ? -errno : 0;

	close(fd);
	return r;
}
