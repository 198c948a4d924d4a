/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on purpose: system calls that return short or fail, allocations that find no memory.
 *
 * inject.c stands in front of the functions. The linker puts it there with --wrap for the core
 * in a test program; as a shared object in LD_PRELOAD it does the same to the daemon as it is.
 * Which calls fail is told by the rules, one per kind of call. In a test program they are
 * inject_rules(); in the daemon they are the file that IMGFS_FAULTS names, mapped, so that the
 * test can write them, and read the counts, while the daemon runs.
 */
#ifndef IMGFS_TEST_INJECT_H
#define IMGFS_TEST_INJECT_H

#include <stdint.h>

enum inject_kind {
	INJECT_SHORT, /* pread, splice: fewer bytes than there are */
	INJECT_READ,  /* pread, splice */
	INJECT_ALLOC, /* malloc, calloc, realloc, reallocarray, strdup, strndup, posix_memalign */
	INJECT_STAT,  /* fstat */
	INJECT_OPEN,  /* openat2 */
	INJECT_SEEK,  /* lseek */
	INJECT_LIST,  /* readdir */
	INJECT_KINDS,
};

/* Seven numbers of 64 bits: a test in another language writes them too. */
struct inject_rule {
	uint64_t calls;  /* seen since the rule was set */
	uint64_t faults; /* of them */
	uint64_t every; /* the n-th call fails, the 2n-th, ...; 0: none, and they are not counted */
	uint64_t limit; /* so many fail, then no more; 0: no limit */
	uint64_t error; /* the errno; not for INJECT_SHORT */
	uint64_t inode; /* INJECT_SHORT, INJECT_READ, INJECT_STAT: of this file alone; 0: any */
	uint64_t unused;
};

/* Of inject_rules(), INJECT_KINDS of them. */
struct inject_rule *inject_rules(void);

/* From now on every n-th call of the kind fails, `limit` times (0: for ever). */
void inject(enum inject_kind kind, uint64_t every, uint64_t limit, int error);

/* No more faults of any kind. */
void inject_nothing(void);

/* Faults of the kind since inject(). */
uint64_t inject_faults(enum inject_kind kind);

/* In a test program: what is allocated at the moment, and clocks that can be set forward. */
int64_t inject_allocated(void);
void inject_pass_time(unsigned seconds);

#endif
