/* SPDX-License-Identifier: Apache-2.0 */
/* The cache: what it keeps, what it drops, and that one thread at a time makes a value. */
#include "support.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static struct cache_key key_of(uint64_t n)
{
	return (struct cache_key) { .serial = 1 + n % 3, .offset = n * 4096 };
}

/* A value is its number, over and over. */
struct maker {
	uint64_t value;
	int error;
	unsigned calls;
};

static int make(void *buffer, size_t length, void *argument)
{
	struct maker *maker = argument;

	maker->calls++;
	if (maker->error)
		return maker->error;
	memset(buffer, (int)(maker->value & 0xff), length);
	return 0;
}

typedef void put_function(struct cache *cache, struct cache_entry *entry);

/* Gets value n of so many bytes and gives it back as `put` does; was it there already? */
static bool had_and(struct cache *cache, uint64_t n, size_t length, put_function *put)
{
	struct cache_key key = key_of(n);
	struct maker maker = { .value = n };
	struct cache_entry *entry;

	assert_int_equal(cache_get(cache, &key, length, make, &maker, &entry), 0);
	assert_int_equal(cache_length(entry), length);
	for (size_t i = 0; i < length; i++)
		assert_int_equal(cache_bytes(entry)[i], n & 0xff);
	put(cache, entry);
	return maker.calls == 0;
}

static bool had(struct cache *cache, uint64_t n, size_t length)
{
	return had_and(cache, n, length, cache_put);
}

static uint64_t held_bytes(struct cache *cache)
{
	struct cache_stats stats;

	cache_get_stats(cache, &stats);
	return stats.bytes;
}

static void test_hits(void **state)
{
	struct cache *cache = cache_new(1 << 20);
	struct cache_stats stats;

	(void)state;
	for (int round = 0; round < 3; round++) {
		for (uint64_t n = 0; n < 10; n++)
			assert_int_equal(had(cache, n, 1000), round > 0);
	}
	cache_get_stats(cache, &stats);
	assert_int_equal(stats.misses, 10);
	assert_int_equal(stats.hits, 20);
	assert_int_equal(stats.bytes, 10000);
	cache_free(cache);
	cache_free(NULL);
}

static void test_keys(void **state)
{
	static const struct cache_key keys[] = {
		{ .serial = 1 },
		{ .serial = 2 },
		{ .serial = 1, .offset = 1 },
		{ .serial = 1, .kind = 1 },
		{ .serial = 1, .need = 1 },
		{ .serial = 1, .kind = 1, .need = 1 },
		{ .serial = 0, .offset = 1 },
		{ .serial = 1ull << 32 },
		{ .serial = 1, .offset = 1ull << 32 },
		{ .serial = 1, .kind = 1ull << 32 },
		{ .serial = 1, .need = 1ull << 32 },
		{ .serial = UINT64_MAX, .offset = UINT64_MAX, .kind = UINT64_MAX },
	};
	struct cache *cache = cache_new(1 << 20);
	struct cache_entry *entry;

	(void)state;
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < COUNT(keys); i++) {
			struct maker maker = { .value = i };

			assert_int_equal(cache_get(cache, &keys[i], 16, make, &maker, &entry), 0);
			assert_int_equal(maker.calls, round == 0);
			assert_int_equal(cache_bytes(entry)[15], i);
			cache_put(cache, entry);
		}
	}
	cache_free(cache);
}

static void test_budget(void **state)
{
	struct cache *cache = cache_new(4000);

	(void)state;
	for (uint64_t n = 0; n < 100; n++) {
		had(cache, n, 1000);
		assert_int_equal(held_bytes(cache), 1000 * (n < 3 ? n + 1 : 4));
	}
	/* One byte more than fits drops one entry, not all. */
	assert_false(had(cache, 200, 1));
	assert_int_equal(held_bytes(cache), 3001);
	assert_true(had(cache, 99, 1000));
	assert_true(had(cache, 98, 1000));
	assert_true(had(cache, 97, 1000));
	assert_true(had(cache, 200, 1));
	/* A large one drops all that it must. */
	assert_false(had(cache, 300, 3500));
	assert_int_equal(held_bytes(cache), 3501);
	assert_true(had(cache, 200, 1));
	assert_false(had(cache, 99, 1000));
	cache_free(cache);
}

static void test_order(void **state)
{
	struct cache *cache = cache_new(3000);

	(void)state;
	had(cache, 1, 1000);
	had(cache, 2, 1000);
	had(cache, 3, 1000);
	assert_true(had(cache, 1, 1000)); /* 2 is the oldest now */
	assert_false(had(cache, 4, 1000));
	assert_true(had(cache, 1, 1000));
	assert_true(had(cache, 3, 1000));
	assert_true(had(cache, 4, 1000));
	assert_false(had(cache, 2, 1000)); /* drops 1 */
	assert_true(had(cache, 4, 1000));
	assert_true(had(cache, 3, 1000));
	assert_true(had(cache, 2, 1000));
	assert_false(had(cache, 1, 1000)); /* drops 4 */
	assert_true(had(cache, 2, 1000));
	assert_true(had(cache, 3, 1000));
	assert_false(had(cache, 4, 1000));
	cache_free(cache);
}

/* What is in use stays, whatever the budget says. */
/* Who goes through a large table takes little room, and from nobody. */
static void test_passed(void **state)
{
	const size_t length = 16 * KIB;
	struct cache *cache = cache_new(4 * MIB);

	(void)state;
	for (uint64_t n = 0; n < 100; n++)
		assert_false(had(cache, n, length));
	for (uint64_t n = 1000; n < 2000; n++) {
		assert_false(had_and(cache, n, length, cache_pass));
		/* The one before is still there, for whoever looks back a little. */
		assert_true(n == 1000 || had_and(cache, n - 1, length, cache_pass));
		assert_true(held_bytes(cache) >= 100 * length);
		assert_true(held_bytes(cache) <= 100 * length + MIB);
	}
	assert_false(had_and(cache, 1000, length, cache_pass));
	for (uint64_t n = 0; n < 100; n++)
		assert_true(had(cache, n, length));
	/* What somebody comes back for is kept like all else. */
	assert_true(had(cache, 1999, length));
	for (uint64_t n = 3000; n < 3100; n++)
		assert_false(had_and(cache, n, length, cache_pass));
	assert_true(had(cache, 1999, length));
	/* Where there is no room at all, what was passed goes first. */
	for (uint64_t n = 4000; n < 4100; n++)
		assert_false(had(cache, n, length));
	assert_true(held_bytes(cache) <= 4 * MIB);
	assert_true(had(cache, 99, length));
	cache_free(cache);
}

static void test_held(void **state)
{
	struct cache *cache = cache_new(2000);
	struct cache_entry *entries[5], *again;

	(void)state;
	for (uint64_t n = 0; n < 5; n++) {
		struct cache_key key = key_of(n);
		struct maker maker = { .value = n };

		assert_int_equal(cache_get(cache, &key, 1000, make, &maker, &entries[n]), 0);
	}
	assert_int_equal(held_bytes(cache), 5000);
	for (uint64_t n = 0; n < 5; n++) {
		struct cache_key key = key_of(n);
		struct maker maker = { 0 };

		assert_int_equal(cache_bytes(entries[n])[999], n);
		assert_int_equal(cache_get(cache, &key, 1000, make, &maker, &again), 0);
		assert_ptr_equal(again, entries[n]);
		cache_put(cache, again);
	}
	assert_int_equal(held_bytes(cache), 5000);
	for (size_t n = 0; n < 5; n++)
		cache_put(cache, entries[n]);
	assert_int_equal(held_bytes(cache), 2000);
	assert_true(had(cache, 4, 1000));
	assert_true(had(cache, 3, 1000));
	assert_false(had(cache, 2, 1000));
	cache_free(cache);
}

static void test_too_large(void **state)
{
	struct cache *cache = cache_new(100);
	struct cache *none = cache_new(0);

	(void)state;
	/* Larger than the budget: usable, not kept. */
	assert_false(had(cache, 1, 101));
	assert_int_equal(held_bytes(cache), 0);
	assert_false(had(cache, 1, 101));
	assert_false(had(cache, 2, 100));
	assert_true(had(cache, 2, 100));
	assert_false(had(none, 1, 1));
	assert_false(had(none, 1, 1));
	assert_int_equal(held_bytes(none), 0);
	cache_free(cache);
	cache_free(none);
}

static void test_zero_length(void **state)
{
	struct cache *cache = cache_new(0);

	(void)state;
	assert_false(had(cache, 1, 0));
	assert_true(had(cache, 1, 0));
	assert_int_equal(held_bytes(cache), 0);
	cache_free(cache);
}

static void test_failure(void **state)
{
	struct cache *cache = cache_new(10000);
	struct cache_key key = key_of(7);
	struct cache_entry *entry;
	struct maker maker = { .value = 7, .error = -EIO };

	(void)state;
	assert_int_equal(cache_get(cache, &key, 1000, make, &maker, &entry), -EIO);
	assert_int_equal(held_bytes(cache), 0);
	maker.error = -ESTALE;
	assert_int_equal(cache_get(cache, &key, 1000, make, &maker, &entry), -ESTALE);
	assert_int_equal(maker.calls, 2);
	/* It was not remembered. */
	assert_false(had(cache, 7, 1000));
	assert_true(had(cache, 7, 1000));
	cache_free(cache);
}

/* A closed file takes its values along, and no others. */
static void test_drop_file(void **state)
{
	struct cache *cache = cache_new(100000);

	(void)state;
	for (uint64_t n = 0; n < 30; n++)
		had(cache, n, 100);
	cache_drop_file(cache, 2);
	assert_int_equal(held_bytes(cache), 2000);
	cache_drop_file(cache, 2);
	cache_drop_file(cache, 99);
	for (uint64_t n = 0; n < 30; n++)
		assert_int_equal(had(cache, n, 100), n % 3 != 1);
	assert_int_equal(held_bytes(cache), 3000);
	for (uint64_t serial = 1; serial <= 3; serial++)
		cache_drop_file(cache, serial);
	assert_int_equal(held_bytes(cache), 0);
	assert_false(had(cache, 1, 100));
	cache_free(cache);
}

/* ---- threads ---- */

#define THREADS 8

struct flight {
	struct cache *cache;
	int outcome;
	uint64_t waiters; /* hits that fill waits for, so that all others are in it */
	atomic_uint fills;
	atomic_uint good, failed;
	atomic_uint keys; /* handed out */
};

static int fill_when_all_wait(void *buffer, size_t length, void *argument)
{
	struct flight *flight = argument;
	struct cache_stats stats = { 0 };

	atomic_fetch_add(&flight->fills, 1);
	for (int tries = 0; stats.hits < flight->waiters && tries < 100000; tries++) {
		cache_get_stats(flight->cache, &stats);
		usleep(50);
	}
	memset(buffer, 0x77, length);
	return stats.hits < flight->waiters ? -ETIMEDOUT : flight->outcome;
}

static void *get_together(void *argument)
{
	struct flight *flight = argument;
	struct cache_key key = key_of(1);
	struct cache_entry *entry;
	int r = cache_get(flight->cache, &key, 5000, fill_when_all_wait, flight, &entry);

	if (r == 0) {
		atomic_fetch_add(&flight->good, cache_bytes(entry)[4999] == 0x77);
		cache_put(flight->cache, entry);
	} else {
		atomic_fetch_add(&flight->failed, r == flight->outcome);
	}
	return NULL;
}

static void run_threads(void *(*body)(void *), void *argument)
{
	pthread_t threads[THREADS];

	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body, argument), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Fills of different keys: each waits until all of them are running. */
static int fill_when_all_fill(void *buffer, size_t length, void *argument)
{
	struct flight *flight = argument;

	memset(buffer, 0x77, length);
	atomic_fetch_add(&flight->fills, 1);
	for (int tries = 0; tries < 100000; tries++) {
		if (atomic_load(&flight->fills) == THREADS)
			return 0;
		usleep(50);
	}
	return -ETIMEDOUT;
}

static void *get_alone(void *argument)
{
	struct flight *flight = argument;
	struct cache_key key = key_of(atomic_fetch_add(&flight->keys, 1));
	struct cache_entry *entry;

	if (cache_get(flight->cache, &key, 5000, fill_when_all_fill, flight, &entry) < 0)
		return NULL;
	atomic_fetch_add(&flight->good, 1);
	cache_put(flight->cache, entry);
	return NULL;
}

/* Units of one image are unpacked at the same time: no lock is held while one is filled. */
static void test_parallel_fills(void **state)
{
	struct flight flight = { .cache = cache_new(1 << 20) };

	(void)state;
	run_threads(get_alone, &flight);
	assert_int_equal(flight.fills, THREADS);
	assert_int_equal(flight.good, THREADS);
	cache_free(flight.cache);
}

static void test_single_flight(void **state)
{
	struct flight flight = { .cache = cache_new(1 << 20), .waiters = THREADS - 1 };

	(void)state;
	run_threads(get_together, &flight);
	assert_int_equal(flight.fills, 1);
	assert_int_equal(flight.good, THREADS);
	assert_int_equal(flight.failed, 0);
	assert_int_equal(held_bytes(flight.cache), 5000);
	cache_free(flight.cache);
}

/* All who wait get the error of the one who tried; the next tries again. */
static void test_single_flight_fails(void **state)
{
	struct flight flight = {
		.cache = cache_new(1 << 20),
		.waiters = THREADS - 1,
		.outcome = -EIO,
	};

	(void)state;
	run_threads(get_together, &flight);
	assert_int_equal(flight.fills, 1);
	assert_int_equal(flight.good, 0);
	assert_int_equal(flight.failed, THREADS);
	assert_int_equal(held_bytes(flight.cache), 0);
	assert_false(had(flight.cache, 1, 5000));
	assert_true(had(flight.cache, 1, 5000));
	cache_free(flight.cache);
}

/* While one value is being made, others can be had and made. */
static int fill_with_another(void *buffer, size_t length, void *argument)
{
	struct cache *cache = argument;

	memset(buffer, 1, length);
	assert_false(had(cache, 2, 10));
	return had(cache, 2, 10) ? 0 : -EIO;
}

static void test_fill_uses_cache(void **state)
{
	struct cache *cache = cache_new(1000);
	struct cache_key key = key_of(1);
	struct cache_entry *entry;

	(void)state;
	assert_int_equal(cache_get(cache, &key, 900, fill_with_another, cache, &entry), 0);
	cache_put(cache, entry);
	assert_true(had(cache, 1, 900));
	cache_free(cache);
}

struct storm {
	struct cache *cache;
	atomic_uint wrong, seeds;
};

static int fill_or_fail(void *buffer, size_t length, void *argument)
{
	uint64_t n = *(const uint64_t *)argument;

	memset(buffer, (int)n, length);
	sched_yield();
	return n % 7 == 6 ? -EIO : 0;
}

static void *storm_body(void *argument)
{
	struct storm *storm = argument;
	uint64_t random = atomic_fetch_add(&storm->seeds, 1);

	for (int i = 0; i < 2000; i++) {
		uint64_t n = random_below(&random, 40);
		struct cache_key key = key_of(n);
		struct cache_entry *entry;
		size_t length = 100 + n;
		int r = cache_get(storm->cache, &key, length, fill_or_fail, &n, &entry);

		if (r != (n % 7 == 6 ? -EIO : 0)) {
			atomic_fetch_add(&storm->wrong, 1);
		} else if (r == 0) {
			const uint8_t *bytes = cache_bytes(entry);

			if (cache_length(entry) != length || bytes[0] != n ||
				bytes[length - 1] != n)
				atomic_fetch_add(&storm->wrong, 1);
			cache_put(storm->cache, entry);
		}
	}
	return NULL;
}

static void test_storm(void **state)
{
	struct storm storm = { .cache = cache_new(1500) };
	struct cache_stats stats;

	(void)state;
	run_threads(storm_body, &storm);
	assert_int_equal(storm.wrong, 0);
	cache_get_stats(storm.cache, &stats);
	assert_int_equal(stats.hits + stats.misses, THREADS * 2000);
	assert_true(stats.bytes <= 1500);
	cache_free(storm.cache);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hits),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_passed),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_failure),
		cmocka_unit_test(test_drop_file),
		cmocka_unit_test(test_parallel_fills),
		cmocka_unit_test(test_single_flight),
		cmocka_unit_test(test_single_flight_fails),
		cmocka_unit_test(test_fill_uses_cache),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_zero_length),
	};

	return run_unit_tests(tests);
}
