/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalog while calls fail: it shows what it should or says that it cannot, and nothing of
 * what went wrong is remembered. What is read through it is held against samples.
 */
#include "../unit/qcow2_image.h"
#include "imgfs/catalog.h"
#include "inject.h"
#include "samples.h"

#define MAX_NAMES   48
#define CACHE_BYTES (256u << 10)

/* A name that the catalog shows, as all goes well. */
struct expected {
	uint64_t directory;
	char name[64];
	bool is_directory;
	struct stat st;
	struct samples *samples; /* of a view */
};

static struct {
	struct expected v[MAX_NAMES];
	size_t count;
} expected;

/* ---- the datastore ---- */

static void write_overlay(void)
{
	static uint8_t bytes[65536];
	struct qcow2_image q;

	pattern(bytes, 2, 0, sizeof(bytes));
	qcow2_begin(&q, 16, MIB + 512);
	qcow2_backing(&q, "over-base.raw", "raw");
	qcow2_data(&q, 2 * sizeof(bytes), bytes);
	memset(bytes, 7, sizeof(bytes) / 2);
	qcow2_packed(&q, 5 * sizeof(bytes), bytes);
	qcow2_write(&q, "over.qcow2");
	qcow2_end(&q);
	store_poke("over-base.raw", 3 * sizeof(bytes), bytes, sizeof(bytes));
	assert_true(store_truncate("over-base.raw", MIB));
}

static void write_flat(void)
{
	store_text("flat.vmdk",
		"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
		"createType=\"twoGbMaxExtentFlat\"\n"
		"RW 40 FLAT \"flat-f001.vmdk\" 0\nRW 8 ZERO\n"
		"RW 40 FLAT \"flat-f002.vmdk\" 0\n");
	store_poke("flat-f001.vmdk", 100, "first", 5);
	store_poke("flat-f002.vmdk", 100, "second", 6);
	assert_true(store_truncate("flat-f001.vmdk", 40 * 512));
	assert_true(store_truncate("flat-f002.vmdk", 40 * 512));
}

static int setup(void **state)
{
	struct qcow2_image q;

	store_setup(state);
	store.datastore.follow_symlinks = true;
	write_overlay();
	write_flat();
	/* Names that keep their suffix: for one another, and for a directory. */
	store_poke("two.raw", 4096, "two", 3);
	qcow2_begin(&q, 12, MIB);
	qcow2_write(&q, "two.qcow2");
	qcow2_end(&q);
	store_mkdir("near.vmdk");
	store_poke("near.img", 4096, "near", 4);
	store_mkdir("sub");
	store_poke("sub/in.raw", 70000, "in", 2);
	assert_int_equal(symlink("two.raw", store_path("link.raw")), 0);
	assert_int_equal(symlink("sub", store_path("away")), 0);
	inject_pass_time(5); /* nothing is so new any more that it is looked at each time */
	return 0;
}

/* The same where content is looked at too. */
static int setup_zeroes(void **state)
{
	int r = setup(state);

	store.context.detect_zeroes = true;
	return r;
}

static int teardown(void **state)
{
	for (size_t i = 0; i < expected.count; i++)
		samples_free(expected.v[i].samples);
	expected.count = 0;
	return store_teardown(state);
}

static struct catalog *begin(void)
{
	static const struct catalog_options options = { .fmask = -1, .dmask = -1 };
	struct catalog *catalog;

	cache_free(store.context.cache);
	store.context.cache = cache_new(CACHE_BYTES);
	assert_non_null(store.context.cache);
	assert_int_equal(catalog_new(&store.context, &options, &catalog), 0);
	return catalog;
}

static void end(struct catalog *catalog)
{
	catalog_free(catalog);
	cache_free(store.context.cache);
	store.context.cache = NULL;
}

/* ---- as it should be ---- */

static void expect_name(struct catalog *catalog, uint64_t directory, struct listing_entry entry)
{
	struct expected *e = &expected.v[expected.count++];
	struct handle *handle;

	assert_true(expected.count < MAX_NAMES && strlen(entry.name) < sizeof(e->name));
	*e = (struct expected) { .directory = directory, .is_directory = entry.directory };
	strcpy(e->name, entry.name);
	assert_int_equal(catalog_lookup(catalog, directory, e->name, &e->st), 0);
	assert_int_equal(e->st.st_ino, entry.id);
	if (entry.directory)
		return;
	assert_int_equal(catalog_open(catalog, entry.id, &handle), 0);
	e->samples = samples_take(handle_view(handle));
	assert_non_null(e->samples);
	catalog_close(catalog, handle);
}

static void expect_directory(struct catalog *catalog, uint64_t directory)
{
	struct listing *listing;
	struct listing_reader reader;
	struct listing_entry entry;
	int r;

	assert_int_equal(catalog_list(catalog, directory, &listing), 0);
	listing_read_begin(&reader, listing, 0, false);
	for (; (r = listing_read_next(&reader, &entry)) == 1; reader.position++)
		expect_name(catalog, directory, entry);
	assert_int_equal(r, 0);
	listing_read_end(&reader);
	listing_free(catalog, listing);
}

static void expect_all(void)
{
	struct catalog *catalog = begin();

	expect_directory(catalog, CATALOG_ROOT);
	for (size_t i = 0; i < expected.count; i++) {
		if (expected.v[i].is_directory)
			expect_directory(catalog, expected.v[i].st.st_ino);
	}
	end(catalog);
	/* Three views of over, over-base, flat, two.raw, two.qcow2, near, link, sub/in, away/in;
	 * three directories. */
	assert_int_equal(expected.count, 9 * 3 + 3);
}

/* ---- as it is ---- */

/* What may be found while calls fail. */
struct walk {
	struct catalog *catalog;
	struct tolerance tolerance;
	bool may_refuse; /* an image that cannot be opened is not shown for a while */
};

static bool is_allowed(struct walk *w, int r, const char *what, const struct expected *e)
{
	/* -ESTALE: its number stands for nothing that is known. */
	if ((r == -ENOENT || r == -ESTALE) && w->may_refuse)
		r = w->tolerance.error;
	if (tolerated(&w->tolerance, r, what, e ? e->st.st_ino : 0))
		return true;
	print_message("# %s: %s\n", e ? e->name : "?", what);
	return false;
}

static void walk_view(struct walk *w, const struct expected *e)
{
	struct handle *handle;
	int r = catalog_open(w->catalog, e->st.st_ino, &handle);

	assert_true(is_allowed(w, r, "open", e));
	if (r < 0)
		return;
	assert_int_equal(handle_stat(handle)->st_size, e->st.st_size);
	if (!samples_hold(
		    e->samples, handle_view(handle), 1 + e->samples->count / 3, &w->tolerance))
		fail_msg("%s reads wrong", e->name);
	catalog_close(w->catalog, handle);
}

/* All but the time when a directory was last read. */
static void assert_same_stat(struct stat *st, const struct stat *as)
{
	st->st_atim = as->st_atim;
	assert_memory_equal(st, as, sizeof(*st));
}

static void walk_name(struct walk *w, const struct expected *e)
{
	struct stat st;
	int r = catalog_lookup(w->catalog, e->directory, e->name, &st);

	/* Of a directory that could not be looked up the kernel has no number. */
	if (r == -ESTALE && e->directory != CATALOG_ROOT && w->tolerance.errors > 0)
		return;
	assert_true(is_allowed(w, r, "lookup", e));
	if (r < 0)
		return;
	assert_same_stat(&st, &e->st);
	r = catalog_getattr(w->catalog, st.st_ino, &st);
	assert_true(is_allowed(w, r, "getattr", e));
	if (r == 0)
		assert_same_stat(&st, &e->st);
	if (r == 0 && !e->is_directory)
		walk_view(w, e);
}

static const struct expected *find_expected(uint64_t directory, const char *name)
{
	for (size_t i = 0; i < expected.count; i++) {
		if (expected.v[i].directory == directory && strcmp(expected.v[i].name, name) == 0)
			return &expected.v[i];
	}
	fail_msg("%s is shown", name);
	return NULL;
}

static size_t names_in(uint64_t directory)
{
	size_t count = 0;

	for (size_t i = 0; i < expected.count; i++)
		count += expected.v[i].directory == directory;
	return count;
}

/* The names of the listing, and their attributes as readdirplus asks for them; how many. */
static size_t walk_listing(struct walk *w, uint64_t directory, const struct listing *listing)
{
	struct listing_reader reader;
	struct listing_entry entry;
	struct stat st;
	size_t count = 0;
	int r;

	listing_read_begin(&reader, listing, 0, true);
	for (; (r = listing_read_next(&reader, &entry)) == 1; reader.position++, count++) {
		const struct expected *e = find_expected(directory, entry.name);

		assert_int_equal(entry.id, e->st.st_ino);
		assert_int_equal(entry.directory, e->is_directory);
		r = listing_read_attributes(&reader, &st);
		assert_true(is_allowed(w, r, "attributes", e));
		if (r < 0)
			continue;
		assert_int_equal(st.st_size, e->st.st_size);
		catalog_forget(w->catalog, st.st_ino, 1);
	}
	assert_true(is_allowed(w, r, "read a listing", NULL));
	listing_read_end(&reader);
	return r < 0 ? names_in(directory) : count;
}

static void walk_directory(struct walk *w, uint64_t directory)
{
	struct listing *listing;
	size_t count;
	int r = catalog_list(w->catalog, directory, &listing);

	if (r == -ESTALE && directory != CATALOG_ROOT && w->tolerance.errors > 0)
		return;
	assert_true(is_allowed(w, r, "list", NULL));
	if (r < 0)
		return;
	count = walk_listing(w, directory, listing);
	listing_free(w->catalog, listing);
	if (!w->may_refuse)
		assert_int_equal(count, names_in(directory));
}

static void walk(struct walk *w)
{
	walk_directory(w, CATALOG_ROOT);

	for (size_t i = 0; i < expected.count; i++) {
		walk_name(w, &expected.v[i]);
		if (expected.v[i].is_directory)
			walk_directory(w, expected.v[i].st.st_ino);
	}
}

static void walk_well(struct catalog *catalog)
{
	struct walk w = { .catalog = catalog };

	walk(&w);
}

/* While something fails, and after; returns whether it failed at all. */
static bool endure(enum inject_kind kind, uint64_t every, uint64_t limit, int error, bool warm)
{
	int64_t before;
	struct walk w = { .tolerance = { .error = -error }, .may_refuse = kind != INJECT_ALLOC };
	bool failed;

	end(begin());
	before = inject_allocated();
	w.catalog = begin();
	if (warm)
		walk_well(w.catalog);
	inject(kind, every, limit, error);
	walk(&w);
	failed = inject_faults(kind) > 0;
	inject_nothing();
	inject_pass_time(3); /* refused images are tried again */
	walk_well(w.catalog);
	end(w.catalog);
	if (inject_allocated() != before)
		fail_msg("%" PRId64 " allocations were left", inject_allocated() - before);
	return failed;
}

static void test_each_allocation(void **state)
{
	uint64_t n;

	(void)state;
	expect_all();
	for (n = 1; endure(INJECT_ALLOC, n, 1, ENOMEM, false); n++)
		;
	assert_true(n > 300);
	print_message("# %" PRIu64 " allocations failed, one at a time\n", n - 1);
}

static void test_many_allocations(void **state)
{
	(void)state;
	expect_all();
	for (uint64_t every = 1; every < 40; every++) {
		assert_true(endure(INJECT_ALLOC, every, 0, ENOMEM, false));
		assert_true(endure(INJECT_ALLOC, every, 0, ENOMEM, true));
	}
}

static void test_calls(void **state)
{
	static const enum inject_kind kinds[] = { INJECT_READ, INJECT_STAT, INJECT_OPEN,
		INJECT_SEEK, INJECT_LIST };

	(void)state;
	expect_all();
	for (size_t i = 0; i < COUNT(kinds); i++) {
		for (uint64_t every = 1; every < 12; every++) {
			assert_true(endure(kinds[i], every, 0, EIO, false));
			endure(kinds[i], every, 0, EIO, true);
		}
	}
}

static int fill_zero(void *buffer, size_t length, void *argument)
{
	(void)argument;
	memset(buffer, 0, length);
	return 0;
}

/* Without memory for one more entry the cache gives up what it holds, and goes on. */
static void test_smaller_cache(void **state)
{
	struct cache_key kept = { .serial = 1, .offset = 1 }, wanted = { .serial = 1 };
	struct cache_entry *entry;
	struct cache_stats stats;
	unsigned helped = 0;

	(void)state;
	for (uint64_t n = 1; n < 20; n++) {
		struct cache *cache = cache_new(CACHE_BYTES);
		bool failed;
		int r;

		assert_int_equal(cache_get(cache, &kept, 100, fill_zero, NULL, &entry), 0);
		cache_put(cache, entry);
		inject(INJECT_ALLOC, n, 1, ENOMEM);
		r = cache_get(cache, &wanted, 1000, fill_zero, NULL, &entry);
		failed = inject_faults(INJECT_ALLOC) > 0;
		inject_nothing();
		cache_get_stats(cache, &stats);
		assert_true(r == 0 || (r == -ENOMEM && failed));
		if (r == 0)
			assert_true(is_zero(cache_bytes(entry), 1000));
		if (r == 0 && failed) {
			assert_int_equal(stats.bytes, 1000);
			helped++;
		}
		if (r == 0)
			cache_put(cache, entry);
		cache_free(cache);
	}
	assert_int_equal(helped, 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_smaller_cache),
		cmocka_unit_test_setup_teardown(test_each_allocation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_allocations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_allocation, setup_zeroes, teardown),
		cmocka_unit_test_setup_teardown(test_many_allocations, setup_zeroes, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup_zeroes, teardown),
	};

	return run_unit_tests(tests);
}
