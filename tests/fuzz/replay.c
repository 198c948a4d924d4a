/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a harness over files and over the files of directories, without libFuzzer: every compiler
 * can build it and every test run has it. An input that takes over ten seconds ends the process.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"
#include "imgfs/cleanup.h"

#define SECONDS_MAX 10

/* The sanitizers end the process themselves; only they know when. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static char current[4096];
static unsigned count;

static void name_input(void)
{
	static const char label[] = "replay: the input is ";
	ssize_t ignored = write(STDERR_FILENO, label, sizeof(label) - 1);

	ignored += write(STDERR_FILENO, current, strlen(current));
	ignored += write(STDERR_FILENO, "\n", 1);
	(void)ignored;
}

static void died(int signal)
{
	name_input();
	if (signal != SIGALRM)
		return; /* the handler has been reset: the same happens again and ends it */
	_exit(1);
}

static void name_input_of_deaths(void)
{
	static const int signals[] = { SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV };
	struct sigaction action = { .sa_handler = died, .sa_flags = (int)SA_RESETHAND };

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		if (!__sanitizer_set_death_callback || signals[i] == SIGALRM)
			sigaction(signals[i], &action, NULL);
	}
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(name_input);
}

/* The input is a block of its own size: a sanitizer sees a read past its end. */
static int replay_file(const char *path)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	autofree uint8_t *bytes = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		perror(path);
		return 1;
	}
	bytes = malloc((size_t)st.st_size + (st.st_size == 0));
	if (!bytes || read(fd, bytes, (size_t)st.st_size) != st.st_size) {
		perror(path);
		return 1;
	}
	snprintf(current, sizeof(current), "%s", path);
	count++;
	alarm(SECONDS_MAX);
	LLVMFuzzerTestOneInput(bytes, (size_t)st.st_size);
	alarm(0);
	return 0;
}

static int replay_directory(const char *path, DIR *stream)
{
	const struct dirent *entry;
	int failed = 0;

	while (!failed && (entry = readdir(stream))) {
		char file[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		failed = replay_file(file);
	}
	return failed;
}

static int replay(const char *path)
{
	DIR *stream = opendir(path);
	int failed;

	if (!stream)
		return replay_file(path);
	failed = replay_directory(path, stream);
	closedir(stream);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	name_input_of_deaths();
	for (int i = 1; i < argc && !failed; i++)
		failed = replay(argv[i]);
	if (count == 0) {
		fprintf(stderr, "replay: no inputs\n");
		return 1;
	}
	printf("%u inputs\n", count);
	return failed;
}
