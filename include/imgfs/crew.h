/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A crew: threads that lend a hand where one request is work for several processors, such as a
 * read of sixteen compressed clusters. They are made when they are first wanted, so they have the
 * confinement of whoever asks, and wait for ever after.
 */
#ifndef IMGFS_CREW_H
#define IMGFS_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct crew;

/* More than this is no faster: the requests of several readers are work for several as well. */
#define CREW_MAX 7

/*
 * At most `threads` of them, and CREW_MAX; 0 is a crew of nobody. NULL out of memory. crew_free()
 * waits until they have ended; nothing may be running.
 */
struct crew *crew_new(unsigned threads);
void crew_free(struct crew *crew);

/* As many as there are processors for, beside the thread that asks; CREW_MAX at most. */
unsigned crew_suggested(void);

/* A thread with a small stack that gets no signals, to be joined. False: there can be none now. */
bool crew_start_thread(pthread_t *thread, void *(*function)(void *), void *argument);

typedef void crew_function(void *argument, size_t index);

/*
 * Calls the function for every index below count, in no order, from this thread and from those
 * that have nothing to do, and returns when all calls have. crew may be NULL. The function may
 * not wait for another index; it may call crew_run().
 */
void crew_run(struct crew *crew, size_t count, crew_function *function, void *argument);

#endif
