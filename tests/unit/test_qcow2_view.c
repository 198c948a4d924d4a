/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 view against a file that is laid out anew here, cluster by cluster and entry by
 * entry, from a list of occupied units; and against sizes that qemu-img measured.
 */
#include "sources.h"

#define CLUSTER 65536ull
#define ENTRIES 8192ull /* of an L2 table */
#define COPIED  (1ull << 63)

/* Counts of clusters, as one would count them by hand. */
struct counts {
	uint64_t l1_entries, l1, l2, data, blocks, table, total;
};

static struct counts count_clusters(uint64_t size, const uint64_t *units, size_t count)
{
	struct counts c = { .data = count };
	uint64_t last = UINT64_MAX, covered;

	for (size_t i = 0; i < count; i++) {
		c.l2 += units[i] / ENTRIES != last;
		last = units[i] / ENTRIES;
	}
	c.l1_entries = (size + CLUSTER * ENTRIES - 1) / (CLUSTER * ENTRIES);
	c.l1 = (c.l1_entries * 8 + CLUSTER - 1) / CLUSTER;
	/* As few refcount blocks as it takes to count every cluster, the blocks as well. */
	c.blocks = c.table = 1;
	for (;;) {
		c.total = 1 + c.table + c.blocks + c.l1 + c.l2 + c.data;
		covered = c.blocks * (CLUSTER / 2);
		if (c.table * CLUSTER < c.blocks * 8)
			c.table++;
		else if (covered < c.total)
			c.blocks++;
		else
			return c;
	}
}

/* The file that there should be, from malloc. */
static uint8_t *lay_out(
	uint64_t size, const uint64_t *units, size_t count, uint64_t *length, struct counts *counts)
{
	struct counts c = count_clusters(size, units, count);
	uint64_t blocks = (1 + c.table) * CLUSTER, l1 = blocks + c.blocks * CLUSTER;
	uint64_t l2 = l1 + c.l1 * CLUSTER, data = l2 + c.l2 * CLUSTER, table = l2 - CLUSTER;
	uint8_t *f = calloc(c.total, CLUSTER);

	assert_non_null(f);
	memcpy(f, "QFI\xfb\0\0\0\3", 8);
	put_be32(f + 20, 16);
	put_be64(f + 24, (size + 511) / 512 * 512);
	put_be32(f + 36, (uint32_t)c.l1_entries);
	put_be64(f + 40, l1);
	put_be64(f + 48, CLUSTER);
	put_be32(f + 56, (uint32_t)c.table);
	put_be32(f + 96, 4);
	put_be32(f + 100, 104);
	for (uint64_t i = 0; i < c.blocks; i++)
		put_be64(f + CLUSTER + i * 8, blocks + i * CLUSTER);
	for (uint64_t i = 0; i < c.total; i++)
		put_be16(f + blocks + i * 2, 1);
	for (size_t i = 0; i < count; i++) {
		uint64_t unit = units[i], at = data + i * CLUSTER;

		if (i == 0 || units[i - 1] / ENTRIES != unit / ENTRIES) {
			table += CLUSTER;
			put_be64(f + l1 + unit / ENTRIES * 8, COPIED | table);
		}
		put_be64(f + table + unit % ENTRIES * 8, COPIED | at);
		for (uint64_t b = 0; b < CLUSTER; b++)
			f[at + b] = source_byte(size, unit * CLUSTER + b);
	}
	*length = c.total * CLUSTER;
	*counts = c;
	return f;
}

static void check_layout(uint64_t size, const uint64_t *units, size_t count)
{
	struct image *image = source_of_units(size, units, count);
	struct view *view = open_view(image, "qcow2");
	struct counts c;
	uint64_t length, got_length, random = size;
	uint8_t *expected = lay_out(size, units, count, &length, &c);
	uint8_t *got = read_view(view, &got_length);

	assert_int_equal(got_length, length);
	assert_bytes(got, expected, length);
	check_table_fill(view, "refcount table", &random);
	check_table_fill(view, "refcount blocks", &random);
	check_table_runs(view, "refcount table");
	check_table_runs(view, "refcount blocks");
	if (c.l1 > 0) {
		check_table_fill(view, "L1", &random);
		check_table_runs(view, "L1");
	}
	if (c.l2 > 0)
		check_table_fill(view, "L2", &random);
	free(expected);
	free(got);
	view_close(view);
	image_unref(image);
}

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, units[8];
		size_t count;
	} cases[] = {
		{ 0, { 0 }, 0 },
		{ 1, { 0 }, 0 },
		{ 1, { 0 }, 1 },
		{ 511, { 0 }, 1 },
		{ 513, { 0 }, 1 },
		{ UNIT - 1, { 0 }, 1 },
		{ UNIT, { 0 }, 1 },
		{ UNIT + 1, { 0, 1 }, 2 },
		{ UNIT + 1, { 1 }, 1 },
		{ 10 * UNIT, { 0, 2, 3, 9 }, 4 },
		{ ENTRIES * UNIT - 1, { ENTRIES - 1 }, 1 },
		{ ENTRIES * UNIT, { 0, ENTRIES - 1 }, 2 },
		{ ENTRIES * UNIT + 1, { ENTRIES - 1, ENTRIES }, 2 },
		{ 5 * ENTRIES * UNIT, { ENTRIES, ENTRIES + 1, 3 * ENTRIES - 1, 4 * ENTRIES + 77 },
			4 },
		/* L1 of two clusters: 8192 entries of 512 MiB each, 4 TiB. */
		{ 4 * TIB, { 0, 4 * TIB / UNIT - 1 }, 2 },
		{ 4 * TIB + 1, { 511 * ENTRIES, 512 * ENTRIES + 5, 4 * TIB / UNIT }, 3 },
		{ 10 * TIB, { 3 * TIB / UNIT, 5 * TIB / UNIT, 9 * TIB / UNIT }, 3 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count);
}

static void test_random_layout(void **state)
{
	uint64_t units[60];

	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		uint64_t random = seed, unit = 0;
		size_t count = 0;

		while (count < COUNT(units)) {
			unit += random_below(&random, seed % 3 ? 4 : 3000);
			units[count++] = unit++;
		}
		check_layout(
			(unit + random_below(&random, 100)) * UNIT + random_below(&random, UNIT),
			units, count);
	}
}

/* ---- sizes ---- */

/* Fully allocated disks: what "qemu-img measure" says, and the counts behind it. */
static void test_full_sizes(void **state)
{
	static const struct {
		uint64_t size, l2, l1, blocks, table, file;
	} rows[] = {
		{ MIB, 1, 1, 1, 1, 1376256 },
		{ GIB, 2, 1, 1, 1, 1074135040 },
		{ 100 * GIB, 200, 1, 51, 1, 107390828544 },
		{ TIB, 2048, 1, 513, 1, 1099679662080 },
		{ 16 * TIB, 32768, 4, 8194, 2, 17594870988800 },
		{ 64 * TIB, 131072, 16, 32774, 5, 70379483430912 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		struct image *image = source_of_clusters(rows[i].size, 1);
		struct view *view = open_view(image, "qcow2");
		const struct region *blocks = find_region(view, "refcount blocks");
		const struct region *l1 = find_region(view, "L1");
		const struct region *l2 = find_region(view, "L2");
		const struct region *data = find_region(view, "data");

		assert_int_equal(view->size, rows[i].file);
		assert_int_equal(blocks->start, (1 + rows[i].table) * CLUSTER);
		assert_int_equal(l1->start - blocks->start, rows[i].blocks * CLUSTER);
		assert_int_equal(l2->start - l1->start, rows[i].l1 * CLUSTER);
		assert_int_equal(data->start - l2->start, rows[i].l2 * CLUSTER);
		assert_int_equal(data->end - data->start, rows[i].size);
		view_close(view);
		image_unref(image);
	}
}

static uint64_t entry_at(const struct view *view, uint64_t offset)
{
	uint8_t bytes[8];
	uint64_t done;

	assert_int_equal(view_read(view, offset, 8, bytes, &done), 0);
	assert_int_equal(done, 8);
	return get_be64(bytes);
}

/* Entries of a large full disk, at all borders and in between, by rule of three. */
static void test_full_entries(void **state)
{
	struct image *image = source_of_clusters(16 * TIB + 5, 1);
	struct view *view = open_view(image, "qcow2");
	uint64_t units = 16 * TIB / UNIT + 1, total = view->size / CLUSTER;
	uint64_t table = CLUSTER, blocks = find_region(view, "refcount blocks")->start;
	uint64_t l1 = find_region(view, "L1")->start, l2 = find_region(view, "L2")->start;
	uint64_t data = find_region(view, "data")->start, random = 1;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint64_t unit = i < 10   ? (uint64_t)i
				: i < 20 ? units - 1 - ((uint64_t)i - 10)
				: i < 30 ? ENTRIES * (uint64_t)i
				: i < 40 ? ENTRIES * (uint64_t)i - 1
					 : random_below(&random, units);
		uint64_t group = unit / ENTRIES;
		/* The number of the cluster that holds the entry, to look up its refcount. */
		uint64_t holder = (l2 + unit * 8) / CLUSTER;

		assert_int_equal(entry_at(view, l2 + unit * 8), COPIED | (data + unit * UNIT));
		assert_int_equal(entry_at(view, l1 + group * 8), COPIED | (l2 + group * CLUSTER));
		assert_int_equal(entry_at(view, blocks + holder / 4 * 8), 0x0001000100010001);
		assert_int_equal(entry_at(view, table + holder / (CLUSTER / 2) * 8),
			blocks + holder / (CLUSTER / 2) * CLUSTER);
	}
	/* Past the last entry of each there is nothing. */
	assert_int_equal(entry_at(view, l2 + units * 8), 0);
	assert_int_equal(entry_at(view, data - 8), 0);
	assert_int_equal(entry_at(view, l2 - 8), 0);
	assert_int_equal(entry_at(view, l1 + (units / ENTRIES + 1) * 8), 0);
	assert_int_equal(entry_at(view, l1 - 8), 0);
	assert_int_equal(entry_at(view, blocks - 8), 0);
	/* The last cluster is counted and the next is not. */
	for (uint64_t i = total - 8; i < total + 8; i++)
		assert_int_equal(entry_at(view, blocks + i * 2) >> 48, i < total);
	check_table_fill(view, "L2", &random);
	check_table_fill(view, "L1", &random);
	check_table_fill(view, "refcount blocks", &random);
	check_table_fill(view, "refcount table", &random);
	view_close(view);
	image_unref(image);
}

/* Refcount blocks and tables that count themselves: where one cluster more takes one more. */
static void test_refcount_borders(void **state)
{
	(void)state;
	/* The units that one, two, … blocks still hold, and one to each side. */
	for (uint64_t blocks = 1; blocks <= 4; blocks++) {
		uint64_t fits = blocks * 32768 - 2 - blocks - 1;

		fits -= (fits + ENTRIES - 1) / ENTRIES;
		for (uint64_t units = fits - 2; units <= fits + 3; units++) {
			struct image *image = source_of_clusters(units * UNIT, 1);
			struct view *view = open_view(image, "qcow2");
			uint64_t l2 = (units + ENTRIES - 1) / ENTRIES;
			uint64_t n = blocks, total = 2 + n + 1 + l2 + units;

			if (total > n * 32768)
				total = 2 + ++n + 1 + l2 + units;
			assert_int_equal(view->size, total * CLUSTER);
			assert_int_equal(find_region(view, "L1")->start, (2 + n) * CLUSTER);
			view_close(view);
			image_unref(image);
		}
	}
}

/* ---- limits ---- */

static void test_too_large(void **state)
{
	static const uint64_t most = 1ull << 51; /* an L1 table of 32 MiB */
	struct image *image = source_empty(most);
	struct view *view = open_view(image, "qcow2");
	struct why why = { "" };

	(void)state;
	assert_int_equal(get_be32(view->regions[0].bytes + 36), 4194304);
	view_close(view);
	image_unref(image);
	image = source_empty(most + 1);
	assert_int_equal(view_open(image, view_format("qcow2"), &view, &why), -EFBIG);
	assert_non_null(strstr(why.text, "too large"));
	image_unref(image);
}

/*
 * What is said to fit whatever the map is does fit: full, and with one cluster in every 512 MiB,
 * so that no page of the occupancy is empty or full.
 */
static void test_surely_fits(void **state)
{
	static const uint64_t sizes[] = { 0, 1, TIB, 15 * TIB, 17 * TIB };

	(void)state;
	for (const struct view_format *const *f = view_formats; *f; f++) {
		for (size_t i = 0; i < COUNT(sizes) * 2; i++) {
			uint64_t size = sizes[i / 2];
			struct why why = { "" };
			struct image *image;
			struct view *view;
			int r;

			if (!(*f)->surely_fits(size))
				continue;
			image = source_of_clusters(size, i % 2 ? 256 : 1);
			r = view_open(image, *f, &view, &why);
			if (r < 0)
				print_message("# %s of %" PRIu64 " bytes, %s: %s\n", (*f)->name,
					size, i % 2 ? "scattered" : "full", why.text);
			assert_int_equal(r, 0);
			view_close(view);
			image_unref(image);
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_layout),
		store_test(test_random_layout),
		store_test(test_full_sizes),
		store_test(test_full_entries),
		store_test(test_refcount_borders),
		store_test(test_too_large),
		store_test(test_surely_fits),
	};

	return run_unit_tests(tests);
}
