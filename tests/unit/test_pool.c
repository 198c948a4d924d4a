/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of where an image has data outlives its opening, and not its truth. */
#include "qcow2_image.h"

#include "fs/catalog/catalog_private.h"
#include "imgfs/occupancy.h"

#define TABLES 40u
#define OTHERS 40u           /* more than are kept open */
#define PAGES  (TABLES * 4u) /* of tables, 16 KiB each */

/* A disk with a cluster of data for each of its tables, and many small ones beside it. */
static void write_images(void)
{
	struct qcow2_image q;
	uint8_t *bytes = malloc(65536);

	assert_non_null(bytes);
	pattern(bytes, 1, 0, 65536);
	qcow2_begin(&q, 16, TABLES * 512 * MIB);
	for (uint64_t n = 0; n < TABLES; n++)
		qcow2_data(&q, n * 512 * MIB, bytes);
	free(bytes);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	for (unsigned n = 0; n < OTHERS; n++) {
		char name[16];

		snprintf(name, sizeof(name), "y%u.raw", n);
		store_text(name, "a disk");
	}
}

static struct choices choices;

static struct pool *new_pool(void)
{
	assert_int_equal(choices_parse(&choices, "vmdk", NULL, NULL, NULL), 0);
	return pool_new(&store.context, &choices);
}

/* Opens the image and its view; how many pages of tables did that read? */
static uint64_t open_and_count(struct pool *pool, const char *path)
{
	struct cache_stats before, after;
	struct why why = { "" };
	const struct view *view;
	struct pooled *p;

	cache_get_stats(store.context.cache, &before);
	assert_int_equal(pool_get(pool, path, &p, &why), 0);
	assert_int_equal(pooled_view(p, 0, &view, &why), 0);
	assert_true(view->size > 0);
	if (path[0] == 'x')
		assert_int_equal(occupancy_count(view->occupancy), TABLES);
	cache_get_stats(store.context.cache, &after);
	pool_put(pool, p);
	return after.misses - before.misses;
}

static void open_others(struct pool *pool)
{
	for (unsigned n = 0; n < OTHERS; n++) {
		char name[16];

		snprintf(name, sizeof(name), "y%u.raw", n);
		open_and_count(pool, name);
	}
}

static void test_outlives_its_image(void **state)
{
	struct pool *pool;

	(void)state;
	write_images();
	usleep(3100000); /* what is learned from now on stays true */
	pool = new_pool();
	assert_non_null(pool);
	assert_true(open_and_count(pool, "x.qcow2") >= PAGES);
	assert_int_equal(open_and_count(pool, "x.qcow2"), 0);
	for (int i = 0; i < 3; i++) {
		open_others(pool);
		assert_true(open_and_count(pool, "x.qcow2") < 4);
	}

	/* What was learned before a change is of no use, what is learned right after it neither. */
	open_others(pool);
	store_poke("x.qcow2", 1000, "\0", 1);
	for (int i = 0; i < 2; i++) {
		open_others(pool);
		assert_true(open_and_count(pool, "x.qcow2") >= PAGES);
	}
	pool_free(pool);
	assert_int_equal(occupancy_total_memory(), 0);
}

/* A disk whose map takes 20 MiB: one cluster in each 512 MiB of 10 TiB, by one table for all. */
static void write_scattered(const char *name)
{
	const uint64_t cluster = 2 * MIB, entries = cluster / 8;
	struct qcow2_image q;
	uint64_t table;

	qcow2_begin(&q, 21, 10 * TIB);
	table = qcow2_append(&q, cluster);
	for (uint64_t i = 0; i < entries; i += 256)
		put_be64(q.file + table + i * 8, table + cluster);
	for (uint64_t i = 0; i < q.l1_entries; i++)
		put_be64(q.file + q.l1 + i * 8, table);
	qcow2_append(&q, (q.l1_entries + 2) * cluster);
	qcow2_write(&q, name);
	qcow2_end(&q);
}

/* It goes where memory is wanted, that of the image that was used longest ago first. */
static void test_memory(void **state)
{
	struct pool *pool;

	(void)state;
	write_images();
	write_scattered("a.qcow2");
	write_scattered("b.qcow2");
	usleep(3100000);
	pool = new_pool();
	assert_non_null(pool);
	open_and_count(pool, "a.qcow2");
	open_others(pool);
	assert_true(occupancy_total_memory() > 20 * MIB);
	open_and_count(pool, "b.qcow2");
	assert_true(occupancy_total_memory() > 20 * MIB);
	assert_true(occupancy_total_memory() <= OCCUPANCY_TOTAL_MEMORY / 2);
	open_others(pool);
	/* The second one is still known. */
	assert_true(open_and_count(pool, "b.qcow2") < 4);
	pool_free(pool);
	assert_int_equal(occupancy_total_memory(), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_outlives_its_image),
		store_test(test_memory),
	};

	return run_unit_tests(tests);
}
