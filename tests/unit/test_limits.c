/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an image may cost whoever looks at it. Entries that use one table again and again make
 * disks of any size from a few sectors; nothing may take long over them, or much memory.
 */
#include "qcow2_image.h"

#include <pthread.h>
#include <time.h>

#include "fs/catalog/catalog_private.h"
#include "imgfs/occupancy.h"

/* S3 of the policy, in seconds of a processor; a sanitizer takes a few times as long. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LONGEST 40.0
#else
#define LONGEST 10.0
#endif

static double cpu_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/*
 * All of `tables` L1 entries name the one L2 table, in which the clusters of `pattern` are
 * allocated: bit n % 64 for cluster n.
 */
static struct image *open_aliased(uint32_t bits, uint64_t tables, uint64_t pattern)
{
	uint64_t span = (1ull << bits) * (1ull << bits) / 8;
	struct qcow2_image q;
	uint64_t data;

	qcow2_begin(&q, bits, tables * span);
	data = qcow2_append_cluster(&q, q.cluster);
	for (uint64_t n = 0; n < q.cluster / 8; n++) {
		if (pattern >> n % 64 & 1)
			qcow2_set(&q, n * q.cluster, data | QCOW2_COPIED);
		else
			qcow2_set(&q, n * q.cluster, 0);
	}
	for (uint64_t n = 1; n < tables; n++)
		memcpy(q.file + q.l1 + 8 * n, q.file + q.l1, 8);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	/* As many tables as the file has room for is what the parser asks for. */
	if (!store_truncate("x.qcow2", 1ull << 43))
		return NULL;
	return open_image("x.qcow2");
}

static void assert_bounded(uint32_t bits, uint64_t tables, uint64_t pattern, const char *reason)
{
	struct image *image = open_aliased(bits, tables, pattern);
	const struct occupancy *o;
	struct why why = { "" };
	double start = cpu_seconds();
	struct learned *learned;

	if (!image)
		SKIP_REST("no file of 8 TiB here");
	assert_int_equal(image_occupancy(image, &o, &why), -EFBIG);
	assert_non_null(strstr(why.text, reason));
	assert_true(cpu_seconds() - start < LONGEST);

	/* It is not tried again. */
	start = cpu_seconds();
	for (int i = 0; i < 1000; i++)
		assert_int_equal(image_occupancy(image, &o, &why), -EFBIG);
	assert_non_null(strstr(why.text, reason));
	assert_true(cpu_seconds() - start < 1);

	/* Nor when it is opened again. */
	learned = image_forget(image);
	image_unref(image);
	image = open_image("x.qcow2");
	image_remember(image, learned);
	start = cpu_seconds();
	assert_int_equal(image_occupancy(image, &o, &why), -EFBIG);
	assert_non_null(strstr(why.text, reason));
	assert_true(cpu_seconds() - start < 0.1);

	image_unref(image);
}

static void test_nothing_but_zeros(void **state)
{
	(void)state;
	assert_bounded(16, 1 << 19, 0, "too long");
}

static void test_every_second_cluster(void **state)
{
	(void)state;
	assert_bounded(12, 1 << 19, 0x5555555555555555, "too long");
}

static void test_scattered(void **state)
{
	(void)state;
	assert_bounded(21, 64, 1, "too scattered");
}

/* A seek gives up as soon, can be taken up where it ended, and comes to the end. */
static void test_seek_goes_on(void **state)
{
	struct image *image = open_aliased(16, 1 << 16, 0);
	uint64_t at = 0, found;
	double start = cpu_seconds();
	struct view *view;
	int r, rounds = 0;

	(void)state;
	if (!image)
		SKIP_REST("no file of 8 TiB here");
	view = open_view(image, "raw");
	while ((r = view_seek_data(view, at, &found)) == 0) {
		assert_true(found > at && ++rounds < 1000);
		assert_true(cpu_seconds() - start < LONGEST);
		at = found;
		start = cpu_seconds();
	}
	assert_int_equal(r, -ENXIO);
	assert_true(rounds >= 1);
	view_close(view);
	image_unref(image);
}

/* An honest disk of 16 TiB, all of it data, is within the limit. */
static void test_an_honest_disk(void **state)
{
	struct image *image = open_aliased(16, 1 << 15, ~0ull);
	const struct occupancy *o;
	struct why why = { "" };

	(void)state;
	if (!image)
		SKIP_REST("no file of 8 TiB here");
	assert_int_equal(image_occupancy(image, &o, &why), 0);
	assert_int_equal(occupancy_count(o), 16 * TIB / OCCUPANCY_UNIT);
	image_unref(image);
}

/* One unit in each of `pages` pages: 1 KiB of memory for each. */
static int scatter(uint64_t pages, struct occupancy **out)
{
	struct occupancy *o = occupancy_new(~0ull >> 1);
	int r = 0;

	assert_non_null(o);
	for (uint64_t n = 0; r == 0 && n < pages; n++) {
		uint64_t at = n * OCCUPANCY_PAGE_UNITS * OCCUPANCY_UNIT;

		r = occupancy_add(o, at, at + 1);
	}
	*out = o;
	return r;
}

static void test_memory_of_all_maps(void **state)
{
	struct occupancy *maps[4];

	(void)state;
	assert_int_equal(occupancy_total_memory(), 0);
	assert_int_equal(scatter(30000, &maps[0]), 0);
	assert_true(occupancy_total_memory() > 30000 * 1024);
	assert_int_equal(scatter(30000, &maps[1]), 0);
	assert_int_equal(scatter(30000, &maps[2]), -ENOMEM);
	assert_true(occupancy_total_memory() <= OCCUPANCY_TOTAL_MEMORY);
	occupancy_free(maps[2]);
	occupancy_free(maps[0]);
	assert_int_equal(scatter(30000, &maps[3]), 0);
	occupancy_free(maps[1]);
	occupancy_free(maps[3]);
	assert_int_equal(occupancy_total_memory(), 0);
}

/* A compressed VMDK of two grains of 4 MiB. */
static void write_large_grains(const char *name)
{
	enum { GRAIN = 4 << 20, TEXT = 512, TABLE = TEXT + 10 * 512, FIRST = TABLE + 512 * 4 };
	static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=12345678\n"
				   "parentCID=ffffffff\ncreateType=\"streamOptimized\"\n"
				   "RW 16384 SPARSE \"x.vmdk\"\n";
	uint8_t head[512] = "KDMV", record[32768], entry[4], *grain = malloc(GRAIN);
	uint64_t at = FIRST;

	assert_non_null(grain);
	store_poke(name, TEXT, text, sizeof(text) - 1);
	for (uint64_t n = 0; n < 2; n++) {
		uLongf packed = sizeof(record) - 12;

		memset(grain, 'a' + (int)n, GRAIN);
		assert_int_equal(compress(record + 12, &packed, grain, GRAIN), Z_OK);
		put_le64(record, n * GRAIN / 512);
		put_le32(record + 8, (uint32_t)packed);
		store_poke(name, at, record, 12 + packed);
		put_le32(entry, (uint32_t)(at / 512));
		store_poke(name, TABLE + 4 * n, entry, 4);
		at = round_up(at + 12 + packed, 512);
	}
	free(grain);
	put_le32(entry, TABLE / 512);
	store_poke(name, at, entry, 4);
	put_le32(head + 4, 3);
	put_le32(head + 8, 0x30001);
	put_le64(head + 12, 2 * GRAIN / 512);
	put_le64(head + 20, GRAIN / 512);
	put_le64(head + 28, 1);
	put_le64(head + 36, 10);
	put_le32(head + 44, 512);
	put_le64(head + 56, at / 512);
	put_le64(head + 64, 11);
	memcpy(head + 73, "\n \r\n", 4);
	put_le16(head + 77, 1);
	store_poke(name, 0, head, sizeof(head));
	assert_true(store_truncate(name, round_up(at + 512, 512)));
}

static void *read_second(void *argument)
{
	const struct view *view = argument;
	uint8_t byte = 0;
	uint64_t done;

	if (view_read(view, 5 << 20, 1, &byte, &done) != 0)
		return NULL;
	return byte == 'b' ? argument : NULL;
}

/* Who holds one keeps others from getting another, and from nothing else. */
static void test_turns(void **state)
{
	struct timespec soon;
	struct image *image;
	struct view *view;
	struct plan plan;
	pthread_t thread;
	uint8_t byte;
	void *result;

	(void)state;
	write_large_grains("x.vmdk");
	image = open_image("x.vmdk");
	view = open_view(image, "raw");
	assert_int_equal(view_plan(view, 0, 1, &plan), 0);
	assert_int_equal(plan_read(&plan, &byte), 0);
	assert_int_equal(byte, 'a');
	assert_int_equal(pthread_create(&thread, NULL, read_second, view), 0);
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_sec += 1;
	assert_int_equal(pthread_timedjoin_np(thread, &result, &soon), ETIMEDOUT);
	plan_release(&plan);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, view);
	view_close(view);
	image_unref(image);
}

static int fill_bytes(void *buffer, size_t length, void *argument)
{
	(void)argument;
	memset(buffer, 1, length);
	return 0;
}

/* Entries of next to no bytes count too. */
static void test_entries_of_the_cache(void **state)
{
	struct cache *cache = cache_new(1 << 20);
	struct cache_stats stats;

	(void)state;
	assert_non_null(cache);
	for (uint64_t n = 0; n < 100000; n++) {
		struct cache_key key = { .serial = 1, .offset = n };
		struct cache_entry *entry;

		assert_int_equal(cache_get(cache, &key, 8, fill_bytes, NULL, &entry), 0);
		cache_put(cache, entry);
	}
	cache_get_stats(cache, &stats);
	assert_true(stats.bytes > 8000 && stats.bytes <= 2048 * 8);
	cache_free(cache);
}

/* The view that was looked up longest ago goes, directories never. */
static void test_names_of_the_kernel(void **state)
{
	struct nodes *nodes = nodes_new();
	struct catalog_parts parts = { .images = &store.context };
	struct node view = { .item = item_new(&parts, "", "a.raw") };
	struct node directory = { .id = 7, .path = (char *)"dir" };
	struct node found;

	(void)state;
	assert_true(nodes && view.item);
	assert_int_equal(nodes_enter(nodes, &directory), 0);
	for (view.id = 100; view.id < 100 + NODES_MAX_VIEWS; view.id++)
		assert_int_equal(nodes_enter(nodes, &view), 0);
	view.id = 100; /* once more */
	assert_int_equal(nodes_enter(nodes, &view), 0);
	assert_int_equal(nodes_get(nodes, 101, &found), 0);
	node_release(&found);
	view.id = 50;
	assert_int_equal(nodes_enter(nodes, &view), 0);
	assert_int_equal(nodes_get(nodes, 101, &found), -ESTALE);
	for (uint64_t id = 100; id <= 102; id += 2) {
		assert_int_equal(nodes_get(nodes, id, &found), 0);
		node_release(&found);
	}
	assert_int_equal(nodes_get(nodes, 7, &found), 0);
	node_release(&found);
	/* What is told of it later does no harm, and it can come back. */
	nodes_forget(nodes, 101, 1);
	view.id = 101;
	assert_int_equal(nodes_enter(nodes, &view), 0);
	assert_int_equal(nodes_get(nodes, 101, &found), 0);
	node_release(&found);
	nodes_forget(nodes, 101, 1);
	assert_int_equal(nodes_get(nodes, 101, &found), -ESTALE);
	nodes_free(nodes);
	item_unref(view.item);
}

static void test_a_huge_directory(void **state)
{
	struct catalog_parts parts = { .images = &store.context };
	struct folder *folder;
	char name[32];

	(void)state;
	for (unsigned n = 0; n < FOLDER_MAX_FILES; n++) {
		snprintf(name, sizeof(name), "%u.raw", n);
		assert_int_equal(mknodat(store.datastore.root, name, S_IFREG | 0600, 0), 0);
	}
	assert_int_equal(folder_read(&parts, "", NULL, &folder), 0);
	assert_int_equal(folder->item_count, FOLDER_MAX_FILES);
	folder_unref(folder);
	assert_int_equal(mknodat(store.datastore.root, "x.raw", S_IFREG | 0600, 0), 0);
	assert_int_equal(folder_read(&parts, "", NULL, &folder), -EFBIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_nothing_but_zeros),
		store_test(test_every_second_cluster),
		store_test(test_scattered),
		store_test(test_seek_goes_on),
		store_test(test_an_honest_disk),
		cmocka_unit_test(test_memory_of_all_maps),
		store_test(test_turns),
		cmocka_unit_test(test_entries_of_the_cache),
		cmocka_unit_test(test_names_of_the_kernel),
		store_test(test_a_huge_directory),
	};

	return run_unit_tests(tests);
}
