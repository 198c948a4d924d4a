/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/crew.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <utlist.h>

#include "imgfs/checked.h"

/* Decoders keep their state elsewhere; a request's own buffers are not on this stack either. */
#define STACK_BYTES (256u << 10)

/* Lives on the stack of who asked, until nobody helps any more. */
struct job {
	struct job *prev, *next;
	crew_function *function;
	void *argument;
	size_t count;
	atomic_size_t taken;
	unsigned helpers;
};

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	struct job *jobs;
	unsigned most, started, idle;
	bool ending;
	pthread_t threads[CREW_MAX];
};

struct crew *crew_new(unsigned threads)
{
	struct crew *crew = calloc(1, sizeof(*crew));

	if (!crew)
		return NULL;
	pthread_mutex_init(&crew->lock, NULL);
	pthread_cond_init(&crew->work, NULL);
	pthread_cond_init(&crew->done, NULL);
	crew->most = (unsigned)min_u64(threads, CREW_MAX);
	return crew;
}

void crew_free(struct crew *crew)
{
	if (!crew)
		return;
	pthread_mutex_lock(&crew->lock);
	crew->ending = true;
	pthread_cond_broadcast(&crew->work);
	pthread_mutex_unlock(&crew->lock);
	for (unsigned i = 0; i < crew->started; i++)
		pthread_join(crew->threads[i], NULL);
	pthread_cond_destroy(&crew->done);
	pthread_cond_destroy(&crew->work);
	pthread_mutex_destroy(&crew->lock);
	free(crew);
}

unsigned crew_suggested(void)
{
	cpu_set_t set;

	/* What this process may use, which may be less than there is. */
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 0;
	return (unsigned)min_u64((unsigned)CPU_COUNT(&set) - 1, CREW_MAX);
}

bool crew_start_thread(pthread_t *thread, void *(*function)(void *), void *argument)
{
	sigset_t all, before;
	pthread_attr_t attributes;
	int r;

	if (pthread_attr_init(&attributes) != 0)
		return false;
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	/* Signals are for those who wait for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(thread, &attributes, function, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return r == 0;
}

static void take_part(struct job *job)
{
	size_t index;

	while ((index = atomic_fetch_add(&job->taken, 1)) < job->count)
		job->function(job->argument, index);
}

/* Lock held. The first that has work left. */
static struct job *find_job(const struct crew *crew)
{
	struct job *job;

	DL_FOREACH(crew->jobs, job)
	{
		if (atomic_load(&job->taken) < job->count)
			return job;
	}
	return NULL;
}

static void *member(void *argument)
{
	struct crew *crew = argument;

	/* Or it would have the name of whoever asked first. */
	pthread_setname_np(pthread_self(), "imgfs-crew");
	pthread_mutex_lock(&crew->lock);
	while (!crew->ending) {
		struct job *job = find_job(crew);

		if (!job) {
			crew->idle++;
			pthread_cond_wait(&crew->work, &crew->lock);
			crew->idle--;
			continue;
		}
		job->helpers++;
		pthread_mutex_unlock(&crew->lock);
		take_part(job);
		pthread_mutex_lock(&crew->lock);
		if (--job->helpers == 0)
			pthread_cond_broadcast(&crew->done);
	}
	pthread_mutex_unlock(&crew->lock);
	return NULL;
}

static void call_for_help(struct crew *crew, struct job *job)
{
	pthread_mutex_lock(&crew->lock);
	DL_APPEND(crew->jobs, job);
	if (crew->idle + 1 < job->count && crew->started < crew->most &&
		crew_start_thread(&crew->threads[crew->started], member, crew))
		crew->started++;
	for (unsigned i = 0; i < crew->idle && i + 1 < job->count; i++)
		pthread_cond_signal(&crew->work);
	pthread_mutex_unlock(&crew->lock);
}

static void wait_for_helpers(struct crew *crew, struct job *job)
{
	pthread_mutex_lock(&crew->lock);
	DL_DELETE(crew->jobs, job);
	while (job->helpers > 0)
		pthread_cond_wait(&crew->done, &crew->lock);
	pthread_mutex_unlock(&crew->lock);
}

void crew_run(struct crew *crew, size_t count, crew_function *function, void *argument)
{
	struct job job = { .function = function, .argument = argument, .count = count };
	bool alone = !crew || crew->most == 0 || count < 2;

	if (!alone)
		call_for_help(crew, &job);
	take_part(&job);
	if (!alone)
		wait_for_helpers(crew, &job);
}
