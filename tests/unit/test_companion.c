/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process on the side, and whoever has taken the server over: whatever comes by its socket,
 * it answers, keeps nothing, and goes on.
 */
#include "support.h"

#include <dirent.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/passthrough.h"
#include "fs/process/companion.h"

#define NOWHERE "/imgfs.nowhere"

/* As companion.c has them. */
enum { UNMOUNT = 1, BACKING_OPEN, BACKING_CLOSE };

static struct companion companion;
static pid_t child;
static int connection;

static pid_t only_child(void)
{
	FILE *file = fopen("/proc/thread-self/children", "r");
	int pid = -1;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d", &pid), 1);
	fclose(file);
	return pid;
}

/* Descriptors of the companion. */
static int descriptors(void)
{
	char path[64];
	DIR *directory;
	int count = -2; /* "." and ".." */

	snprintf(path, sizeof(path), "/proc/%d/fd", child);
	directory = opendir(path);
	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* Any message, with so many descriptors of a regular file; what is answered. */
static int say(const void *bytes, size_t length, int count)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(16 * sizeof(int))];
	} control = { .align = { 0 } };
	struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int file = store_open("file.raw", O_RDONLY), answer = 1;
	int fds[16];

	for (int i = 0; i < count; i++)
		fds[i] = file;
	if (count > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
		control.align.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(&control.align), fds, (size_t)count * sizeof(int));
	}
	assert_int_equal(sendmsg(companion.orders, &message, MSG_NOSIGNAL), length);
	assert_int_equal(read(companion.orders, &answer, sizeof(answer)), sizeof(answer));
	close(file);
	return answer;
}

static int order(uint32_t kind, int32_t id, int count)
{
	const struct {
		uint32_t kind;
		int32_t id;
	} bytes = { kind, id };

	return say(&bytes, sizeof(bytes), count);
}

static int start(int with)
{
	store_poke("file.raw", 0, "x", 1);
	assert_int_equal(companion_start(&companion, NOWHERE, with), 0);
	child = only_child();
	return 0;
}

static void end(void)
{
	int status;

	companion_stop(&companion);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* What is no FUSE connection has no backing files; that is as far as this gets without a mount. */
static void test_orders(void **state)
{
	int file, pipe_ends[2];

	(void)state;
	connection = open("/dev/null", O_RDWR | O_CLOEXEC);
	start(connection);
	file = store_open("file.raw", O_RDONLY);
	assert_int_equal(companion_backing_open(&companion, file), -ENOTTY);
	assert_int_equal(companion_backing_close(&companion, 1), -ENOTTY);
	/* No device, socket or pipe is opened again. */
	assert_int_equal(pipe(pipe_ends), 0);
	assert_int_equal(companion_backing_open(&companion, pipe_ends[0]), -EINVAL);
	assert_int_equal(companion_backing_open(&companion, connection), -EINVAL);
	assert_int_equal(companion_backing_open(&companion, companion.orders), -EINVAL);
	assert_int_equal(companion_backing_open(&companion, -1), -EBADF);
	assert_int_equal(companion_unmount(&companion), geteuid() == 0 ? -ENOENT : -EIO);
	end();
}

static void test_nonsense(void **state)
{
	static const char long_message[4096];
	int before;

	(void)state;
	connection = open("/dev/null", O_RDWR | O_CLOEXEC);
	start(connection);
	assert_int_equal(order(0, 0, 0), -EINVAL);
	before = descriptors();
	assert_int_equal(before, 5);
	for (int count = 0; count <= 16; count++) {
		assert_int_equal(order(4, 0, count), -EINVAL);
		assert_int_equal(order(~0u, -1, count), -EINVAL);
		assert_int_equal(order(BACKING_OPEN, 0, count), count == 1 ? -ENOTTY : -EINVAL);
		assert_int_equal(order(BACKING_CLOSE, -1, count), -ENOTTY);
		assert_int_equal(say("\1", 1, count), -EINVAL);
		assert_int_equal(say("\2\0\0\0\0\0\0", 7, count), -EINVAL);
		assert_int_equal(say(long_message, sizeof(long_message), count), -EINVAL);
	}
	assert_int_equal(descriptors(), before);
	end();
}

/* Who was not told of the connection has none, whatever is asked. */
static void test_without_connection(void **state)
{
	int file;

	(void)state;
	start(-1);
	file = store_open("file.raw", O_RDONLY);
	assert_int_equal(companion_backing_open(&companion, file), -EPERM);
	assert_int_equal(companion_backing_close(&companion, 1), -EPERM);
	assert_int_equal(order(0, 0, 3), -EPERM);
	assert_int_equal(descriptors(), 4);
	end();
}

/* Opens are ordinary where files cannot be registered, by a companion that is there or is not. */
static void test_passthrough_falls_back(void **state)
{
	struct passthrough *passthrough;
	int file;

	(void)state;
	start(-1);
	file = store_open("file.raw", O_RDONLY);
	passthrough = passthrough_new(&companion, -1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(passthrough_open(passthrough, 7, i == 1 ? -1 : file), 0);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(passthrough_open(passthrough, 8, file), 0);
	assert_int_equal(companion_backing_open(&companion, file), -EIO);
	for (int i = 0; i < 3; i++)
		passthrough_close(passthrough, 7);
	passthrough_close(passthrough, 8);
	passthrough_close(passthrough, 9);
	companion_stop(&companion);
	assert_int_equal(passthrough_open(passthrough, 10, file), 0);
	passthrough_free(passthrough);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_orders),
		store_test(test_nonsense),
		store_test(test_without_connection),
		store_test(test_passthrough_falls_back),
	};

	signal(SIGPIPE, SIG_IGN);
	return run_unit_tests(tests);
}
