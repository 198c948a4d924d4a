/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an attacker would do first, done on purpose.
 *
 * Each attempt is made so that it does no harm where it succeeds, and so that an error of its own
 * (no such file, no such process) cannot be taken for a refusal.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"

#define NOWHERE "imgfs.selftest"

/* Each returns 0 where the attempt succeeded, or an errno. */

static int open_with(int directory, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC,
		.mode = flags & O_CREAT ? 0600 : 0,
	};
	long fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));

	if (fd < 0)
		return errno;
	close((int)fd);
	return 0;
}

static int read_outside(int root)
{
	(void)root;
	return open_with(AT_FDCWD, "/proc/self/status", O_RDONLY);
}

static int list_outside(int root)
{
	(void)root;
	return open_with(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY);
}

static int open_without_gate(int root)
{
	int fd = openat(root, ".", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int create_beneath(int root)
{
	int error = open_with(root, NOWHERE, O_WRONLY | O_CREAT | O_EXCL);

	if (error == 0)
		unlinkat(root, NOWHERE, 0);
	return error;
}

static int make_directory(int root)
{
	if (mkdirat(root, NOWHERE, 0700) < 0)
		return errno;
	unlinkat(root, NOWHERE, AT_REMOVEDIR);
	return 0;
}

static int remove_beneath(int root)
{
	return unlinkat(root, NOWHERE, 0) < 0 ? errno : 0;
}

static int change_mode(int root)
{
	struct stat st;

	if (fstat(root, &st) < 0)
		return errno;
	return fchmod(root, st.st_mode & 07777) < 0 ? errno : 0;
}

static int make_socket(int domain, int type)
{
	int fd = socket(domain, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int network_socket(int root)
{
	(void)root;
	return make_socket(AF_INET, SOCK_STREAM);
}

static int local_socket(int root)
{
	(void)root;
	return make_socket(AF_UNIX, SOCK_STREAM);
}

static int execute(int root)
{
	char *arguments[] = { NULL }, *environment[] = { NULL };

	(void)root;
	execve("/" NOWHERE, arguments, environment);
	return errno;
}

static int make_process(int root)
{
	pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

	(void)root;
	if (child < 0)
		return errno;
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	return 0;
}

static int trace(int root)
{
	(void)root;
	return ptrace(PTRACE_CONT, 1, NULL, NULL) < 0 ? errno : 0;
}

static int mount_something(int root)
{
	(void)root;
	return mount("none", "/" NOWHERE, "tmpfs", 0, NULL) < 0 ? errno : 0;
}

static int open_by_handle(int root)
{
	struct file_handle handle = { .handle_bytes = 0 };
	int fd = open_by_handle_at(root, &handle, O_RDONLY);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int signal_others(int root)
{
	(void)root;
	return kill(1, 0) < 0 ? errno : 0;
}

static int become_root(int root)
{
	(void)root;
	return setresuid(0, 0, 0) < 0 ? errno : 0;
}

static const struct attempt {
	const char *what;
	int (*make)(int root);
} attempts[] = {
	{ "read a file outside the datastore", read_outside },
	{ "list a directory outside the datastore", list_outside },
	{ "open a file other than with openat2", open_without_gate },
	{ "create a file in the datastore", create_beneath },
	{ "make a directory in the datastore", make_directory },
	{ "remove a file of the datastore", remove_beneath },
	{ "change a mode in the datastore", change_mode },
	{ "make a network socket", network_socket },
	{ "make a local socket", local_socket },
	{ "execute a program", execute },
	{ "make a process", make_process },
	{ "trace a process", trace },
	{ "mount a file system", mount_something },
	{ "open a file by its handle", open_by_handle },
	{ "signal another process", signal_others },
	{ "change the user", become_root },
};

static bool is_refusal(int error)
{
	return error == EPERM || error == EACCES || error == EROFS;
}

static int try_all(int root)
{
	int allowed = 0;

	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		int error = attempts[i].make(root);

		printf("%-40s %s%s%s\n", attempts[i].what,
			is_refusal(error) ? "refused: " : "NOT REFUSED",
			error && !is_refusal(error) ? ": " : "", error ? strerror(error) : "");
		allowed += !is_refusal(error);
	}
	/* And what the program is for. */
	if (open_with(root, ".", O_RDONLY | O_DIRECTORY) != 0) {
		printf("%-40s NOT POSSIBLE\n", "read the datastore");
		allowed++;
	}
	return allowed;
}

struct selftest {
	int root;
	int allowed;
};

static void *run(void *argument)
{
	struct selftest *test = argument;

	test->allowed = try_all(test->root);
	return NULL;
}

int confine_selftest(int root)
{
	struct selftest test = { .root = root };
	pthread_t thread;
	int error = pthread_create(&thread, NULL, run, &test);

	if (error)
		return -error;
	pthread_join(thread, NULL);
	fflush(stdout);
	return test.allowed;
}
