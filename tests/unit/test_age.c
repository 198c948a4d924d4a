/* SPDX-License-Identifier: Apache-2.0 */
/* How old is a change, and what may be kept of what was learned at that age? */
#include "support.h"

#include <time.h>

#include "fs/catalog/catalog_private.h"

#define MS 1000000ll

static struct timespec ago(int64_t ms)
{
	struct timespec t = age_clock();
	int64_t ns = t.tv_sec * 1000 * MS + t.tv_nsec - ms * MS;

	return (struct timespec) { .tv_sec = ns / (1000 * MS), .tv_nsec = ns % (1000 * MS) };
}

static void test_difference(void **state)
{
	struct timespec changed = { 1000, 999999999 }, when = { 1001, 1 };

	(void)state;
	assert_int_equal(age_at(when, changed), 2);
	assert_int_equal(age_at(changed, when), -2);
	assert_false(age_is_old(age_at((struct timespec) { 1003, 999999998 }, changed)));
	assert_true(age_is_old(age_at((struct timespec) { 1003, 999999999 }, changed)));
}

static void test_extremes(void **state)
{
	struct timespec now = age_clock();

	(void)state;
	assert_true(age_is_old(age_at(now, (struct timespec) { INT64_MIN, 0 })));
	assert_true(age_is_old(age_at(now, (struct timespec) { 0, 0 })));
	assert_true(age_is_old(age_at(now, (struct timespec) { INT64_MAX, 0 })));
	/* The clocks of this machine and of a file server differ by hours: nothing can be told. */
	assert_true(age_is_old(age_at(now, (struct timespec) { now.tv_sec + 3600, 0 })));
	/* By a little: such a change counts as new. */
	assert_true(age_at(now, (struct timespec) { now.tv_sec + 5, 0 }) < 0);
}

static void test_keeping(void **state)
{
	(void)state;
	assert_true(age_lets_keep(3000 * MS, ago(3000)));
	assert_true(age_lets_keep(5000 * MS, ago(100)));
	/* Learned too early: never. */
	assert_false(age_lets_keep(0, ago(10)));
	assert_false(age_lets_keep(19 * MS, ago(1000)));
	assert_false(age_lets_keep(-5 * MS, ago(1000)));
	/* Learned a little later: for a while. */
	assert_true(age_lets_keep(20 * MS, ago(1000)));
	assert_false(age_lets_keep(20 * MS, ago(3100)));
	assert_false(age_lets_keep(2999 * MS, ago(3001)));
}

static void test_waiting(void **state)
{
	struct timespec changed = age_clock();

	(void)state;
	assert_true(age_wait(changed));
	assert_true(age_at(age_clock(), changed) >= 20 * MS);
	assert_false(age_wait(changed));
	assert_false(age_wait(ago(1000)));
	/* A change that is yet to come is waited for, but not for ever. */
	changed = age_clock();
	assert_true(age_wait(ago(-5000)));
	assert_true(age_at(age_clock(), changed) < 1000 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_difference),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_keeping),
		cmocka_unit_test(test_waiting),
	};

	return run_unit_tests(tests);
}
