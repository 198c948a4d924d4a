/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound cleanup: `autofree` buffers, `autoclose` descriptors, scoped mutexes. */
#ifndef IMGFS_CLEANUP_H
#define IMGFS_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_unlock(pthread_mutex_t **lock)
{
	if (*lock)
		pthread_mutex_unlock(*lock);
}

static inline pthread_mutex_t *lock_scope(pthread_mutex_t *lock)
{
	pthread_mutex_lock(lock);
	return lock;
}

#define cleanup_with(fn) __attribute__((cleanup(fn)))
#define autofree         cleanup_with(cleanup_free)
#define autoclose        cleanup_with(cleanup_close)

/* Holds the mutex until the enclosing scope ends. One per scope. */
#define LOCKED(mutex)                                                                   \
	pthread_mutex_t *locked_scope cleanup_with(cleanup_unlock) = lock_scope(mutex); \
	(void)locked_scope

/* Hands the value over and empties the variable, so that its cleanup does nothing. */
#define steal_ptr(p)                         \
	({                                   \
		__typeof__(p) stolen_ = (p); \
		(p) = NULL;                  \
		stolen_;                     \
	})

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#endif
