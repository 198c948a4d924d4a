/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views as a whole, every format of them: a read of any range gives the same bytes, seeking,
 * block counts and holes agree with each other, and a plan is what it says.
 */
#include "qcow2_image.h"

#include <pthread.h>
#include <stdatomic.h>

#define UNIT ((uint64_t)OCCUPANCY_UNIT)

/* A disk is a list of runs of data in nothing; data is pattern(1, guest offset). */
struct disk {
	uint64_t size;
	uint64_t runs[6][2]; /* start, end; guest bytes; end 0 is none */
};

static const struct disk disks[] = {
	{ 0, { { 0 } } },
	{ 1, { { 0 } } },
	{ 1, { { 0, 1 } } },
	{ 511, { { 0, 511 } } },
	{ 512, { { 0, 512 } } },
	{ 513, { { 0, 513 } } },
	{ 65535, { { 0, 65535 } } },
	{ 65536, { { 0 } } },
	{ 65536, { { 0, 65536 } } },
	{ 65537, { { 0, 65537 } } },
	{ 65537, { { 65536, 65537 } } },
	{ 3 * UNIT + 700, { { 0, UNIT }, { 2 * UNIT, 2 * UNIT + 4096 } } },
	{ MIB, { { UNIT, 3 * UNIT }, { 4 * UNIT, 5 * UNIT }, { 8 * UNIT, MIB } } },
	{ 512 * MIB - 1, { { 0, 4096 }, { 512 * MIB - 4096, 512 * MIB - 1 } } },
	{ 512 * MIB, { { 256 * MIB, 256 * MIB + UNIT } } },
	{ 512 * MIB + 1, { { 512 * MIB - 4096, 512 * MIB + 1 } } },
	{ 1536 * MIB + 512,
		{ { UNIT, 2 * UNIT }, { 512 * MIB - UNIT, 512 * MIB + UNIT },
			{ GIB + 4096, GIB + 8192 }, { 1536 * MIB, 1536 * MIB + 512 } } },
};

static uint8_t disk_byte(const struct disk *d, uint64_t at)
{
	for (size_t i = 0; i < COUNT(d->runs); i++) {
		if (at >= d->runs[i][0] && at < d->runs[i][1] && at < d->size)
			return pattern_byte(1, at);
	}
	return 0;
}

/* ---- sources ---- */

static void write_raw(const struct disk *d)
{
	static uint8_t bytes[9 * 65536];

	unlink(store_path("x.raw"));
	assert_true(store_truncate("x.raw", d->size));
	for (size_t i = 0; i < COUNT(d->runs); i++) {
		uint64_t start = d->runs[i][0], length = d->runs[i][1] - start;

		if (length == 0)
			continue;
		assert_true(length <= sizeof(bytes));
		pattern(bytes, 1, start, length);
		store_poke("x.raw", start, bytes, length);
	}
}

static bool in_runs(const struct disk *d, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < COUNT(d->runs); i++) {
		if (d->runs[i][0] < end && d->runs[i][1] > start)
			return true;
	}
	return false;
}

/* Clusters of 4 KiB, every third one compressed. */
static void write_qcow2(const struct disk *d)
{
	struct qcow2_image q;
	int count = 0;

	qcow2_begin(&q, 12, d->size);
	for (size_t i = 0; i < COUNT(d->runs); i++) {
		uint64_t guest = d->runs[i][0] / q.cluster * q.cluster;

		for (; guest < d->runs[i][1]; guest += q.cluster) {
			uint8_t bytes[4096];

			if (!in_runs(d, guest, guest + q.cluster))
				continue;
			for (uint64_t b = 0; b < q.cluster; b++)
				bytes[b] = disk_byte(d, guest + b);
			if (count++ % 3 == 2)
				qcow2_packed(&q, guest, bytes);
			else
				qcow2_data(&q, guest, bytes);
		}
	}
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
}

/* ---- one view ---- */

struct subject {
	const struct disk *disk;
	const struct view *view;
	uint8_t *whole; /* all of the view; NULL: it is the disk */
	uint64_t random;
};

static void expect(const struct subject *s, uint64_t offset, uint64_t length, uint8_t *out)
{
	if (s->whole) {
		memcpy(out, s->whole + offset, length);
		return;
	}
	for (uint64_t i = 0; i < length; i++)
		out[i] = disk_byte(s->disk, offset + i);
}

/* The plan of a range, and the bytes that come of it. */
static void check_plan(const struct subject *s, uint64_t offset, uint64_t length, uint8_t *out)
{
	uint64_t expected = offset < s->view->size ? min_u64(length, s->view->size - offset) : 0;
	uint64_t sum = 0;
	struct plan plan;

	assert_int_equal(view_plan(s->view, offset, length, &plan), 0);
	assert_int_equal(plan_length(&plan), expected);
	for (size_t i = 0; i < plan.count; i++) {
		const struct piece *p = &plan.pieces[i];

		assert_true(p->length > 0);
		sum += p->length;
		assert_int_equal(p->kind == PIECE_MEMORY, p->bytes != NULL);
		assert_int_equal(p->kind == PIECE_FILE, p->file != NULL);
		if (p->kind == PIECE_FILE)
			assert_true(range_ok(p->offset, p->length, p->file->size));
		/* Nothing after nothing is one piece. */
		if (i > 0 && p->kind == PIECE_ZERO)
			assert_true(plan.pieces[i - 1].kind != PIECE_ZERO);
	}
	assert_int_equal(sum, expected);
	memset(out, 0xcc, expected);
	assert_int_equal(plan_read(&plan, out), 0);
	plan_release(&plan);
	assert_null(plan.pieces);
}

static void check_range(struct subject *s, uint64_t offset, uint64_t length)
{
	static uint8_t got[300 * 1024], planned[300 * 1024], expected[300 * 1024];
	uint64_t there = offset < s->view->size ? min_u64(length, s->view->size - offset) : 0;
	uint64_t done = 99;

	assert_true(length <= sizeof(got));
	memset(got, 0xdd, sizeof(got));
	assert_int_equal(view_read(s->view, offset, length, got, &done), 0);
	assert_int_equal(done, there);
	expect(s, offset, there, expected);
	assert_bytes(got, expected, there);
	if (there < sizeof(got))
		assert_int_equal(got[there], 0xdd);
	check_plan(s, offset, length, planned);
	assert_bytes(planned, expected, there);
}

static void check_reads(struct subject *s)
{
	static const uint64_t lengths[] = { 0, 1, 2, 3, 513, 65537 };
	const struct view *v = s->view;

	for (size_t r = 0; r < v->region_count; r++) {
		uint64_t start = v->regions[r].start;

		assert_int_equal(start, r ? v->regions[r - 1].end : 0);
		assert_true(v->regions[r].end > start);
		for (size_t i = 0; i < COUNT(lengths); i++) {
			for (uint64_t at = start ? start - 1 : 0; at <= start + 1; at++)
				check_range(s, at, lengths[i]);
			if (start >= lengths[i])
				check_range(s, start - lengths[i], 2 * lengths[i]);
		}
	}
	if (v->region_count > 0)
		assert_int_equal(v->regions[v->region_count - 1].end, v->size);
	else
		assert_int_equal(v->size, 0);
	for (uint64_t past = v->size ? v->size - 1 : 0; past <= v->size + 1; past++) {
		for (size_t i = 0; i < COUNT(lengths); i++)
			check_range(s, past, lengths[i]);
	}
	check_range(s, UINT64_MAX, 5);
	for (int i = 0; i < 60 && v->size > 0; i++) {
		uint64_t at = random_below(&s->random, v->size);
		const struct region *r = &v->regions[random_below(&s->random, v->region_count)];

		check_range(s, at, random_below(&s->random, i % 8 ? 3000 : 250000));
		at = r->start + random_below(&s->random, r->end - r->start);
		check_range(s, at, random_below(&s->random, 3000));
	}
}

/* ---- seeking ---- */

static void assert_seek(
	const struct view *view, uint64_t at, uint64_t data, uint64_t hole, bool more_data)
{
	uint64_t found = 0;
	int r = view_seek_data(view, at, &found);

	assert_int_equal(r, more_data ? 0 : -ENXIO);
	if (more_data)
		assert_int_equal(found, data);
	assert_int_equal(view_seek_hole(view, at, &found), 0);
	assert_int_equal(found, hole);
}

/* A run of the kind that begins there: every offset of it gives the same answers. */
static void check_run(struct subject *s, uint64_t start, uint64_t end, bool data)
{
	const struct view *v = s->view;
	const uint64_t inside[] = { start, start + 1, start + (end - start) / 2, end - 1 };
	uint64_t next;
	bool more = data || view_seek_data(v, end, &next) == 0;

	for (size_t i = 0; i < COUNT(inside); i++) {
		uint64_t at = min_u64(inside[i], end - 1);

		assert_seek(v, at, data ? at : end, data ? end : at, more);
	}
	if (data)
		return;
	for (uint64_t at = start; at < end; at += 200000) {
		uint8_t bytes[200];
		uint64_t done;

		assert_int_equal(
			view_read(v, at, min_u64(end - at, sizeof(bytes)), bytes, &done), 0);
		assert_true(is_zero(bytes, done));
	}
}

/* A walk as cp does it. Returns the bytes of data. */
static uint64_t walk(struct subject *s)
{
	const struct view *v = s->view;
	uint64_t at = 0, sum = 0, hole, data;

	while (at < v->size && view_seek_data(v, at, &data) == 0) {
		assert_true(data >= at && data < v->size);
		if (data > at)
			check_run(s, at, data, false);
		assert_int_equal(view_seek_hole(v, data, &hole), 0);
		assert_true(hole > data && hole <= v->size);
		check_run(s, data, hole, true);
		sum += hole - data;
		at = hole;
	}
	if (at < v->size)
		check_run(s, at, v->size, false);
	for (uint64_t past = v->size; past < v->size + 2; past++) {
		assert_int_equal(view_seek_data(v, past, &data), -ENXIO);
		assert_int_equal(view_seek_hole(v, past, &hole), -ENXIO);
	}
	assert_int_equal(view_seek_data(v, UINT64_MAX, &data), -ENXIO);
	assert_int_equal(view_seek_hole(v, UINT64_MAX, &hole), -ENXIO);
	return sum;
}

/* In the whole view, every byte of every hole. */
static void check_holes(const struct subject *s)
{
	uint64_t at = 0, data;

	while (s->whole && at < s->view->size) {
		uint64_t hole;

		if (view_seek_data(s->view, at, &data) < 0)
			data = s->view->size;
		assert_true(is_zero(s->whole + at, data - at));
		if (data == s->view->size)
			break;
		assert_int_equal(view_seek_hole(s->view, data, &hole), 0);
		at = hole;
	}
}

static void check_blocks(struct subject *s)
{
	uint64_t data = walk(s), blocks = 0;

	assert_int_equal(view_blocks(s->view, &blocks), 0);
	if (s->view->size == 0)
		assert_int_equal(blocks, 0);
	else if (s->view->identity)
		assert_true(blocks >= 1 && blocks <= div_ceil(s->view->size, 512));
	else
		assert_int_equal(blocks, max_u64(1, div_ceil(data, 512)));
}

/* ---- all of them ---- */

static void check_view(const struct disk *disk, struct image *image, const char *format)
{
	struct view *view = open_view(image, format);
	struct subject s = { .disk = disk, .view = view, .random = disk->size };
	bool identity = strcmp(image_format_of(image)->name, format) == 0;
	uint64_t size;

	assert_int_equal(view->identity, identity);
	if (strcmp(format, "raw") == 0)
		assert_int_equal(view->size, disk->size);
	else
		s.whole = read_view(view, &size);
	if (identity) {
		const struct file *file = image_file(image, 0);

		assert_int_equal(view->size, file->size);
		assert_true(view->region_count <= 1);
		if (s.whole) {
			uint8_t *bytes = malloc(size + 1);

			assert_non_null(bytes);
			assert_int_equal(file_read(file, bytes, size, 0), 0);
			assert_bytes(s.whole, bytes, size);
			free(bytes);
		}
	}
	check_reads(&s);
	check_blocks(&s);
	check_holes(&s);
	free(s.whole);
	view_close(view);
}

static void check_source(const char *name)
{
	for (size_t i = 0; i < COUNT(disks); i++) {
		struct image *image;

		write_raw(&disks[i]);
		write_qcow2(&disks[i]);
		image = open_image(name);
		assert_int_equal(image_size(image), disks[i].size);
		for (const struct view_format *const *f = view_formats; *f; f++) {
			/* Some formats have no empty disks: test_vmdk_view.c. */
			if (disks[i].size > 0 || (*f)->surely_fits(0))
				check_view(&disks[i], image, (*f)->name);
		}
		image_unref(image);
	}
}

static void test_of_raw(void **state)
{
	(void)state;
	check_source("x.raw");
}

static void test_of_qcow2(void **state)
{
	(void)state;
	check_source("x.qcow2");
}

/* Byte after byte is the whole. */
static void test_single_bytes(void **state)
{
	static const struct disk disk = { 2 * UNIT + 5, { { UNIT + 4096, UNIT + 8192 } } };
	struct image *image;

	(void)state;
	write_qcow2(&disk);
	image = open_image("x.qcow2");
	for (const struct view_format *const *f = view_formats; *f; f++) {
		struct view *view = open_view(image, (*f)->name);
		uint64_t size, done;
		uint8_t *whole = read_view(view, &size);

		/* The tables are long and the same all over: their starts are enough. */
		for (uint64_t at = 0; at < size; at += at % UNIT < 2000 ? 1 : 97) {
			uint8_t byte = 0xdd;

			assert_int_equal(view_read(view, at, 1, &byte, &done), 0);
			assert_int_equal(done, 1);
			assert_int_equal(byte, whole[at]);
		}
		free(whole);
		view_close(view);
	}
	image_unref(image);
}

struct crowd {
	const struct view *view;
	const uint8_t *whole;
	atomic_uint wrong, seeds;
};

static void *read_at_random(void *argument)
{
	struct crowd *crowd = argument;
	uint64_t random = atomic_fetch_add(&crowd->seeds, 1), done;
	uint8_t bytes[20000];

	for (int i = 0; i < 200; i++) {
		uint64_t at = random_below(&random, crowd->view->size);
		uint64_t length = random_below(&random, sizeof(bytes));

		if (view_read(crowd->view, at, length, bytes, &done) < 0 ||
			memcmp(bytes, crowd->whole + at, done) != 0)
			atomic_fetch_add(&crowd->wrong, 1);
	}
	return NULL;
}

/* Many readers of one view, with a cache that is too small for them. */
static void test_parallel_reads(void **state)
{
	static const struct disk disk = { MIB, { { UNIT, 7 * UNIT }, { 8 * UNIT, MIB } } };
	struct crowd crowd = { 0 };
	struct image *image;
	struct view *view;
	pthread_t threads[6];
	uint64_t size;

	(void)state;
	cache_free(store.context.cache);
	store.context.cache = cache_new(30000);
	write_qcow2(&disk);
	image = open_image("x.qcow2");
	crowd.view = view = open_view(image, "vmdk");
	crowd.whole = read_view(view, &size);
	for (size_t i = 0; i < COUNT(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_at_random, &crowd), 0);
	for (size_t i = 0; i < COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(crowd.wrong, 0);
	free((void *)(uintptr_t)crowd.whole);
	view_close(view);
	image_unref(image);
}

/* An overlay is no standalone file, so its own format is a view like the others. */
static void test_not_identity(void **state)
{
	static const struct disk disk = { MIB, { { 0, 8192 } } };
	struct qcow2_image q;
	struct image *image;
	struct view *view;

	(void)state;
	write_raw(&disk);
	qcow2_begin(&q, 16, MIB);
	qcow2_backing(&q, "x.raw", "raw");
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	image = open_image("x.qcow2");
	view = open_view(image, "qcow2");
	assert_false(view->identity);
	assert_int_equal(get_be64((const uint8_t *)view->regions[0].bytes + 8), 0);
	view_close(view);
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_of_raw),
		store_test(test_of_qcow2),
		store_test(test_single_bytes),
		store_test(test_parallel_reads),
		store_test(test_not_identity),
	};

	return run_unit_tests(tests);
}
