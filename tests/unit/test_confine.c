/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each step of the confinement alone, in a process of its own: so that what one of them refuses
 * is not mistaken for the work of another.
 */
#include "support.h"

#include <linux/openat2.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fs/process/confine.h"
#include "imgfs/cleanup.h"

#define NOBODY 65534

/* A check in the child: 0 passed, or the line that did not. */
#define CHECK(condition)                 \
	do {                             \
		if (!(condition))        \
			return __LINE__; \
	} while (0)

static struct confinement confinement(void)
{
	return (struct confinement) {
		.root = store.datastore.root,
		.memory = 256 * MIB,
		.orders = -1,
	};
}

/* The status of an exit has a byte, which is no line number: it goes through a pipe. */
static void in_child(int (*check)(void))
{
	int ends[2], line = -1;
	pid_t child;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		line = check();
		if (write(ends[1], &line, sizeof(line)) != sizeof(line))
			_exit(1);
		_exit(0);
	}
	close(ends[1]);
	if (read(ends[0], &line, sizeof(line)) != sizeof(line))
		line = -1; /* it died */
	close(ends[0]);
	waitpid(child, NULL, 0);
	if (line != 0)
		print_message("# the check in line %d failed\n", line);
	assert_int_equal(line, 0);
}

/* A field of /proc/self/status, as a number of that base. */
static unsigned long long own_status(const char *field, int base)
{
	autofree char *line = NULL;
	FILE *file = fopen("/proc/self/status", "r");
	unsigned long long value = ~0ull;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
			value = strtoull(line + strlen(field) + 1, NULL, base);
	}
	if (file)
		fclose(file);
	return value;
}

/* ---- privileges ---- */

static int root_keeps_one(void)
{
	struct confinement c = confinement();

	CHECK(confine_privileges(&c, NULL) == 0);
	CHECK(own_status("CapEff", 16) == 4); /* dac_read_search */
	CHECK(own_status("CapPrm", 16) == 4);
	CHECK(own_status("CapBnd", 16) == 4);
	CHECK(own_status("CapInh", 16) == 0);
	CHECK(own_status("NoNewPrivs", 10) == 1);
	CHECK(geteuid() == 0);
	/* What it is kept for. */
	CHECK(fchown(store.datastore.root, NOBODY, NOBODY) < 0 && errno == EPERM);
	return 0;
}

static int another_user_keeps_none(void)
{
	struct confinement c = confinement();
	gid_t groups[64];
	int count;

	c.change_user = true;
	c.user = c.group = NOBODY;
	CHECK(confine_privileges(&c, NULL) == 0);
	CHECK(own_status("CapEff", 16) == 0 && own_status("CapPrm", 16) == 0);
	CHECK(own_status("CapBnd", 16) == 0 && own_status("CapInh", 16) == 0);
	CHECK(own_status("NoNewPrivs", 10) == 1);
	CHECK(getuid() == NOBODY && geteuid() == NOBODY);
	CHECK(getgid() == NOBODY && getegid() == NOBODY);
	count = getgroups(64, groups);
	for (int i = 0; i < count; i++)
		CHECK(groups[i] == NOBODY);
	CHECK(setresuid(0, 0, 0) < 0 && errno == EPERM);
	return 0;
}

static int who_has_none_stays_so(void)
{
	struct confinement c = confinement();

	CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
	CHECK(confine_privileges(&c, NULL) == 0);
	CHECK(own_status("CapEff", 16) == 0 && own_status("NoNewPrivs", 10) == 1);
	return 0;
}

/* ---- limits ---- */

static int limits_hold(void)
{
	struct confinement c = confinement();
	struct rlimit limit;
	int count = 0;

	CHECK(confine_resources(&c, NULL) == 0);
	CHECK(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0);
	CHECK(getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_max == 256 * MIB);
	while (count < 2000 && dup(0) >= 0)
		count++;
	CHECK(errno == EMFILE && count < CONFINE_MAX_DESCRIPTORS);
	return 0;
}

static int limits_only_sink(void)
{
	const struct rlimit low = { 64, 64 };
	struct confinement c = confinement();
	struct rlimit limit;

	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	CHECK(confine_resources(&c, NULL) == 0);
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	CHECK(limit.rlim_cur == 64 && limit.rlim_max == 64);
	return 0;
}

/* ---- files ---- */

static int fails_with(int result, int error)
{
	return result < 0 && errno == error;
}

static int files_beneath_alone(void)
{
	struct confinement c = confinement();
	int root = store.datastore.root, abi = -1;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(1) };

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(confine_files(&c, &abi, NULL) == 0);
	if (abi == 0)
		return 0; /* this kernel has no Landlock */
	CHECK(openat(root, "in.raw", O_RDONLY) >= 0);
	CHECK(openat(root, ".", O_RDONLY | O_DIRECTORY) >= 0);
	CHECK(openat(root, "dir", O_RDONLY | O_DIRECTORY) >= 0);
	CHECK(fails_with(open("/etc/passwd", O_RDONLY), EACCES));
	CHECK(fails_with(open("/", O_RDONLY | O_DIRECTORY), EACCES));
	CHECK(fails_with(openat(root, "..", O_RDONLY | O_DIRECTORY), EACCES));
	CHECK(fails_with(open("/dev/fuse", O_RDWR), EACCES));
	CHECK(fails_with(openat(root, "in.raw", O_WRONLY), EACCES));
	CHECK(fails_with(openat(root, "in.raw", O_RDWR), EACCES));
	CHECK(fails_with(openat(root, "new.raw", O_RDONLY | O_CREAT, 0600), EACCES));
	CHECK(fails_with(mkdirat(root, "new", 0700), EACCES));
	CHECK(fails_with(unlinkat(root, "in.raw", 0), EACCES));
	CHECK(fails_with(renameat(root, "in.raw", root, "other.raw"), EACCES));
	CHECK(fails_with(symlinkat("x", root, "link"), EACCES));
	CHECK(abi < 3 || fails_with(truncate(store_path("in.raw"), 0), EACCES));
	CHECK(abi < 4 || fails_with(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&address,
					    sizeof(address)),
				 EACCES));
	CHECK(abi < 6 || fails_with(kill(getppid(), 0), EPERM));
	return 0;
}

static int device_where_asked(void)
{
	struct confinement c = confinement();
	int abi;

	c.clone_fd = true;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(confine_files(&c, &abi, NULL) == 0);
	CHECK(open("/dev/fuse", O_RDWR) >= 0 || errno == ENOENT);
	CHECK(abi == 0 || fails_with(open("/dev/null", O_RDWR), EACCES));
	return 0;
}

/* ---- calls ---- */

static void *set_flag(void *flag)
{
	*(int *)flag = 1;
	return NULL;
}

/* Whatever an exploit would want, by its number, so that no wrapper answers instead. */
static const long refused_calls[] = {
	SYS_socket,
	SYS_connect,
	SYS_bind,
	SYS_accept4,
	SYS_socketpair,
	SYS_sendmsg,
	SYS_execve,
	SYS_execveat,
	SYS_ptrace,
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_kill,
	SYS_tkill,
	SYS_openat,
	SYS_open_by_handle_at,
	SYS_name_to_handle_at,
	SYS_memfd_create,
	SYS_mount,
	SYS_umount2,
	SYS_move_mount,
	SYS_fsopen,
	SYS_pivot_root,
	SYS_chroot,
	SYS_unshare,
	SYS_setns,
	SYS_setuid,
	SYS_setresuid,
	SYS_setgid,
	SYS_setgroups,
	SYS_capset,
	SYS_unlinkat,
	SYS_renameat2,
	SYS_mkdirat,
	SYS_mknodat,
	SYS_linkat,
	SYS_symlinkat,
	SYS_fchmodat,
	SYS_fchmod,
	SYS_fchownat,
	SYS_fchown,
	SYS_truncate,
	SYS_ftruncate,
	SYS_fallocate,
	SYS_utimensat,
	SYS_setxattr,
	SYS_fsetxattr,
	SYS_copy_file_range,
	SYS_sendfile,
	SYS_pwrite64,
	SYS_pwritev,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_keyctl,
	SYS_add_key,
	SYS_userfaultfd,
	SYS_io_uring_setup,
	SYS_io_setup,
	SYS_init_module,
	SYS_finit_module,
	SYS_kexec_load,
	SYS_reboot,
	SYS_swapon,
	SYS_setrlimit,
	SYS_seccomp,
	SYS_landlock_create_ruleset,
	SYS_inotify_init1,
	SYS_fanotify_init,
	SYS_pidfd_open,
	SYS_pidfd_getfd,
	SYS_personality,
	SYS_syslog,
	SYS_sethostname,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_flock,
};

static int calls_are_listed(void)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC };
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };
	struct confinement c = confinement();
	int root = store.datastore.root, flag = 0, file;
	struct rlimit limit;
	pthread_t thread;

	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(confine_calls(&c, NULL) == 0);
	for (size_t i = 0; i < COUNT(refused_calls); i++) {
		/* -1 is no valid pointer, descriptor or flag for any of them. */
		errno = 0;
		if (syscall(refused_calls[i], -1, -1, -1, -1, -1, -1) != -1 || errno != EPERM)
			return 100000 + (int)refused_calls[i];
	}
	file = (int)syscall(SYS_openat2, root, "in.raw", &how, sizeof(how));
	CHECK(file >= 0);
	CHECK(fcntl(file, F_OFD_GETLK, &lock) == 0);
	CHECK(fails_with(fcntl(file, F_OFD_SETLK, &lock), EPERM));
	CHECK(fails_with(fcntl(file, F_SETLK, &lock), EPERM));
	CHECK(fails_with(fcntl(file, F_SETOWN, 1), EPERM));
	CHECK(fails_with(ioctl(file, FIONREAD, &flag), EPERM));
	CHECK(fails_with(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), EPERM));
	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	CHECK(fails_with(setrlimit(RLIMIT_NOFILE, &limit), EPERM));
	CHECK(fails_with((int)syscall(SYS_sendto, -1, "x", 1, 0, NULL, 0), EBADF));
	CHECK(fails_with((int)syscall(SYS_sendto, -1, "x", 1, 0, "address", 7), EPERM));
	CHECK(dup3(file, 2, 0) == 2);
	CHECK(fails_with(dup3(file, file + 1, 0), EPERM));
	CHECK(fails_with(fcntl(file, F_DUPFD, 0), EPERM));
	CHECK(fails_with((int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), EPERM));
	CHECK(fails_with((int)syscall(SYS_clone3, NULL, 0), ENOSYS));
	CHECK(pthread_create(&thread, NULL, set_flag, &flag) == 0);
	CHECK(pthread_join(thread, NULL) == 0 && flag == 1);
	return 0;
}

/* One byte and a descriptor. */
static ssize_t hand_over(int to, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(fd))];
	} control = { .align = { CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec byte = { (void *)(uintptr_t) "x", 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1 };

	memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	message.msg_control = &control;
	message.msg_controllen = sizeof(control);
	return sendmsg(to, &message, MSG_NOSIGNAL);
}

static int descriptors_for_the_companion(void)
{
	struct confinement c = confinement();
	struct msghdr message = { .msg_iov = NULL };
	int orders[2], others[2];

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, orders) == 0);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, others) == 0);
	c.orders = orders[0];
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(confine_calls(&c, NULL) == 0);
	CHECK(hand_over(orders[0], c.root) == 1);
	CHECK(hand_over(others[0], c.root) < 0 && errno == EPERM);
	CHECK(recvmsg(orders[0], &message, 0) < 0 && errno == EPERM);
	CHECK(fails_with(dup3(others[0], orders[0], 0), EPERM));
	CHECK(fails_with(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, orders), EPERM));
	return 0;
}

static int calls_for_clone_fd(void)
{
	struct confinement c = confinement();

	c.clone_fd = true;
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(confine_calls(&c, NULL) == 0);
	CHECK(openat(store.datastore.root, "in.raw", O_RDONLY) >= 0);
	CHECK(fails_with(socket(AF_INET, SOCK_STREAM, 0), EPERM));
	return 0;
}

/* ---- the tests ---- */

static void make_files(void)
{
	store_poke("in.raw", 0, "x", 1);
	assert_int_equal(mkdir(store_path("dir"), 0755), 0);
}

#define CHILD_TEST(name, check)                  \
	static void name(void **state)           \
	{                                        \
		(void)state;                     \
		if (geteuid() != 0)              \
			SKIP_REST("needs root"); \
		make_files();                    \
		in_child(check);                 \
	}

CHILD_TEST(test_root, root_keeps_one)
CHILD_TEST(test_another_user, another_user_keeps_none)
CHILD_TEST(test_no_root, who_has_none_stays_so)
CHILD_TEST(test_limits, limits_hold)
CHILD_TEST(test_lower_limits, limits_only_sink)
CHILD_TEST(test_files, files_beneath_alone)
CHILD_TEST(test_device, device_where_asked)
CHILD_TEST(test_calls, calls_are_listed)
CHILD_TEST(test_descriptors_for_the_companion, descriptors_for_the_companion)
CHILD_TEST(test_calls_for_clone_fd, calls_for_clone_fd)

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_root),
		store_test(test_another_user),
		store_test(test_no_root),
		store_test(test_limits),
		store_test(test_lower_limits),
		store_test(test_files),
		store_test(test_device),
		store_test(test_calls),
		store_test(test_descriptors_for_the_companion),
		store_test(test_calls_for_clone_fd),
	};

	return run_unit_tests(tests);
}
