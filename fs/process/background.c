/* SPDX-License-Identifier: Apache-2.0 */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "imgfs/cleanup.h"
#include "imgfs/log.h"

static void wait_and_end(int pipe_end, int failure)
{
	unsigned char status;
	ssize_t n;

	do
		n = read(pipe_end, &status, 1);
	while (n < 0 && errno == EINTR);
	_exit(n == 1 ? status : failure);
}

int background_enter(struct background *background, int failure)
{
	autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int ends[2];
	pid_t child;

	if (null < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0) {
		int r = -errno;

		close(ends[0]);
		close(ends[1]);
		return r;
	}
	if (child > 0) {
		close(ends[1]);
		wait_and_end(ends[0], failure);
	}
	close(ends[0]);
	setsid();
	*background = (struct background) { .caller = ends[1], .null = steal_fd(&null) };
	return chdir("/") < 0 ? -errno : 0;
}

void background_done(struct background *background, int status)
{
	unsigned char byte = (unsigned char)status;

	for (int fd = 0; fd <= 2; fd++) {
		if (dup2(background->null, fd) < 0)
			log_error("cannot let go of the terminal: %s", strerror(errno));
	}
	close(background->null);
	if (write(background->caller, &byte, 1) < 0)
		log_debug("nobody waits for the start any more");
	close(background->caller);
	*background = (struct background) { -1, -1 };
}
