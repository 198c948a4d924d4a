/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that fail on purpose, and when; see inject.h. */
#include "inject.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>

#include "inject_private.h"
#include "inject_real.h"

static struct inject_rule own_rules[INJECT_KINDS];
static struct inject_rule *rules = own_rules;

void inject_use_rules(struct inject_rule *others)
{
	rules = others;
}

struct inject_rule *inject_rules(void)
{
	return rules;
}

void inject(enum inject_kind kind, uint64_t every, uint64_t limit, int error)
{
	rules[kind] = (struct inject_rule) {
		.every = every,
		.limit = limit,
		.error = (uint64_t)error,
	};
}

void inject_nothing(void)
{
	for (int kind = 0; kind < INJECT_KINDS; kind++)
		inject((enum inject_kind)kind, 0, 0, 0);
}

uint64_t inject_faults(enum inject_kind kind)
{
	return __atomic_load_n(&rules[kind].faults, __ATOMIC_RELAXED);
}

static bool is_watched(const struct inject_rule *rule, int fd)
{
	struct stat st;

	return rule->inode == 0 || (real_fstat64(fd, &st) == 0 && st.st_ino == rule->inode);
}

/* Is it this call's turn? Sets errno where it is. */
bool inject_fails(enum inject_kind kind, int fd)
{
	struct inject_rule *rule = &rules[kind];
	uint64_t every = __atomic_load_n(&rule->every, __ATOMIC_RELAXED);
	uint64_t limit = __atomic_load_n(&rule->limit, __ATOMIC_RELAXED);

	if (every == 0 || !is_watched(rule, fd))
		return false;
	if (__atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED) % every != 0)
		return false;
	if (limit > 0 && __atomic_load_n(&rule->faults, __ATOMIC_RELAXED) >= limit)
		return false;
	__atomic_add_fetch(&rule->faults, 1, __ATOMIC_RELAXED);
	if (kind != INJECT_SHORT)
		errno = (int)rule->error;
	return true;
}

/* How much a short read gives: one byte, all but one, half, in turn. At least one. */
static size_t shorten(size_t length)
{
	static atomic_uint turn;

	if (length < 2)
		return length;
	switch (atomic_fetch_add(&turn, 1) % 3) {
	case 0:
		return 1;
	case 1:
		return length - 1;
	default:
		return length / 2;
	}
}

#define NO_MEMORY() \
	(inject_is_subject(__builtin_return_address(0)) && inject_fails(INJECT_ALLOC, -1))

/* ---- files ---- */

ssize_t stand_in_pread64(int fd, void *buffer, size_t length, off_t offset)
{
	if (inject_fails(INJECT_READ, fd))
		return -1;
	if (inject_fails(INJECT_SHORT, fd))
		length = shorten(length);
	return real_pread64(fd, buffer, length, offset);
}

/* As libfuse does it from a source's descriptor to a pipe. */
ssize_t stand_in_splice(
	int from, off_t *offset, int to, off_t *to_offset, size_t length, unsigned flags)
{
	if (offset && inject_fails(INJECT_READ, from))
		return -1;
	if (offset && inject_fails(INJECT_SHORT, from))
		length = shorten(length);
	return real_splice(from, offset, to, to_offset, length, flags);
}

int stand_in_fstat64(int fd, struct stat *st)
{
	return inject_fails(INJECT_STAT, fd) ? -1 : real_fstat64(fd, st);
}

off_t stand_in_lseek64(int fd, off_t offset, int whence)
{
	return inject_fails(INJECT_SEEK, fd) ? -1 : real_lseek64(fd, offset, whence);
}

struct dirent *stand_in_readdir64(DIR *stream)
{
	return inject_fails(INJECT_LIST, -1) ? NULL : real_readdir64(stream);
}

/* It allocates, and fails as an allocation does. */
DIR *stand_in_fdopendir(int fd)
{
	return NO_MEMORY() ? NULL : real_fdopendir(fd);
}

/* openat2() has no function of its own. */
long stand_in_syscall(long number, ...)
{
	long a[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_openat2 && inject_fails(INJECT_OPEN, -1))
		return -1;
	return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- memory ---- */

void *stand_in_malloc(size_t size)
{
	return NO_MEMORY() ? NULL : inject_counted(real_malloc(size));
}

void *stand_in_calloc(size_t count, size_t size)
{
	return NO_MEMORY() ? NULL : inject_counted(real_calloc(count, size));
}

static void *reallocate(void *p, size_t size)
{
	void *grown = real_realloc(p, size);

	return p ? grown : inject_counted(grown);
}

void *stand_in_realloc(void *p, size_t size)
{
	return NO_MEMORY() ? NULL : reallocate(p, size);
}

void *stand_in_reallocarray(void *p, size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return NO_MEMORY() ? NULL : reallocate(p, bytes);
}

static char *duplicate(const char *text, size_t length)
{
	char *copy = inject_counted(real_malloc(length + 1));

	if (!copy)
		return NULL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return copy;
}

char *stand_in_strdup(const char *text)
{
	return NO_MEMORY() ? NULL : duplicate(text, strlen(text));
}

char *stand_in_strndup(const char *text, size_t length)
{
	return NO_MEMORY() ? NULL : duplicate(text, strnlen(text, length));
}

int stand_in_posix_memalign(void **p, size_t alignment, size_t size)
{
	int r = NO_MEMORY() ? ENOMEM : real_posix_memalign(p, alignment, size);

	if (r == 0)
		inject_counted(*p);
	return r;
}
