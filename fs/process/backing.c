/* SPDX-License-Identifier: Apache-2.0 */
#include "backing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "imgfs/cleanup.h"

/* linux/fuse.h has them since 6.9. */
#ifndef FUSE_DEV_IOC_BACKING_OPEN
struct fuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define FUSE_DEV_IOC_BACKING_OPEN  _IOW(229, 1, struct fuse_backing_map)
#define FUSE_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
#endif

/*
 * The kernel opens the file as its reader has asked for, with the rights of who registers it here.
 * Where that fails so does the reader's open, so it is tried: not every file system has O_DIRECT,
 * and a server of NFS may not let root in.
 */
static int try_to_open(int file)
{
	char path[32];
	autoclose int again = -1;
	struct stat st;

	if (fstat(file, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	again = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	return again < 0 ? -errno : 0;
}

int backing_open(int connection, int file)
{
	struct fuse_backing_map map = { .fd = file };
	int r = try_to_open(file);

	if (r < 0)
		return r;
	r = ioctl(connection, FUSE_DEV_IOC_BACKING_OPEN, &map);
	return r < 0 ? -errno : r;
}

int backing_close(int connection, int id)
{
	uint32_t value = (uint32_t)id;

	return ioctl(connection, FUSE_DEV_IOC_BACKING_CLOSE, &value) < 0 ? -errno : 0;
}
