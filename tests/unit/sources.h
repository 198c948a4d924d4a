/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources for tests of views: disks whose occupied units are known. They are overlays on an empty
 * raw file, so that no view is the file itself.
 */
#ifndef IMGFS_TEST_SOURCES_H
#define IMGFS_TEST_SOURCES_H

#include "qcow2_image.h"

#define UNIT ((uint64_t)OCCUPANCY_UNIT)

static inline void source_begin(struct qcow2_image *q, uint32_t bits, uint64_t size)
{
	store_text("x-base.raw", "");
	qcow2_begin(q, bits, size);
	qcow2_backing(q, "x-base.raw", "raw");
}

static inline struct image *source_end(struct qcow2_image *q, uint64_t file_size)
{
	qcow2_write(q, "x.qcow2");
	qcow2_end(q);
	if (file_size > 0)
		assert_true(store_truncate("x.qcow2", file_size));
	return open_image("x.qcow2");
}

/* What the disk has in an occupied unit, and what is past its end. */
static inline uint8_t source_byte(uint64_t size, uint64_t guest)
{
	return guest < size ? pattern_byte(7, guest) : 0;
}

/* A disk of which these units are occupied, in rising order. */
static inline struct image *source_of_units(uint64_t size, const uint64_t *units, size_t count)
{
	uint8_t *bytes = malloc(UNIT);
	struct qcow2_image q;

	assert_non_null(bytes);
	source_begin(&q, 16, size);
	for (size_t i = 0; i < count; i++) {
		for (uint64_t b = 0; b < UNIT; b++)
			bytes[b] = source_byte(size, units[i] * UNIT + b);
		qcow2_data(&q, units[i] * UNIT, bytes);
	}
	free(bytes);
	return source_end(&q, 0);
}

/*
 * A disk of any size of which every cluster of 2 MiB whose number is a multiple of `step` is
 * allocated. All L1 entries share one L2 table of 512 GiB and all its entries one cluster; the
 * file is made so long that this is allowed.
 */
static inline struct image *source_of_clusters(uint64_t size, uint64_t step)
{
	const uint64_t cluster = 2 * MIB, entries = cluster / 8;
	struct qcow2_image q;
	uint64_t table;

	source_begin(&q, 21, size);
	table = qcow2_append(&q, cluster);
	for (uint64_t i = 0; i < entries; i += step)
		put_be64(q.file + table + i * 8, table + cluster);
	for (uint64_t i = 0; i < q.l1_entries; i++)
		put_be64(q.file + q.l1 + i * 8, table);
	return source_end(&q, table + (q.l1_entries + 2) * cluster);
}

/* A disk of any size with nothing on it. */
static inline struct image *source_empty(uint64_t size)
{
	struct qcow2_image q;

	source_begin(&q, 21, size);
	return source_end(&q, 0);
}

/* Any part of a table is the same as that part of all of it. */
static inline void check_table_fill(const struct view *view, const char *region, uint64_t *random)
{
	const struct region *r = find_region(view, region);
	uint64_t length = min_u64(r->end - r->start, 256 * KIB);
	/* The end of the table, where padding begins, and its start. */
	const uint64_t bases[] = { 0, r->end - r->start - length };
	uint8_t *whole = malloc(length), *part = malloc(length + 1);

	assert_true(whole && part);
	assert_int_equal(r->kind, REGION_TABLE);
	for (size_t b = 0; b < COUNT(bases); b++) {
		memset(whole, 0xa5, length);
		r->table->fill(view, bases[b], length, whole);
		for (int i = 0; i < 300; i++) {
			uint64_t at = random_below(random, length);
			uint64_t n = min_u64(random_below(random, i % 4 ? 40 : 10000), length - at);

			memset(part, 0x5a, n + 1);
			r->table->fill(view, bases[b] + at, n, part);
			assert_bytes(part, whole + at, n);
			assert_int_equal(part[n], 0x5a);
		}
	}
	free(whole);
	free(part);
}

/* Runs of zeros are zeros, and every run gets further, to the end of the table. */
static inline void check_table_runs(const struct view *view, const char *region)
{
	const struct region *r = find_region(view, region);
	uint64_t length = r->end - r->start, end;
	uint8_t *bytes = malloc(65536);

	assert_non_null(bytes);
	assert_non_null(r->table->run);
	for (uint64_t at = 0; at < length; at = end) {
		bool zero, again;

		end = r->table->run(view, at, &zero);
		assert_true(end > at && end <= length);
		/* Nobody gains by holes that are smaller than a page. */
		assert_true(end % 4096 == 0 || end == length);
		/* From any place in it the run is of the same kind and ends where it ends. */
		if (zero) {
			assert_int_equal(r->table->run(view, at + (end - at) / 2, &again), end);
			assert_true(again);
			assert_int_equal(r->table->run(view, end - 1, &again), end);
			assert_true(again);
		}
		for (uint64_t n, b = at; zero && b < end && b < at + MIB; b += n) {
			n = min_u64(end - b, 65536);
			r->table->fill(view, b, n, bytes);
			assert_true(is_zero(bytes, n));
		}
	}
	free(bytes);
}

#endif
