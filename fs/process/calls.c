/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that serving a mount takes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>

#include <seccomp.h>

#include "confine.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#ifndef FUSE_DEV_IOC_CLONE
#define FUSE_DEV_IOC_CLONE _IOR(229, 0, uint32_t)
#endif

/* Allowed whatever their arguments are. Names that an architecture lacks are left out there. */
static const char *const plain_calls[] = {
	/* the gate; what it may open is Landlock's business */
	"openat2",
	"fstat",
	"newfstatat",
	"fstatat64",
	"statx",
	"getdents64",
	"fstatfs",
	"fstatfs64",
	"close",
	/* sources */
	"pread64",
	"preadv",
	"lseek",
	"_llseek",
	"fadvise64",
	/* the kernel's requests and our replies */
	"read",
	"readv",
	"write",
	"writev",
	"splice",
	"vmsplice",
	"tee",
	"pipe2",
	"poll",
	"ppoll",
	"ppoll_time64",
	/* memory */
	"brk",
	"mmap",
	"mmap2",
	"mremap",
	"munmap",
	"mprotect",
	"madvise",
	"sysinfo",
	/* threads */
	"futex",
	"futex_time64",
	"set_robust_list",
	"rseq",
	"sched_yield",
	"gettid",
	"getpid",
	"exit",
	"exit_group",
	"restart_syscall",
	"membarrier",
	"sched_getaffinity",
	/* signals to ourselves */
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"sigaltstack",
	"tgkill",
	/* time and chance */
	"clock_gettime",
	"clock_gettime64",
	"clock_nanosleep",
	"clock_nanosleep_time64",
	"nanosleep",
	"gettimeofday",
	"time",
	"getrandom",
	/* who am I? libfuse asks when it ends */
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
};

/* What libfuse makes a ring for each processor with. confine.h tells what they mean. */
static const char *const ring_calls[] = {
	"io_uring_setup",
	"io_uring_register",
	"io_uring_enter",
	"eventfd2",
	"sched_setaffinity",
	"mbind",
	/* how many processors are there? A ring opens files as well; Landlock says which */
	"openat",
};

static int allow_names(scmp_filter_ctx filter, const char *const names[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int call = seccomp_syscall_resolve_name(names[i]);
		int r;

		if (call < 0)
			continue; /* not on this architecture */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Allows the call where argument `index`, taken as 32 bits, is `value` in the bits of `mask`. */
static int allow_argument(
	scmp_filter_ctx filter, int call, unsigned index, uint32_t mask, uint32_t value)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
		SCMP_CMP64(index, SCMP_CMP_MASKED_EQ, mask, value));
}

/* Locks may be asked about and are never taken; pipes may grow. */
static int allow_fcntl(scmp_filter_ctx filter)
{
	static const uint32_t commands[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_OFD_GETLK,
		F_SETPIPE_SZ, F_GETPIPE_SZ };
	int calls[] = { SCMP_SYS(fcntl), SCMP_SYS(fcntl64) };
	int r = 0;

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		for (size_t j = 0; r == 0 && j < sizeof(calls) / sizeof(calls[0]); j++) {
			if (calls[j] >= 0)
				r = allow_argument(filter, calls[j], 1, ~0u, commands[i]);
		}
	}
	return r;
}

/* Letting go of the terminal. No other descriptor can become what it was not. */
static int allow_dup(scmp_filter_ctx filter)
{
	int calls[] = { SCMP_SYS(dup2), SCMP_SYS(dup3) };
	int r = 0;

	for (uint32_t fd = 0; fd <= 2; fd++) {
		for (size_t j = 0; r == 0 && j < sizeof(calls) / sizeof(calls[0]); j++) {
			if (calls[j] >= 0)
				r = allow_argument(filter, calls[j], 1, ~0u, fd);
		}
	}
	return r;
}

static int allow_some(scmp_filter_ctx filter, const struct confinement *c)
{
	int r = allow_fcntl(filter);

	if (r == 0)
		r = allow_dup(filter);

	/* Where is a file allocated? */
	if (r == 0)
		r = allow_argument(filter, SCMP_SYS(ioctl), 1, ~0u, (uint32_t)FS_IOC_FIEMAP);
	/* A thread and no process. clone3 hides its flags; without it the C library uses clone. */
	if (r == 0)
		r = allow_argument(filter, SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD);
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (r == 0)
		r = allow_argument(filter, SCMP_SYS(prctl), 0, ~0u, PR_SET_NAME);
	/* Limits may be read, not set. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
			SCMP_A2_64(SCMP_CMP_MASKED_EQ, UINT64_MAX, 0));
	/* The log's socket is connected; nothing is sent to an address. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1,
			SCMP_A4_64(SCMP_CMP_MASKED_EQ, UINT64_MAX, 0));
	/* Descriptors go to the companion alone; none ever comes. */
	if (r == 0 && c->orders >= 0)
		r = allow_argument(filter, SCMP_SYS(sendmsg), 0, ~0u, (uint32_t)c->orders);
	if (r == 0 && c->clone_fd)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 0);
	if (r == 0 && c->clone_fd)
		r = allow_argument(filter, SCMP_SYS(ioctl), 1, ~0u, (uint32_t)FUSE_DEV_IOC_CLONE);
	return r;
}

int confine_calls(const struct confinement *c, struct why *why)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return why_set(why, -ENOMEM, "seccomp: out of memory");
	r = allow_names(filter, plain_calls, COUNT(plain_calls));
	if (r == 0 && c->rings > 0)
		r = allow_names(filter, ring_calls, COUNT(ring_calls));
	if (r == 0)
		r = allow_some(filter, c);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0)
		return why_set(why, r, "seccomp: %s", strerror(-r));
	return 0;
}
