/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How inject.c gets between a caller and the C library: STAND_IN() names the function that the
 * caller reaches, real_NAME() is the one that it meant.
 */
#ifndef IMGFS_TEST_INJECT_REAL_H
#define IMGFS_TEST_INJECT_REAL_H

#include <dirent.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef INJECT_PRELOAD

#include <dlfcn.h>

#define STAND_IN(type, name, ...) \
	__attribute__((visibility("default"))) type stand_in_##name(__VA_ARGS__) __asm__(#name)

/* Found at the first call: other constructors may run before that of this object. */
#define REAL(type, name, parameters, ...)                                              \
	static type real_##name parameters                                             \
	{                                                                              \
		static type(*next) parameters;                                         \
		type(*found) parameters = __atomic_load_n(&next, __ATOMIC_RELAXED);    \
                                                                                       \
		if (!found) {                                                          \
			found = (__typeof__(found))(uintptr_t)dlsym(RTLD_NEXT, #name); \
			if (!found)                                                    \
				abort();                                               \
			__atomic_store_n(&next, found, __ATOMIC_RELAXED);              \
		}                                                                      \
		return found(__VA_ARGS__);                                             \
	}

/* glibc's own names for its allocator: dlsym() itself may allocate. */
void *real_malloc(size_t size) __asm__("__libc_malloc");
void *real_calloc(size_t count, size_t size) __asm__("__libc_calloc");
void *real_realloc(void *p, size_t size) __asm__("__libc_realloc");

#else

#define STAND_IN(type, name, ...)         type stand_in_##name(__VA_ARGS__) __asm__("__wrap_" #name)
#define REAL(type, name, parameters, ...) type real_##name parameters __asm__("__real_" #name);

void *real_malloc(size_t size) __asm__("__real_malloc");
void *real_calloc(size_t count, size_t size) __asm__("__real_calloc");
void *real_realloc(void *p, size_t size) __asm__("__real_realloc");

#endif

REAL(ssize_t, pread64, (int fd, void *buffer, size_t length, off_t offset), fd, buffer, length,
	offset)
REAL(ssize_t, splice,
	(int from, off_t *offset, int to, off_t *to_offset, size_t length, unsigned flags), from,
	offset, to, to_offset, length, flags)
REAL(int, posix_memalign, (void **p, size_t alignment, size_t size), p, alignment, size)
REAL(int, fstat64, (int fd, struct stat *st), fd, st)
REAL(off_t, lseek64, (int fd, off_t offset, int whence), fd, offset, whence)
REAL(struct dirent *, readdir64, (DIR * stream), stream)
REAL(DIR *, fdopendir, (int fd), fd)
REAL(long, syscall, (long number, long a, long b, long c, long d, long e, long f), number, a, b, c,
	d, e, f)

STAND_IN(ssize_t, pread64, int fd, void *buffer, size_t length, off_t offset);
STAND_IN(ssize_t, splice, int from, off_t *offset, int to, off_t *to_offset, size_t length,
	unsigned flags);
STAND_IN(int, posix_memalign, void **p, size_t alignment, size_t size);
STAND_IN(int, fstat64, int fd, struct stat *st);
STAND_IN(off_t, lseek64, int fd, off_t offset, int whence);
STAND_IN(struct dirent *, readdir64, DIR *stream);
STAND_IN(DIR *, fdopendir, int fd);
STAND_IN(long, syscall, long number, ...);
STAND_IN(void *, malloc, size_t size);
STAND_IN(void *, calloc, size_t count, size_t size);
STAND_IN(void *, realloc, void *p, size_t size);
STAND_IN(void *, reallocarray, void *p, size_t count, size_t size);
STAND_IN(char *, strdup, const char *text);
STAND_IN(char *, strndup, const char *text, size_t length);

#endif
