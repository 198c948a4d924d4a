/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detect_zeroes: units that are allocated but all zero are not occupied, all others are, and
 * whoever reads a view sees no difference. What was found can go from one open image to the next.
 */
#include "sources.h"

static void set_up_detection(void)
{
	store.context.detect_zeroes = true;
}

static const struct occupancy *occupancy_of(struct image *image)
{
	const struct occupancy *o;
	struct why why = { "" };

	assert_int_equal(image_occupancy(image, &o, &why), 0);
	return o;
}

static void assert_units(struct image *image, const uint8_t *occupied, uint64_t units)
{
	const struct occupancy *o = occupancy_of(image);
	uint64_t count = 0;

	assert_int_equal(occupancy_units(o), units);
	for (uint64_t u = 0; u < units; u++) {
		if (occupancy_test(o, u) != (occupied[u] != 0))
			fail_msg("unit %" PRIu64 " is wrong", u);
		assert_int_equal(occupancy_rank(o, u), count);
		if (occupied[u])
			assert_int_equal(occupancy_select(o, count++), u);
	}
	assert_int_equal(occupancy_count(o), count);
}

/* The raw view, which shows what there is, has at each occupied unit what the other one has. */
static void assert_same_disk(struct image *image, const char *format)
{
	const struct occupancy *o = occupancy_of(image);
	struct view *raw = open_view(image, "raw"), *view = open_view(image, format);
	uint64_t base = find_region(view, strcmp(format, "vmdk") == 0 ? "grains" : "data")->start;
	uint8_t *a = malloc(UNIT), *b = malloc(UNIT);

	assert_true(a && b);
	for (uint64_t u = 0; u < occupancy_units(o); u++) {
		uint64_t length = min_u64(UNIT, raw->size - u * UNIT), done;
		int r = view_read(raw, u * UNIT, length, a, &done);

		if (!occupancy_test(o, u)) {
			assert_int_equal(r, 0);
			assert_true(is_zero(a, length));
			continue;
		}
		assert_int_equal(
			view_read(view, base + occupancy_rank(o, u) * UNIT, length, b, &done), r);
		if (r == 0)
			assert_bytes(b, a, length);
	}
	free(a);
	free(b);
	view_close(raw);
	view_close(view);
}

enum kind {
	NOTHING,
	ZEROS,
	FIRST_BYTE,
	BEHIND_HEAD, /* the first byte that is not among those that are read first */
	LAST_BYTE,
	PACKED_ZEROS,
	PACKED_BYTE,
	PACKED_BAD, /* a stream that does not unpack */
	OUTSIDE,    /* an entry that leads out of the file */
	IN_HOLE,    /* of the file */
	KINDS,
};

static const bool is_data[KINDS] = {
	[FIRST_BYTE] = true,
	[BEHIND_HEAD] = true,
	[LAST_BYTE] = true,
	[PACKED_BYTE] = true,
	[PACKED_BAD] = true,
	[OUTSIDE] = true,
};

static void add_cluster(struct qcow2_image *q, uint64_t guest, enum kind kind)
{
	uint8_t *bytes = calloc(1, q->cluster);
	uint64_t end = min_u64(q->cluster, q->size - guest), at;

	assert_non_null(bytes);
	switch (kind) {
	case FIRST_BYTE:
		bytes[0] = 1;
		break;
	case BEHIND_HEAD:
		bytes[min_u64(4096, end - 1)] = 1;
		break;
	case LAST_BYTE:
	case PACKED_BYTE:
		bytes[end - 1] = 0x80;
		break;
	default:
		break;
	}
	if (kind == PACKED_ZEROS || kind == PACKED_BYTE || kind == PACKED_BAD) {
		at = qcow2_packed(q, guest, bytes);
		if (kind == PACKED_BAD)
			memset(q->file + at, 0xff, 4);
	} else if (kind == OUTSIDE) {
		qcow2_set(q, guest, 1ull << 45 | QCOW2_COPIED);
	} else if (kind == IN_HOLE) {
		qcow2_set(q, guest, 1ull << 30 | QCOW2_COPIED);
	} else if (kind != NOTHING) {
		qcow2_data(q, guest, bytes);
	}
	free(bytes);
}

/* A disk of clusters of one unit, of these kinds. */
static struct image *image_of(const enum kind *kinds, size_t count, uint64_t size)
{
	struct qcow2_image q;

	source_begin(&q, 16, size);
	for (size_t i = 0; i < count; i++)
		add_cluster(&q, i * UNIT, kinds[i]);
	return source_end(&q, (1ull << 30) + MIB);
}

static void test_kinds(void **state)
{
	enum { COPIES = 700 }; /* more than one window, and than two */
	static enum kind kinds[COPIES * KINDS];
	static uint8_t occupied[COUNT(kinds)];
	uint64_t allocated = 0, known, random = 1;
	struct image *image;

	(void)state;
	set_up_detection();
	for (size_t i = 0; i < COUNT(kinds); i++) {
		/* All kinds in turn, and then as it happens; few of those that take space. */
		kinds[i] = (enum kind)(i < 4 * KINDS ? i % KINDS : random_below(&random, KINDS));
		if (i >= 40 * KINDS && kinds[i] < PACKED_ZEROS)
			kinds[i] = IN_HOLE;
		occupied[i] = is_data[kinds[i]];
		allocated += kinds[i] == NOTHING ? 0 : UNIT;
	}
	image = image_of(kinds, COUNT(kinds), COUNT(kinds) * UNIT);
	assert_units(image, occupied, COUNT(kinds));
	assert_int_equal(
		occupancy_bytes(occupancy_of(image)), occupancy_count(occupancy_of(image)) * UNIT);
	assert_int_equal(image_allocated(image, &known), 0);
	assert_int_equal(known, allocated);
	assert_same_disk(image, "vmdk");
	assert_same_disk(image, "qcow2");
	image_unref(image);

	/* Off, all that is allocated is there. */
	store.context.detect_zeroes = false;
	for (size_t i = 0; i < COUNT(kinds); i++)
		occupied[i] = kinds[i] != NOTHING;
	image = open_image("x.qcow2");
	assert_units(image, occupied, COUNT(kinds));
	image_unref(image);
}

/* A disk that ends in the middle of its last unit. */
static void test_last_unit(void **state)
{
	static const enum kind last[] = { ZEROS, FIRST_BYTE, LAST_BYTE, PACKED_ZEROS, PACKED_BYTE };
	static const uint64_t lengths[] = { 1, 512, 4096, 4097, 65535 };

	(void)state;
	set_up_detection();
	for (size_t i = 0; i < COUNT(last) * COUNT(lengths); i++) {
		const enum kind kinds[] = { FIRST_BYTE, ZEROS, last[i % COUNT(last)] };
		const uint8_t occupied[] = { 1, 0, is_data[kinds[2]] };
		uint64_t length = lengths[i / COUNT(last)], bytes;
		struct image *image = image_of(kinds, 3, 2 * UNIT + length);

		assert_units(image, occupied, 3);
		assert_int_equal(
			occupancy_bytes(occupancy_of(image)), UNIT + (occupied[2] ? length : 0));
		assert_int_equal(image_allocated(image, &bytes), 0);
		assert_int_equal(bytes, 2 * UNIT + length);
		assert_same_disk(image, "vmdk");
		image_unref(image);
	}
}

static void test_all_or_nothing(void **state)
{
	static enum kind kinds[300];

	(void)state;
	set_up_detection();
	for (int i = 0; i < 3; i++) {
		static const enum kind all[] = { ZEROS, NOTHING, FIRST_BYTE };
		struct image *image;
		struct view *view;

		for (size_t k = 0; k < COUNT(kinds); k++)
			kinds[k] = all[i];
		image = image_of(kinds, COUNT(kinds), COUNT(kinds) * UNIT);
		assert_int_equal(occupancy_count(occupancy_of(image)), i == 2 ? COUNT(kinds) : 0);
		assert_int_equal(
			occupancy_bytes(occupancy_of(image)), i == 2 ? COUNT(kinds) * UNIT : 0);
		assert_int_equal(occupancy_page_count(occupancy_of(image)), i == 2);
		view = open_view(image, "qcow2");
		view_close(view);
		image_unref(image);
	}
}

/* Clusters that are smaller than a unit: it is occupied where any of them holds something. */
static void test_small_clusters(void **state)
{
	enum { CLUSTERS = 64 * 16 };
	static uint8_t occupied[CLUSTERS / 16];
	uint64_t bytes[CLUSTERS / 16] = { 0 }, sum = 0, all = 0, known, random = 5;
	struct qcow2_image q;
	struct image *image;

	(void)state;
	set_up_detection();
	source_begin(&q, 12, CLUSTERS * 4096);
	for (unsigned i = 0; i < CLUSTERS; i++) {
		static const enum kind often[] = { NOTHING, ZEROS, PACKED_ZEROS, ZEROS };
		bool seldom = random_below(&random, 20) == 0;
		enum kind kind = seldom ? (enum kind)random_below(&random, IN_HOLE)
					: often[random_below(&random, COUNT(often))];

		if (i / 16 % 8 == 7) /* zeros of all kinds, and then something in the end */
			kind = i % 16 == 15 && i / 16 % 16 == 15 ? LAST_BYTE : ZEROS;
		add_cluster(&q, i * 4096, kind);
		bytes[i / 16] += kind == NOTHING ? 0 : 4096;
		occupied[i / 16] |= is_data[kind];
	}
	image = source_end(&q, 0);
	assert_units(image, occupied, COUNT(occupied));
	for (unsigned i = 0; i < COUNT(occupied); i++) {
		sum += occupied[i] ? bytes[i] : 0;
		all += bytes[i];
	}
	assert_true(sum > 0 && sum < all);
	assert_int_equal(occupancy_bytes(occupancy_of(image)), sum);
	assert_int_equal(image_allocated(image, &known), 0);
	assert_int_equal(known, all);
	assert_same_disk(image, "vmdk");
	image_unref(image);
}

/* A packed cluster of 2 MiB: its units are judged one by one. */
static void test_large_units(void **state)
{
	const uint64_t cluster = 2 * MIB;
	uint8_t *bytes = calloc(1, cluster);
	uint8_t occupied[96] = { [3] = 1, [31] = 1, [64] = 1 };
	struct qcow2_image q;
	struct image *image;

	(void)state;
	assert_non_null(bytes);
	set_up_detection();
	source_begin(&q, 21, 96 * UNIT);
	bytes[3 * UNIT + 100] = 1;
	bytes[cluster - 1] = 1;
	qcow2_packed(&q, 0, bytes);
	memset(bytes, 0, cluster);
	qcow2_packed(&q, cluster, bytes);
	bytes[0] = 1;
	qcow2_data(&q, 2 * cluster, bytes);
	free(bytes);
	image = source_end(&q, 0);
	assert_units(image, occupied, COUNT(occupied));
	assert_same_disk(image, "vmdk");
	image_unref(image);
}

/* A raw disk of many windows: holes, zeros that are written, and bytes here and there. */
static void test_raw(void **state)
{
	enum { UNITS = 8192 + 100 };
	static uint8_t occupied[UNITS], zeros[UNIT];
	uint64_t random = 9, done;
	struct image *image;
	struct view *view;

	(void)state;
	set_up_detection();
	assert_true(store_truncate("x.raw", UNITS * UNIT - 100));
	for (int i = 0; i < 300; i++) {
		uint64_t unit = random_below(&random, UNITS - 1);

		store_poke("x.raw", unit * UNIT, zeros, UNIT);
		occupied[unit] = 0;
		unit = random_below(&random, UNITS - 1);
		store_poke("x.raw", unit * UNIT + random_below(&random, UNIT), "x", 1);
		occupied[unit] = 1;
	}
	store_poke("x.raw", UNITS * UNIT - 101, "x", 1);
	occupied[UNITS - 1] = 1;
	image = open_image("x.raw");
	assert_units(image, occupied, UNITS);
	assert_same_disk(image, "qcow2");
	/* The source itself, and holes of the raw view, are what they were. */
	view = open_view(image, "raw");
	assert_true(view->identity);
	assert_int_equal(view_read(view, UNITS * UNIT - 101, 1, zeros, &done), 0);
	assert_int_equal(zeros[0], 'x');
	view_close(view);
	image_unref(image);
}

/* SEEK_DATA and st_blocks of a raw view go by the tables both, before and after a look. */
static void test_raw_view_agrees(void **state)
{
	static const enum kind kinds[] = { ZEROS, NOTHING, FIRST_BYTE, PACKED_ZEROS, NOTHING };
	struct image *image;
	struct view *raw;
	uint64_t blocks, found;

	(void)state;
	set_up_detection();
	image = image_of(kinds, COUNT(kinds), COUNT(kinds) * UNIT);
	raw = open_view(image, "raw");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(view_blocks(raw, &blocks), 0);
		assert_int_equal(blocks, 3 * UNIT / 512);
		assert_int_equal(view_seek_data(raw, 0, &found), 0);
		assert_int_equal(found, 0);
		assert_int_equal(view_seek_data(raw, UNIT, &found), 0);
		assert_int_equal(found, 2 * UNIT);
		assert_int_equal(view_seek_hole(raw, 2 * UNIT, &found), 0);
		assert_int_equal(found, 4 * UNIT);
		assert_int_equal(occupancy_count(occupancy_of(image)), 1);
	}
	view_close(raw);
	image_unref(image);
}

/* ---- what goes wrong ---- */

static void test_stale(void **state)
{
	static const enum kind kinds[] = { ZEROS, FIRST_BYTE };
	const struct occupancy *o;
	struct why why = { "" };
	struct image *image;

	(void)state;
	set_up_detection();
	image = image_of(kinds, 2, 2 * UNIT);
	usleep(20000); /* a tick of the file system's clock */
	store_poke("x.qcow2", 100, "\0", 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(image_occupancy(image, &o, &why), -ESTALE);
		assert_non_null(strstr(why.text, "zeros"));
	}
	assert_null(image_forget(image));
	image_unref(image);
	assert_int_equal(occupancy_total_memory(), 0);
}

/* Something writes to the source after the last look at it before it is read. */
static bool write_meanwhile(void)
{
	usleep(20000);
	store_poke("x.qcow2", 100, "\0", 1);
	return false;
}

static void test_changes_meanwhile(void **state)
{
	static const enum kind kinds[] = { ZEROS, FIRST_BYTE };
	const struct occupancy *o;
	struct image *image;

	(void)state;
	set_up_detection();
	store.context.interrupted = write_meanwhile;
	image = image_of(kinds, 2, 2 * UNIT);
	assert_int_equal(image_occupancy(image, &o, NULL), -ESTALE);
	assert_null(image_forget(image));
	image_unref(image);
}

static bool give_up;

static bool has_given_up(void)
{
	return give_up;
}

static void test_interrupted(void **state)
{
	static const enum kind kinds[] = { ZEROS, FIRST_BYTE };
	const uint8_t occupied[] = { 0, 1 };
	const struct occupancy *o;
	struct image *image;
	uint64_t bytes;

	(void)state;
	set_up_detection();
	store.context.interrupted = has_given_up;
	image = image_of(kinds, 2, 2 * UNIT);
	give_up = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(image_occupancy(image, &o, NULL), -EINTR);
	/* What needs no look at the data goes on meanwhile. */
	assert_int_equal(image_allocated(image, &bytes), 0);
	assert_int_equal(bytes, 2 * UNIT);
	give_up = false;
	assert_units(image, occupied, 2);
	give_up = true;
	assert_units(image, occupied, 2);
	image_unref(image);
}

/* Tables that use one cluster of zeros for 16 TiB: it is not read for all of them. */
static void test_aliased(void **state)
{
	const uint64_t span = UNIT * UNIT / 8, tables = 1 << 15;
	const struct occupancy *o;
	struct qcow2_image q;
	struct image *image;
	uint8_t *bytes = calloc(1, UNIT);
	uint64_t data;

	(void)state;
	assert_non_null(bytes);
	set_up_detection();
	source_begin(&q, 16, tables * span);
	data = qcow2_data(&q, 0, bytes);
	for (uint64_t n = 0; n < UNIT / 8; n++)
		qcow2_set(&q, n * UNIT, data | QCOW2_COPIED);
	for (uint64_t n = 1; n < tables; n++)
		memcpy(q.file + q.l1 + 8 * n, q.file + q.l1, 8);
	free(bytes);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	if (!store_truncate("x.qcow2", 1ull << 43))
		SKIP_REST("no file of 8 TiB here");
	image = open_image("x.qcow2");
	o = occupancy_of(image);
	assert_int_equal(occupancy_count(o), tables * span / UNIT);
	assert_int_equal(occupancy_bytes(o), tables * span);
	image_unref(image);
}

/* ---- from one open image to the next ---- */

static void test_hand_over(void **state)
{
	static const enum kind kinds[] = { ZEROS, FIRST_BYTE, NOTHING };
	const uint8_t occupied[] = { 0, 1, 0 };
	struct learned *learned;
	struct image *image;
	uint64_t bytes;

	(void)state;
	set_up_detection();
	image = image_of(kinds, 3, 3 * UNIT);
	assert_null(image_forget(image));
	assert_units(image, occupied, 3);
	learned = image_forget(image);
	assert_non_null(learned);
	assert_null(image_forget(image));
	image_unref(image);
	assert_true(occupancy_total_memory() > 0);

	/* It is not looked at again, so it does not matter that it has changed. */
	image = open_image("x.qcow2");
	usleep(20000);
	store_poke("x.qcow2", 100, "\0", 1);
	image_remember(image, learned);
	assert_units(image, occupied, 3);
	assert_int_equal(image_allocated(image, &bytes), 0);
	assert_int_equal(bytes, 2 * UNIT);
	/* What is known stays. */
	learned = image_forget(image);
	image_unref(image);
	image = open_image("x.qcow2");
	assert_units(image, occupied, 3);
	image_remember(image, learned);
	assert_units(image, occupied, 3);
	image_unref(image);
	assert_int_equal(occupancy_total_memory(), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_kinds),
		store_test(test_last_unit),
		store_test(test_all_or_nothing),
		store_test(test_small_clusters),
		store_test(test_large_units),
		store_test(test_raw),
		store_test(test_raw_view_agrees),
		store_test(test_stale),
		store_test(test_changes_meanwhile),
		store_test(test_interrupted),
		store_test(test_aliased),
		store_test(test_hand_over),
	};

	return run_unit_tests(tests);
}
