/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views of formats that are made here: blocks of many units, bytes before each, and regions that
 * a function composes.
 */
#include "support.h"

#define UNIT ((uint64_t)OCCUPANCY_UNIT)

/* What the formats below do. */
static struct {
	uint64_t block;
	uint32_t lead;
} wanted;

static int blocks_layout(struct view *view, struct why *why)
{
	int r = view_use_blocks(view, wanted.block, why);

	if (r < 0)
		return r;
	memset(view_add_bytes(view, "header", 100), 'h', 100);
	view_add_blocks(view, "blocks", wanted.lead);
	return 0;
}

static const struct view_format blocks_format = {
	.name = "blocks",
	.suffix = "blocks",
	.compact = true,
	.layout = blocks_layout,
};

/* A raw disk with data at a few places. */
#define DISK (9 * MIB + 512)

static const uint64_t places[][2] = {
	{ 0, 1 },
	{ 5 * UNIT, 7 * UNIT },
	{ 2 * MIB, 3 * MIB },
	{ 6 * MIB - 1, 6 * MIB + 1 },
	{ DISK - 1, DISK },
};

static uint8_t guest_byte(uint64_t at)
{
	for (size_t i = 0; i < COUNT(places); i++) {
		if (at >= places[i][0] && at < places[i][1])
			return pattern_byte(3, at);
	}
	return 0;
}

static bool unit_is_used(uint64_t unit)
{
	for (size_t i = 0; i < COUNT(places); i++) {
		if (places[i][0] / UNIT <= unit && unit <= (places[i][1] - 1) / UNIT)
			return true;
	}
	return false;
}

static bool block_is_used(uint64_t block)
{
	uint64_t scale = wanted.block / UNIT;

	for (uint64_t unit = block * scale; unit < (block + 1) * scale; unit++) {
		if (unit_is_used(unit))
			return true;
	}
	return false;
}

static struct image *make_disk(void)
{
	static uint8_t bytes[MIB];

	assert_true(store_truncate("x.raw", DISK));
	for (size_t i = 0; i < COUNT(places); i++) {
		uint64_t length = places[i][1] - places[i][0];

		for (uint64_t j = 0; j < length; j++)
			bytes[j] = pattern_byte(3, places[i][0] + j);
		store_poke("x.raw", places[i][0], bytes, length);
	}
	return open_image("x.raw");
}

/* The file as it must be, from the places alone. */
static uint8_t *make_expected(uint64_t *size)
{
	uint64_t count = div_ceil(DISK, wanted.block);
	uint8_t *out = malloc(100 + count * (wanted.block + wanted.lead));
	uint8_t *at = out;

	assert_non_null(out);
	memset(at, 'h', 100);
	at += 100;
	for (uint64_t b = 0; b < count; b++) {
		if (!block_is_used(b))
			continue;
		memset(at, 0xff, wanted.lead);
		at += wanted.lead;
		for (uint64_t i = 0; i < wanted.block; i++)
			*at++ = guest_byte(b * wanted.block + i);
	}
	*size = (uint64_t)(at - out);
	return out;
}

/* Every hole holds zeros; what it ends at is in an occupied unit, or a block's lead. */
static void check_holes(const struct view *view, const uint8_t *bytes)
{
	uint64_t at = 0, data, hole, sum = 0, blocks;

	while (view_seek_data(view, at, &data) == 0) {
		for (; at < data; at++)
			assert_int_equal(bytes[at], 0);
		assert_int_equal(view_seek_hole(view, data, &hole), 0);
		assert_true(hole > data);
		sum += hole - data;
		at = hole;
	}
	for (; at < view->size; at++)
		assert_int_equal(bytes[at], 0);
	assert_int_equal(view_blocks(view, &blocks), 0);
	assert_int_equal(blocks, div_ceil(sum, 512));
}

static void check_blocks(struct image *image, uint64_t block, uint32_t lead)
{
	struct why why = { "" };
	struct view *view;
	uint64_t size, seen, random = 1, done;
	uint8_t *expected, *bytes, part[70000];

	wanted.block = block;
	wanted.lead = lead;
	expected = make_expected(&size);
	assert_int_equal(view_open(image, &blocks_format, &view, &why), 0);
	assert_int_equal(view->size, size);
	bytes = read_view(view, &seen);
	assert_memory_equal(bytes, expected, size);
	for (int i = 0; i < 200; i++) {
		uint64_t from = random_below(&random, size);
		uint64_t length = random_below(&random, sizeof(part));

		assert_int_equal(view_read(view, from, length, part, &done), 0);
		assert_int_equal(done, min_u64(length, size - from));
		assert_memory_equal(part, expected + from, done);
	}
	check_holes(view, bytes);
	free(bytes);
	free(expected);
	view_close(view);
}

static void test_blocks(void **state)
{
	static const uint64_t sizes[] = { UNIT, 2 * UNIT, MIB, 2 * MIB, 32 * MIB, 256 * MIB };
	struct image *image = make_disk();

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		check_blocks(image, sizes[i], 0);
		check_blocks(image, sizes[i], 512);
	}
	image_unref(image);
}

/* A disk without a hole: pages of the map that have no bits. */
static void test_full(void **state)
{
	static uint8_t zeros[MIB];
	struct why why = { "" };
	struct image *image;
	struct view *view;
	uint64_t data, hole;

	(void)state;
	for (uint64_t at = 0; at < 520 * MIB; at += MIB)
		store_poke("x.raw", at, zeros, MIB);
	image = open_image("x.raw");
	wanted.block = 2 * MIB;
	wanted.lead = 512;
	assert_int_equal(view_open(image, &blocks_format, &view, &why), 0);
	assert_int_equal(occupancy_count(view->blocks), 260);
	assert_int_equal(view->size, 100 + 260 * (2 * MIB + 512));
	assert_int_equal(view_seek_data(view, 0, &data), 0);
	assert_int_equal(view_seek_hole(view, data, &hole), 0);
	assert_int_equal(hole, view->size);
	view_close(view);
	image_unref(image);
}

static void test_empty(void **state)
{
	struct why why = { "" };
	struct image *image;
	struct view *view;

	(void)state;
	assert_true(store_truncate("x.raw", GIB));
	image = open_image("x.raw");
	wanted.block = MIB;
	wanted.lead = 0;
	assert_int_equal(view_open(image, &blocks_format, &view, &why), 0);
	assert_int_equal(view->size, 100);
	view_close(view);
	image_unref(image);
}

/* ---- composed regions ---- */

/* Each unit of the guest is its sum, in 8 bytes, and then its bytes; between them a few zeros. */
#define RECORD (8 + UNIT + 24)

static int compose_record(const struct view *view, struct plan *plan, uint64_t offset)
{
	uint64_t guest = offset / RECORD * UNIT, skip = offset % RECORD, sum = 0;
	static _Thread_local uint8_t bytes[65536];
	uint8_t *out;
	int r;

	(void)view;
	if (skip >= 8 + UNIT)
		return plan_add_zero(plan, 1);
	if (skip >= 8)
		return plan_add_guest(plan, guest + skip - 8, 1);
	r = plan_read_guest(plan, guest, UNIT, bytes);
	if (r < 0)
		return r;
	for (size_t i = 0; i < UNIT; i++)
		sum += bytes[i];
	put_le64(bytes, sum);
	out = plan_add_memory(plan, 1);
	if (!out)
		return -ENOMEM;
	*out = bytes[skip];
	return 0;
}

static int compose(const struct view *view, struct plan *plan, uint64_t offset, uint64_t length)
{
	int r = 0;

	for (uint64_t end = offset + length; r == 0 && offset < end; offset++)
		r = compose_record(view, plan, offset);
	return r;
}

static int composed_layout(struct view *view, struct why *why)
{
	static const struct view_composer composer = { compose };

	(void)why;
	view_add_zero(view, "nothing", 50);
	view_add_composed(
		view, "records", div_ceil(image_size(view->image), UNIT) * RECORD, &composer);
	return 0;
}

static const struct view_format composed_format = {
	.name = "composed",
	.suffix = "composed",
	.layout = composed_layout,
};

static void test_composed(void **state)
{
	struct image *image = make_disk();
	struct why why = { "" };
	struct view *view;
	uint64_t units = div_ceil(DISK, UNIT), data, hole;

	(void)state;
	assert_int_equal(view_open(image, &composed_format, &view, &why), 0);
	assert_int_equal(view->size, 50 + units * RECORD);
	for (uint64_t unit = 0; unit < units; unit += 5) {
		uint8_t record[8 + 100];
		uint64_t sum = 0, done;

		for (uint64_t i = 0; i < UNIT; i++)
			sum += guest_byte(unit * UNIT + i);
		assert_int_equal(
			view_read(view, 50 + unit * RECORD, sizeof(record), record, &done), 0);
		assert_int_equal(get_le64(record), sum);
		for (uint64_t i = 0; i < 100; i++)
			assert_int_equal(record[8 + i], guest_byte(unit * UNIT + i));
	}
	/* All of it is data. */
	assert_int_equal(view_seek_data(view, 0, &data), 0);
	assert_int_equal(data, 50);
	assert_int_equal(view_seek_hole(view, 50, &hole), 0);
	assert_int_equal(hole, view->size);
	view_close(view);
	image_unref(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_blocks),
		store_test(test_full),
		store_test(test_empty),
		store_test(test_composed),
	};

	return run_unit_tests(tests);
}
