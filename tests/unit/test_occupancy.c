/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bitmap with rank and select against a slow model: an array with a byte per unit and sums
 * of it, and exact guest bytes counted one range after the other.
 */
#include "support.h"

#define UNIT ((uint64_t)OCCUPANCY_UNIT)
#define PAGE ((uint64_t)OCCUPANCY_PAGE_UNITS)

struct model {
	uint64_t size, units, bytes;
	uint8_t *set;   /* [units] */
	uint64_t *rank; /* [units + 1]: set units before */
	struct occupancy *o;
};

static void model_begin(struct model *m, uint64_t size)
{
	*m = (struct model) { .size = size, .units = size / UNIT + (size % UNIT != 0) };
	m->set = calloc(m->units + 1, 1);
	m->rank = calloc(m->units + 1, sizeof(*m->rank));
	m->o = occupancy_new(size);
	assert_true(m->set && m->rank && m->o);
}

static void model_add(struct model *m, uint64_t start, uint64_t end)
{
	assert_true(end <= m->size);
	assert_int_equal(occupancy_add(m->o, start, end), 0);
	if (start >= end)
		return;
	m->bytes += end - start;
	for (uint64_t u = start / UNIT; u * UNIT < end; u++)
		m->set[u] = 1;
}

static void model_finish(struct model *m)
{
	occupancy_finish(m->o);
	for (uint64_t u = 0; u < m->units; u++)
		m->rank[u + 1] = m->rank[u] + m->set[u];
}

static void model_end(struct model *m)
{
	occupancy_free(m->o);
	free(m->set);
	free(m->rank);
}

static uint64_t model_next(const struct model *m, uint64_t unit)
{
	while (unit < m->units && !m->set[unit])
		unit++;
	return unit < m->units ? unit : m->units;
}

static void check_unit(const struct model *m, uint64_t unit)
{
	uint64_t rank = m->rank[min_u64(unit, m->units)];

	assert_int_equal(occupancy_test(m->o, unit), unit < m->units && m->set[unit]);
	assert_int_equal(occupancy_rank(m->o, unit), rank);
	assert_int_equal(occupancy_next(m->o, unit), model_next(m, unit));
	if (unit < m->units && m->set[unit])
		assert_int_equal(occupancy_select(m->o, rank), unit);
}

static void check_any(const struct model *m, uint64_t first, uint64_t last)
{
	bool any = first < last && model_next(m, first) < min_u64(last, m->units);

	assert_int_equal(occupancy_any(m->o, first, last), any);
}

/* Pages are in order, not empty, full ones have no bits, and find() finds the next one. */
static void check_pages(const struct model *m)
{
	uint64_t pages = m->units / PAGE + (m->units % PAGE != 0);
	size_t index = 0;

	for (uint64_t n = 0; n < pages; n++) {
		uint64_t stop = min_u64((n + 1) * PAGE, m->units);
		uint64_t count = m->rank[stop] - m->rank[n * PAGE];
		const struct occupancy_page *page;

		assert_int_equal(occupancy_page_find(m->o, n), index);
		if (count == 0)
			continue;
		assert_true(index < occupancy_page_count(m->o));
		page = occupancy_page(m->o, index++);
		assert_int_equal(page->number, n);
		assert_int_equal(page->rank, m->rank[n * PAGE]);
		assert_int_equal(page->bits == NULL, count == stop - n * PAGE);
		for (uint64_t u = n * PAGE; page->bits && u < (n + 1) * PAGE; u++)
			assert_int_equal(
				page->bits[u % PAGE / 64] >> u % 64 & 1, u < m->units && m->set[u]);
	}
	assert_int_equal(index, occupancy_page_count(m->o));
	assert_int_equal(occupancy_page_find(m->o, pages), index);
	assert_int_equal(occupancy_page_find(m->o, UINT64_MAX), index);
}

/* Everything at every border of the map, of words and of pages, and a unit to both sides. */
static void check(struct model *m, uint64_t *random)
{
	model_finish(m);
	assert_int_equal(occupancy_units(m->o), m->units);
	assert_int_equal(occupancy_count(m->o), m->rank[m->units]);
	assert_int_equal(occupancy_bytes(m->o), m->bytes);
	check_pages(m);
	for (uint64_t u = 0; u <= m->units; u++) {
		bool edge =
			u == 0 || u >= m->units - 1 || m->set[u] != m->set[u - 1] || u % 64 == 0;

		if (!edge)
			continue;
		check_unit(m, u);
		check_unit(m, u + 1);
		if (u > 0)
			check_unit(m, u - 1);
	}
	check_unit(m, UINT64_MAX);
	for (uint64_t k = 0; k < m->rank[m->units]; k += 1 + k / 64) {
		uint64_t u = occupancy_select(m->o, k);

		assert_true(u < m->units && m->set[u] && m->rank[u] == k);
	}
	for (int i = 0; i < 500; i++) {
		uint64_t first = random_below(random, m->units + 3);

		check_any(m, first, first);
		check_any(m, first, first + 1);
		check_any(m, first, first + random_below(random, 100));
		check_any(m, first, random_below(random, m->units + 3));
		check_any(m, first, UINT64_MAX);
	}
}

static void test_random(void **state)
{
	static const uint64_t sizes[] = { 0, 1, UNIT - 1, UNIT, UNIT + 1, 64 * UNIT, 65 * UNIT - 1,
		PAGE * UNIT - 1, PAGE * UNIT, PAGE * UNIT + 1, 3 * PAGE * UNIT + 777 * UNIT + 5 };
	/* The longest run of data and of nothing, in bytes: scattered, mixed, long. */
	static const uint64_t runs[][2] = { { UNIT / 2, UNIT / 2 }, { 1, 40 * UNIT },
		{ 40 * UNIT, 1 }, { 300 * UNIT, 300 * UNIT },
		{ 2 * PAGE * UNIT, 2 * PAGE * UNIT } };
	uint64_t random = 1;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes) * COUNT(runs); i++) {
		const uint64_t *run = runs[i % COUNT(runs)];
		struct model m;

		model_begin(&m, sizes[i / COUNT(runs)]);
		for (uint64_t at = 0; at < m.size;) {
			uint64_t end = min_u64(m.size, at + 1 + random_below(&random, run[0]));

			model_add(&m, at, end);
			at = end + random_below(&random, run[1] + 1);
		}
		check(&m, &random);
		model_end(&m);
	}
}

static void test_empty_and_full(void **state)
{
	static const uint64_t sizes[] = { 0, 1, UNIT, UNIT + 1, 63 * UNIT, 64 * UNIT, 65 * UNIT,
		(PAGE - 1) * UNIT, PAGE * UNIT - 1, PAGE * UNIT, PAGE * UNIT + 1, 2 * PAGE * UNIT,
		2 * PAGE * UNIT + 63 * UNIT };
	uint64_t random = 2;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct model m;

		model_begin(&m, sizes[i]);
		check(&m, &random);
		assert_int_equal(occupancy_page_count(m.o), 0);
		model_end(&m);
		model_begin(&m, sizes[i]);
		model_add(&m, 0, sizes[i]);
		check(&m, &random);
		model_end(&m);
		/* The same, unit by unit: pages fill up and lose their bits. */
		model_begin(&m, sizes[i]);
		for (uint64_t at = 0; at < sizes[i]; at += UNIT)
			model_add(&m, at, min_u64(at + UNIT, sizes[i]));
		check(&m, &random);
		model_end(&m);
	}
}

/* Single bits, single gaps and borders of pages, where an off-by-one would show. */
static void test_structured(void **state)
{
	static const uint64_t edges[] = { 0, 1, 62, 63, 64, 65, 127, 128, PAGE - 65, PAGE - 64,
		PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 63 };
	uint64_t size = (2 * PAGE + 64) * UNIT;
	uint64_t random = 3;

	(void)state;
	for (size_t i = 0; i < COUNT(edges); i++) {
		struct model m;

		model_begin(&m, size);
		model_add(&m, edges[i] * UNIT, edges[i] * UNIT + 1);
		check(&m, &random);
		model_end(&m);
		model_begin(&m, size);
		model_add(&m, 0, edges[i] * UNIT);
		model_add(&m, (edges[i] + 1) * UNIT, size);
		check(&m, &random);
		model_end(&m);
	}
}

/* Units that are taken out again, word by word in any order: full pages get bits, others go. */
static void test_taking_out(void **state)
{
	static const uint64_t sizes[] = { 1, 64 * UNIT, 100 * UNIT, PAGE * UNIT + 1,
		3 * PAGE * UNIT + 70 * UNIT };
	uint64_t random = 6;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes) * 4; i++) {
		uint64_t size = sizes[i / 4], words = size / UNIT / 64 + 1, gone = 0;
		struct model m;

		model_begin(&m, size);
		for (uint64_t at = 0; at < size; at += UNIT) {
			/* Everything, or half of it. */
			if (i % 2 == 0 || random_below(&random, 2))
				model_add(&m, at, min_u64(at + UNIT, size));
		}
		occupancy_finish(m.o);
		for (uint64_t n = words; n-- > 0;) {
			uint64_t word = i % 4 < 2 ? n : words - 1 - n, expected = 0;
			uint64_t keep =
				random_below(&random, 3) ? random_below(&random, 1ull << 63) : 0;

			if (word / 128 == 1) /* of one page nothing stays */
				keep = 0;
			for (uint64_t u = word * 64; u < min_u64(word * 64 + 64, m.units); u++) {
				expected |= (uint64_t)m.set[u] << u % 64;
				if (!m.set[u] || (keep >> u % 64 & 1))
					continue;
				m.set[u] = 0;
				gone += min_u64(UNIT, size - u * UNIT);
			}
			assert_int_equal(occupancy_word(m.o, word), expected);
			assert_int_equal(occupancy_keep(m.o, word, keep), 0);
			assert_int_equal(occupancy_word(m.o, word), expected & keep);
		}
		m.bytes -= gone;
		occupancy_refit(m.o, gone);
		check(&m, &random);
		model_end(&m);
	}
}

/* Ranges that share a unit count it once, and their bytes each. */
static void test_shared_units(void **state)
{
	uint64_t random = 4;
	struct model m;

	(void)state;
	model_begin(&m, 3 * PAGE * UNIT);
	for (uint64_t page = 0; page < 3; page++) {
		uint64_t at = page * PAGE * UNIT;

		model_add(&m, at, at + 1);
		model_add(&m, at + 1, at + 2);
		model_add(&m, at + 100, at + UNIT);
		model_add(&m, at + UNIT - 0, at + UNIT + 5);
		model_add(&m, at + UNIT + 7, at + 3 * UNIT + 1);
		model_add(&m, at + 4 * UNIT - 1, at + 4 * UNIT + 1);
		/* Over the border to the next page by one byte. */
		if (page < 2)
			model_add(&m, at + PAGE * UNIT - 1, at + PAGE * UNIT);
	}
	model_add(&m, 3 * PAGE * UNIT - 2, 3 * PAGE * UNIT - 1);
	model_add(&m, 3 * PAGE * UNIT - 1, 3 * PAGE * UNIT);
	check(&m, &random);
	assert_int_equal(occupancy_count(m.o), 3 * 5 + 3);
	model_end(&m);

	/* Empty ranges are nothing, wherever they are. */
	model_begin(&m, 10 * UNIT);
	model_add(&m, 0, 0);
	model_add(&m, UNIT, UNIT);
	model_add(&m, 5, 3);
	model_add(&m, 10 * UNIT, 10 * UNIT);
	check(&m, &random);
	assert_int_equal(occupancy_count(m.o), 0);
	model_end(&m);
}

/* ---- hash ---- */

static uint64_t hash_of(uint64_t size, const uint64_t (*ranges)[2], size_t count)
{
	struct occupancy *o = occupancy_new(size);
	uint64_t hash;

	assert_non_null(o);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(occupancy_add(o, ranges[i][0] * UNIT, ranges[i][1] * UNIT), 0);
	occupancy_finish(o);
	hash = occupancy_hash(o);
	occupancy_free(o);
	return hash;
}

#define HASH(size, ...)                                      \
	hash_of(size, (const uint64_t[][2]) { __VA_ARGS__ }, \
		COUNT(((const uint64_t[][2]) { __VA_ARGS__ })))

static void test_hash(void **state)
{
	const uint64_t size = (2 * PAGE + 5) * UNIT;
	const uint64_t different[] = {
		hash_of(size, NULL, 0),
		hash_of(size + 1, NULL, 0),
		hash_of(size - 1, NULL, 0),
		HASH(size, { 0, 1 }),
		HASH(size + 1, { 0, 1 }),
		HASH(size, { 1, 2 }),
		HASH(size, { 0, 2 }),
		HASH(size, { 0, 1 }, { 2, 3 }),
		HASH(size, { PAGE, PAGE + 1 }),
		HASH(size, { 0, 1 }, { PAGE, PAGE + 1 }),
		HASH(size, { 0, PAGE }),
		HASH(size, { PAGE, 2 * PAGE }),
		HASH(size, { 0, 2 * PAGE }),
		HASH(size, { 0, PAGE - 1 }),
		HASH(size, { 0, 2 * PAGE + 5 }),
		HASH(size, { 0, 2 * PAGE + 4 }),
		HASH(size, { 2 * PAGE, 2 * PAGE + 5 }),
		HASH(size, { 2 * PAGE + 4, 2 * PAGE + 5 }),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(different); i++) {
		for (size_t k = 0; k < i; k++)
			assert_true(different[i] != different[k]);
	}
	/* However the map was added up. */
	assert_int_equal(HASH(size, { 0, 2 }), HASH(size, { 0, 1 }, { 1, 2 }));
	assert_int_equal(HASH(size, { 0, PAGE }), HASH(size, { 0, 7 }, { 7, PAGE }));
	assert_int_equal(HASH(size, { 0, 2 * PAGE + 5 }),
		HASH(size, { 0, 100 }, { 100, PAGE + 3 }, { PAGE + 3, 2 * PAGE + 1 },
			{ 2 * PAGE + 1, 2 * PAGE + 5 }));
	assert_int_equal(HASH(size, { 5, 5 }), hash_of(size, NULL, 0));
}

/* ---- sizes ---- */

static void test_huge(void **state)
{
	const uint64_t size = INT64_MAX, units = 1ull << 47;
	struct occupancy *o = occupancy_new(size);
	static const uint64_t set[] = { 0, 1, PAGE - 1, PAGE, 1ull << 40, (1ull << 40) + 63,
		(1ull << 47) - 2, (1ull << 47) - 1 };

	(void)state;
	assert_non_null(o);
	for (size_t i = 0; i < COUNT(set); i++)
		assert_int_equal(occupancy_add(o, set[i] * UNIT + 1, set[i] * UNIT + 3), 0);
	occupancy_finish(o);
	assert_int_equal(occupancy_units(o), units);
	assert_int_equal(occupancy_count(o), COUNT(set));
	assert_int_equal(occupancy_bytes(o), 2 * COUNT(set));
	assert_int_equal(occupancy_page_count(o), 4);
	for (size_t i = 0; i < COUNT(set); i++) {
		assert_int_equal(occupancy_select(o, i), set[i]);
		assert_int_equal(occupancy_rank(o, set[i]), i);
		assert_int_equal(occupancy_rank(o, set[i] + 1), i + 1);
		assert_true(occupancy_test(o, set[i]));
		assert_int_equal(occupancy_next(o, set[i]), set[i]);
		if (i > 0)
			assert_int_equal(occupancy_next(o, set[i - 1] + 1), set[i]);
		assert_true(occupancy_any(o, set[i], set[i] + 1));
	}
	assert_int_equal(occupancy_next(o, 2), PAGE - 1);
	assert_false(occupancy_any(o, PAGE + 1, 1ull << 40));
	assert_true(occupancy_any(o, PAGE + 1, (1ull << 40) + 1));
	assert_int_equal(occupancy_next(o, units), units);
	assert_int_equal(occupancy_page_find(o, units / PAGE - 1), 3);
	assert_int_equal(occupancy_page_find(o, 2), 2);
	occupancy_free(o);
}

/* Adds so many pages of `length` units in ranges of `piece`; returns what add says at last. */
static int scatter(uint64_t pages, uint64_t length, uint64_t piece, uint64_t *added)
{
	struct occupancy *o = occupancy_new(INT64_MAX);
	int r = 0;

	assert_non_null(o);
	for (*added = 0; *added < pages && r == 0; ++*added) {
		for (uint64_t unit = 0; unit < length && r == 0; unit += piece) {
			uint64_t at = (*added * PAGE + unit) * UNIT;

			r = occupancy_add(o, at, at + piece * UNIT);
		}
	}
	occupancy_free(o);
	return r;
}

static void test_memory_limit(void **state)
{
	uint64_t added;

	(void)state;
	/* Pages with bits take 1 KiB and their descriptor; 32 MiB hold 32,000 of them or so. */
	assert_int_equal(scatter(30000, 1, 1, &added), 0);
	assert_int_equal(scatter(40000, 1, 1, &added), -EFBIG);
	assert_true(added * (1024 + sizeof(struct occupancy_page)) >= OCCUPANCY_MAX_MEMORY);
	assert_true((added - 2) * (1024 + sizeof(struct occupancy_page)) < OCCUPANCY_MAX_MEMORY);
	/* Full pages take their descriptor alone: a full disk of 512 TiB and one page more. */
	assert_int_equal(scatter(1000000, PAGE, PAGE, &added), 0);
	assert_int_equal(scatter(100000, PAGE, PAGE / 2, &added), 0);
	assert_int_equal(scatter(3000000, PAGE, PAGE, &added), -EFBIG);
	assert_true(added >= OCCUPANCY_MAX_MEMORY / sizeof(struct occupancy_page));
}

/* The same from an image: a disk that is only holes costs nothing however large it is. */
static void test_of_image(void **state)
{
	const struct occupancy *o, *again;
	uint8_t byte = 1;
	struct image *image;
	struct why why = { "" };

	(void)state;
	if (!store_truncate("a.raw", 8 * TIB))
		SKIP_REST("no file of 8 TiB here");
	store_poke("a.raw", 0, &byte, 1);
	store_poke("a.raw", 8 * TIB - 1, &byte, 1);
	image = open_image("a.raw");
	assert_int_equal(image_occupancy(image, &o, &why), 0);
	assert_int_equal(image_occupancy(image, &again, &why), 0);
	assert_ptr_equal(o, again);
	assert_int_equal(occupancy_units(o), 8 * TIB / UNIT);
	if (occupancy_count(o) == 2) {
		assert_int_equal(occupancy_select(o, 1), 8 * TIB / UNIT - 1);
		assert_int_equal(occupancy_page_count(o), 2);
		assert_true(occupancy_bytes(o) >= 2 && occupancy_bytes(o) <= 2 * UNIT);
	} else {
		print_message("# no holes of 64 KiB in this file system\n");
	}
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_empty_and_full),
		cmocka_unit_test(test_structured),
		cmocka_unit_test(test_taking_out),
		cmocka_unit_test(test_shared_units),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_memory_limit),
		store_test(test_of_image),
	};

	return run_unit_tests(tests);
}
