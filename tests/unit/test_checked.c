/* SPDX-License-Identifier: Apache-2.0 */
/* checked.h at every border, and wire.h. */
#include "support.h"

#define MAX UINT64_MAX

static void test_add(void **state)
{
	static const struct {
		uint64_t a, b;
		bool ok;
	} cases[] = {
		{ 0, 0, true },
		{ MAX, 0, true },
		{ 0, MAX, true },
		{ MAX, 1, false },
		{ 1, MAX, false },
		{ MAX - 1, 1, true },
		{ MAX - 1, 2, false },
		{ MAX, MAX, false },
		{ 1ull << 63, (1ull << 63) - 1, true },
		{ 1ull << 63, 1ull << 63, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t sum = 0;

		assert_int_equal(checked_add(cases[i].a, cases[i].b, &sum), cases[i].ok);
		if (cases[i].ok)
			assert_int_equal(sum, cases[i].a + cases[i].b);
	}
}

static void test_mul(void **state)
{
	static const struct {
		uint64_t a, b;
		bool ok;
	} cases[] = {
		{ 0, MAX, true },
		{ MAX, 0, true },
		{ MAX, 1, true },
		{ 1, MAX, true },
		{ MAX, 2, false },
		{ MAX / 2, 2, true },
		{ MAX / 2 + 1, 2, false },
		{ MAX / 3, 3, true },
		{ MAX / 3 + 1, 3, false },
		{ 1ull << 32, (1ull << 32) - 1, true },
		{ 1ull << 32, 1ull << 32, false },
		{ 0xffffffff, 0x100000001, true },
		{ 0x100000000, 0x100000001, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t product = 1;

		assert_int_equal(checked_mul(cases[i].a, cases[i].b, &product), cases[i].ok);
		if (cases[i].ok)
			assert_int_equal(product, cases[i].a * cases[i].b);
	}
}

static void test_range_ok(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 2, 511, 512, 513, INT64_MAX, MAX - 1, MAX };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		uint64_t size = sizes[i];

		assert_true(range_ok(0, 0, size));
		assert_true(range_ok(size, 0, size));
		assert_true(range_ok(0, size, size));
		assert_int_equal(range_ok(size, 1, size), false);
		if (size < MAX) {
			assert_false(range_ok(size + 1, 0, size));
			assert_false(range_ok(0, size + 1, size));
			assert_false(range_ok(MAX, 0, size));
			assert_false(range_ok(0, MAX, size));
		}
		if (size > 0) {
			assert_true(range_ok(size - 1, 1, size));
			assert_true(range_ok(1, size - 1, size));
			assert_false(range_ok(size - 1, 2, size));
			assert_false(range_ok(1, size, size));
			/* A sum that wraps to something small is not in range. */
			assert_false(range_ok(size, MAX - size + 1, size));
			assert_false(range_ok(1, MAX, size));
		}
	}
}

static void test_div_ceil(void **state)
{
	static const uint64_t divisors[] = { 1, 2, 3, 512, 65536, 1ull << 63, MAX };

	(void)state;
	for (size_t i = 0; i < COUNT(divisors); i++) {
		uint64_t b = divisors[i];

		assert_int_equal(div_ceil(0, b), 0);
		assert_int_equal(div_ceil(1, b), 1);
		assert_int_equal(div_ceil(b, b), 1);
		assert_int_equal(div_ceil(b - 1, b), b > 1);
		if (b < MAX)
			assert_int_equal(div_ceil(b + 1, b), 2);
		/* a + b - 1 would wrap. */
		assert_int_equal(div_ceil(MAX, b), MAX / b + (MAX % b > 0));
	}
	assert_int_equal(div_ceil(MAX, 1), MAX);
	assert_int_equal(div_ceil(MAX, MAX), 1);
	assert_int_equal(div_ceil(MAX - 1, MAX), 1);
	assert_int_equal(div_ceil(MAX, 512), 1ull << 55);
}

static void test_round_up(void **state)
{
	static const struct {
		uint64_t a, b;
		bool ok;
		uint64_t rounded;
	} cases[] = {
		{ 0, 512, true, 0 },
		{ 1, 512, true, 512 },
		{ 511, 512, true, 512 },
		{ 512, 512, true, 512 },
		{ 513, 512, true, 1024 },
		{ 7, 1, true, 7 },
		{ 8, 3, true, 9 },
		{ MAX, 1, true, MAX },
		{ MAX - 510, 512, false, 0 },
		{ MAX - 511, 512, true, MAX - 511 },
		{ MAX, 512, false, 0 },
		{ (1ull << 63) + 1, 1ull << 63, false, 0 },
		{ 1ull << 63, 1ull << 63, true, 1ull << 63 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t rounded = 0;

		assert_int_equal(checked_round_up(cases[i].a, cases[i].b, &rounded), cases[i].ok);
		if (cases[i].ok) {
			assert_int_equal(rounded, cases[i].rounded);
			assert_int_equal(round_up(cases[i].a, cases[i].b), cases[i].rounded);
		}
	}
	assert_int_equal(round_up(INT64_MAX, 512), 1ull << 63);
}

static void test_power_of_two(void **state)
{
	(void)state;
	assert_false(is_power_of_two(0));
	for (int bit = 0; bit < 64; bit++) {
		uint64_t v = 1ull << bit;

		assert_true(is_power_of_two(v));
		if (bit > 1)
			assert_false(is_power_of_two(v - 1));
		if (bit > 0)
			assert_false(is_power_of_two(v + 1));
	}
	assert_false(is_power_of_two(MAX));
}

static void test_min_max(void **state)
{
	static const uint64_t pairs[][2] = { { 0, 0 }, { 0, 1 }, { 1, 0 }, { MAX - 1, MAX },
		{ MAX, 0 }, { (1ull << 32) - 1, 1ull << 32 }, { INT64_MAX, 1ull << 63 } };

	(void)state;
	for (size_t i = 0; i < COUNT(pairs); i++) {
		uint64_t a = pairs[i][0], b = pairs[i][1];
		uint64_t low = a < b ? a : b, high = a < b ? b : a;

		assert_int_equal(min_u64(a, b), low);
		assert_int_equal(min_u64(b, a), low);
		assert_int_equal(max_u64(a, b), high);
		assert_int_equal(max_u64(b, a), high);
	}
}

static void test_wire(void **state)
{
	static const uint8_t bytes[] = { 0xff, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88 };
	uint8_t out[9] = { 0 };

	(void)state;
	/* From an odd address, as tables have them. */
	assert_int_equal(get_be16(bytes + 1), 0x0102);
	assert_int_equal(get_le16(bytes + 1), 0x0201);
	assert_int_equal(get_be32(bytes + 1), 0x01020304);
	assert_int_equal(get_le32(bytes + 1), 0x04030201);
	assert_int_equal(get_be64(bytes + 1), 0x0102030405060788);
	assert_int_equal(get_le64(bytes + 1), 0x8807060504030201);
	put_be64(out + 1, 0x0102030405060788);
	assert_bytes(out + 1, bytes + 1, 8);
	put_le64(out + 1, 0x8807060504030201);
	assert_bytes(out + 1, bytes + 1, 8);
	put_be32(out + 1, 0x8899aabb);
	assert_int_equal(get_le32(out + 1), 0xbbaa9988);
	put_le16(out + 1, 0x1234);
	assert_int_equal(get_be16(out + 1), 0x3412);
	assert_int_equal(out[0], 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_mul),
		cmocka_unit_test(test_range_ok),
		cmocka_unit_test(test_div_ceil),
		cmocka_unit_test(test_round_up),
		cmocka_unit_test(test_power_of_two),
		cmocka_unit_test(test_min_max),
		cmocka_unit_test(test_wire),
	};

	return run_unit_tests(tests);
}
