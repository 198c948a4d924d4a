/* SPDX-License-Identifier: Apache-2.0 */
/* Every index once, whoever does it; and really by several threads. */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "imgfs/crew.h"

#define MANY 1000

struct tally {
	struct crew *crew;
	atomic_uint calls[MANY];
};

static void count_call(void *argument, size_t index)
{
	struct tally *tally = argument;

	atomic_fetch_add(&tally->calls[index], 1);
}

static void assert_once_each(const struct tally *tally, size_t count)
{
	for (size_t i = 0; i < MANY; i++)
		assert_int_equal(tally->calls[i], i < count ? 1 : 0);
}

static void test_each_once(void **state)
{
	static const size_t counts[] = { 0, 1, 2, 3, 16, MANY };

	(void)state;
	for (unsigned threads = 0; threads <= 3; threads++) {
		struct crew *crew = crew_new(threads);

		for (size_t i = 0; i < COUNT(counts); i++) {
			struct tally tally = { 0 };

			crew_run(crew, counts[i], count_call, &tally);
			assert_once_each(&tally, counts[i]);
		}
		crew_free(crew);
	}
}

static void test_nobody(void **state)
{
	struct tally tally = { 0 };

	(void)state;
	crew_run(NULL, 7, count_call, &tally);
	assert_once_each(&tally, 7);
	crew_free(NULL);
}

/* Waits until as many are here at the same time. */
struct meeting {
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	unsigned here, wanted, late;
};

static void meet(void *argument, size_t index)
{
	struct meeting *m = argument;
	struct timespec limit;
	int r = 0;

	(void)index;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	pthread_mutex_lock(&m->lock);
	m->here++;
	pthread_cond_broadcast(&m->arrived);
	while (m->here < m->wanted && r == 0)
		r = pthread_cond_timedwait(&m->arrived, &m->lock, &limit);
	m->late += r != 0;
	pthread_mutex_unlock(&m->lock);
}

/* A run makes one more thread where there is work for it. */
static void test_at_the_same_time(void **state)
{
	struct crew *crew = crew_new(2);

	(void)state;
	for (unsigned wanted = 2; wanted <= 3; wanted++) {
		struct meeting m = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, wanted,
			0 };

		crew_run(crew, wanted, meet, &m);
		assert_int_equal(m.late, 0);
	}
	crew_free(crew);
}

static void run_more(void *argument, size_t index)
{
	struct tally *tally = argument;
	struct tally inner = { 0 };

	crew_run(tally->crew, 10, count_call, &inner);
	assert_once_each(&inner, 10);
	count_call(tally, index);
}

static void *run_from_a_thread(void *argument)
{
	struct tally tally = { .crew = argument };

	for (int i = 0; i < 50; i++) {
		memset(tally.calls, 0, sizeof(tally.calls));
		crew_run(tally.crew, 20, run_more, &tally);
		assert_once_each(&tally, 20);
	}
	return NULL;
}

/* Several that ask, each for what asks again. */
static void test_asked_by_many(void **state)
{
	struct crew *crew = crew_new(CREW_MAX + 5);
	pthread_t threads[4];

	(void)state;
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_from_a_thread, crew), 0);
	for (size_t i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	crew_free(crew);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_once),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_at_the_same_time),
		cmocka_unit_test(test_asked_by_many),
	};

	return run_unit_tests(tests);
}
