/* SPDX-License-Identifier: Apache-2.0 */
/* Whose readahead is it? That of the mounts is for tests/mount/test_readahead.py. */
#include "support.h"

#include "fs/process/readahead.h"

/* The disk beneath a directory is not ours, and neither is one that is mounted there. */
static void test_not_ours(void **state)
{
	(void)state;
	store_mkdir("d");
	assert_int_equal(readahead_open(store_path("d")), -ENODEV);
	assert_int_equal(readahead_open(store_path("nothing")), -ENOENT);
	assert_int_equal(readahead_open("/dev/fd/0"), -ENODEV);
}

/* A setting is a file with a number in it, and is let go of. */
static void test_raise(void **state)
{
	char text[16] = "";
	int fd;

	(void)state;
	store_text("setting", "");
	fd = open(store_path("setting"), O_WRONLY);
	assert_int_equal(readahead_raise(fd), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	fd = open(store_path("setting"), O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text) - 1), 4);
	assert_string_equal(text, "4096");
	assert_int_equal(readahead_raise(fd), -EBADF);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_not_ours),
		store_test(test_raise),
	};

	return run_unit_tests(tests);
}
