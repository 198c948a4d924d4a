/* SPDX-License-Identifier: Apache-2.0 */
#include "unmounter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cap-ng.h>

#define ORDERS 3

/* A user's mount is undone by the program that made it, which has the right to. */
static int run_fusermount(const char *mountpoint)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (child == 0) {
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", mountpoint,
			(char *)NULL);
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int unmount(const char *mountpoint)
{
	if (geteuid() != 0)
		return run_fusermount(mountpoint);
	return umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

/* Signals that end the server end it in order, and then it has something to ask for. */
static void outlive_signals(void)
{
	const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGQUIT };

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		signal(numbers[i], SIG_IGN);
}

/* Root needs one capability to unmount and one to get to any mount point. */
static void give_up_the_rest(void)
{
	if (geteuid() != 0)
		return;
	capng_clear(CAPNG_SELECT_ALL);
	capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN,
		CAP_DAC_READ_SEARCH, -1);
	capng_apply(CAPNG_SELECT_CAPS);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* The orders' socket becomes descriptor 3; nothing else of the server's stays open. */
static void let_go(int orders)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	if (dup2(orders, ORDERS) != ORDERS || close_range(ORDERS + 1, ~0u, 0) < 0)
		_exit(1);
}

static void serve(const char *mountpoint)
{
	uint8_t order, answer;
	ssize_t n;

	do
		n = read(ORDERS, &order, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		return;
	answer = (uint8_t)-unmount(mountpoint);
	if (write(ORDERS, &answer, 1) < 0)
		return; /* the server did not wait */
}

int unmounter_start(struct unmounter *unmounter, const char *mountpoint)
{
	int ends[2];
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	child = fork();
	if (child == 0) {
		prctl(PR_SET_NAME, "imgfs-unmount", 0, 0, 0);
		outlive_signals();
		let_go(ends[1]);
		give_up_the_rest();
		serve(mountpoint);
		_exit(0);
	}
	close(ends[1]);
	if (child < 0) {
		close(ends[0]);
		return -EAGAIN;
	}
	unmounter->orders = ends[0];
	return 0;
}

int unmounter_run(struct unmounter *unmounter)
{
	uint8_t order = 'u', answer;
	ssize_t n = write(unmounter->orders, &order, 1);

	if (n == 1) {
		do
			n = read(unmounter->orders, &answer, 1);
		while (n < 0 && errno == EINTR);
	}
	unmounter_stop(unmounter);
	return n == 1 ? -answer : -EIO;
}

void unmounter_stop(struct unmounter *unmounter)
{
	if (unmounter->orders >= 0)
		close(unmounter->orders);
	unmounter->orders = -1;
}
