/* SPDX-License-Identifier: Apache-2.0 */
#include "companion.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cap-ng.h>

#include "backing.h"

/* Descriptors of the companion. */
#define ORDERS     3
#define CONNECTION 4

enum {
	ORDER_UNMOUNT = 1,
	ORDER_BACKING_OPEN, /* with the file's descriptor */
	ORDER_BACKING_CLOSE,
};

/* One message each; what is answered is an int32_t, as the function returns it. */
struct order {
	uint32_t kind;
	int32_t id; /* BACKING_CLOSE */
};

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(sizeof(int))];
};

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

/* Root needs one capability for what it is told to do, and one to get to any mount point. */
static void give_up_the_rest(void)
{
	const unsigned needed[] = { CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH };
	bool have[2];

	if (geteuid() != 0)
		return;
	/* A container's root may lack one, and cannot ask for it. */
	for (size_t i = 0; i < 2; i++)
		have[i] = capng_have_capability(CAPNG_PERMITTED, needed[i]) == 1;
	capng_clear(CAPNG_SELECT_ALL);
	for (size_t i = 0; i < 2; i++) {
		if (have[i])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, needed[i]);
	}
	if (capng_apply(CAPNG_SELECT_CAPS) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		_exit(1);
}

/*
 * The orders' socket and the connection become descriptors 3 and 4; nothing else of the server's
 * stays open.
 */
static void let_go(int orders, int connection)
{
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	/* Out of the way first: either may be where the other one goes. */
	orders = fcntl(orders, F_DUPFD, CONNECTION + 1);
	if (connection >= 0)
		connection = fcntl(connection, F_DUPFD, CONNECTION + 1);
	close(CONNECTION);
	if (dup3(orders, ORDERS, O_CLOEXEC) < 0 ||
		(connection >= 0 && dup3(connection, CONNECTION, O_CLOEXEC) < 0) ||
		close_range(CONNECTION + 1, ~0u, 0) < 0)
		_exit(1);
}

/* ---- the companion's end ---- */

/* The descriptor that came with an order; -1 where it is not exactly one, and all are closed. */
static int take_descriptor(struct msghdr *message)
{
	int count = 0, fd = -1, fds[sizeof(union control) / sizeof(int)];

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		int here = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds, CMSG_DATA(c), (size_t)here * sizeof(int));
		for (int i = 0; i < here; i++) {
			if (count++ == 0)
				fd = fds[i];
			else
				close(fds[i]);
		}
	}
	if (count > 1 || (message->msg_flags & MSG_CTRUNC)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* Waits for an order. False: there will be none. */
static bool take_order(struct order *order, int *fd)
{
	union control control;
	struct iovec bytes = { .iov_base = order, .iov_len = sizeof(*order) };
	struct msghdr message = {
		.msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	do
		n = recvmsg(ORDERS, &message, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	*fd = take_descriptor(&message);
	if (n != sizeof(*order) || (message.msg_flags & MSG_TRUNC))
		order->kind = 0;
	return true;
}

static int carry_out(const struct order *order, int fd, const char *mountpoint)
{
	switch (order->kind) {
	case ORDER_UNMOUNT:
		return unmount(mountpoint);
	case ORDER_BACKING_OPEN:
		return fd >= 0 ? backing_open(CONNECTION, fd) : -EINVAL;
	case ORDER_BACKING_CLOSE:
		return backing_close(CONNECTION, order->id);
	default:
		return -EINVAL;
	}
}

static void serve(const char *mountpoint, bool connected)
{
	struct order order;
	int fd;

	while (take_order(&order, &fd)) {
		int32_t answer = -EPERM;

		if (connected || order.kind == ORDER_UNMOUNT)
			answer = carry_out(&order, fd, mountpoint);
		if (fd >= 0)
			close(fd);
		if (write(ORDERS, &answer, sizeof(answer)) < 0)
			return; /* the server did not wait */
		if (order.kind == ORDER_UNMOUNT)
			return;
	}
}

/* ---- the server's end ---- */

/* Above the descriptors of standard input and output, which are replaced later. */
static int make_orders(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		int fd = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);

		close(ends[i]);
		ends[i] = fd;
	}
	return ends[0] < 0 || ends[1] < 0 ? -EMFILE : 0;
}

int companion_start(struct companion *companion, const char *mountpoint, int connection)
{
	int ends[2];
	pid_t child;
	int r = make_orders(ends);

	if (r < 0)
		return r;
	child = fork();
	if (child == 0) {
		prctl(PR_SET_NAME, "imgfs-companion", 0, 0, 0);
		outlive_signals();
		let_go(ends[1], connection);
		give_up_the_rest();
		serve(mountpoint, connection >= 0);
		_exit(0);
	}
	close(ends[1]);
	if (child < 0) {
		close(ends[0]);
		return -EAGAIN;
	}
	companion->orders = ends[0];
	return 0;
}

/* Whoever reads it is told what an order came to; the caller sees to it that it is one at a time.
 */
static int wait_for_answer(const struct companion *companion)
{
	int32_t answer;
	ssize_t n;

	do
		n = read(companion->orders, &answer, sizeof(answer));
	while (n < 0 && errno == EINTR);
	return n == sizeof(answer) ? answer : -EIO;
}

static int give_order(const struct companion *companion, const struct order *order)
{
	if (write(companion->orders, order, sizeof(*order)) != sizeof(*order))
		return -EIO;
	return wait_for_answer(companion);
}

int companion_backing_open(const struct companion *companion, int file)
{
	struct order order = { .kind = ORDER_BACKING_OPEN };
	union control control = {
		.align = {
			.cmsg_len = CMSG_LEN(sizeof(file)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		},
	};
	struct iovec bytes = { .iov_base = &order, .iov_len = sizeof(order) };
	struct msghdr message = {
		.msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n;

	memcpy(CMSG_DATA(&control.align), &file, sizeof(file));
	do
		n = sendmsg(companion->orders, &message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EPIPE ? -EIO : -errno;
	return wait_for_answer(companion);
}

int companion_backing_close(const struct companion *companion, int id)
{
	const struct order order = { .kind = ORDER_BACKING_CLOSE, .id = id };

	return give_order(companion, &order);
}

int companion_unmount(struct companion *companion)
{
	const struct order order = { .kind = ORDER_UNMOUNT };
	int r = give_order(companion, &order);

	companion_stop(companion);
	return r;
}

void companion_stop(struct companion *companion)
{
	if (companion->orders >= 0)
		close(companion->orders);
	companion->orders = -1;
}
