/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock, by its system calls: Debian has no library for it. landlock(7). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"
#include "imgfs/cleanup.h"

/*
 * The kernel's interface, spelled out: the headers of a distribution lag behind its kernels, and
 * what the running kernel knows must be asked for even where the headers do not.
 */

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH      1

struct ruleset_attr {
	uint64_t handled_fs;
	uint64_t handled_net;
	uint64_t scoped;
};

struct path_beneath_attr {
	uint64_t allowed;
	int32_t parent_fd;
} __attribute__((packed)); /* as the kernel has it */

#define FS_WRITE_FILE (1ull << 1)
#define FS_READ_FILE  (1ull << 2)
#define FS_READ_DIR   (1ull << 3)
#define FS_IOCTL_DEV  (1ull << 15)

/* Rights to deny, by the version that brought them. */
static struct ruleset_attr everything(int abi)
{
	struct ruleset_attr attr = { .handled_fs = (1ull << 13) - 1 };

	if (abi >= 2)
		attr.handled_fs |= 1ull << 13; /* refer */
	if (abi >= 3)
		attr.handled_fs |= 1ull << 14; /* truncate */
	if (abi >= 4)
		attr.handled_net = 3; /* bind, connect with TCP */
	if (abi >= 5)
		attr.handled_fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		attr.scoped = 3; /* abstract sockets, signals */
	return attr;
}

static int allow_beneath(int ruleset, int fd, uint64_t rights)
{
	struct path_beneath_attr rule = { .allowed = rights, .parent_fd = fd };

	return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno
											: 0;
}

static int allow_path(int ruleset, const char *path, uint64_t rights)
{
	autoclose int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return allow_beneath(ruleset, fd, rights);
}

static int allow_device(int ruleset, int abi)
{
	return allow_path(
		ruleset, "/dev/fuse", FS_READ_FILE | FS_WRITE_FILE | (abi >= 5 ? FS_IOCTL_DEV : 0));
}

/* What rings are made by: the processors and where their memory is. */
static int allow_topology(int ruleset)
{
	static const char *const paths[] = { "/sys/devices/system/cpu",
		"/sys/devices/system/node" };

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		int r = allow_path(ruleset, paths[i], FS_READ_FILE | FS_READ_DIR);

		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

int confine_files(const struct confinement *c, int *abi, struct why *why)
{
	struct ruleset_attr attr;
	autoclose int ruleset = -1;
	int r;

	*abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
	if (*abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) {
		*abi = 0;
		return 0;
	}
	attr = everything(*abi);
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return why_set(why, -errno, "Landlock: %s", strerror(errno));
	r = allow_beneath(ruleset, c->root, FS_READ_FILE | FS_READ_DIR);
	if (r == 0 && c->clone_fd)
		r = allow_device(ruleset, *abi);
	if (r == 0 && c->rings > 0)
		r = allow_topology(ruleset);
	if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		r = -errno;
	if (r < 0)
		return why_set(why, r, "Landlock: %s", strerror(-r));
	return 0;
}
