/* SPDX-License-Identifier: Apache-2.0 */
/* Names as they stand in log lines, and the sentences that say why. */
#include "support.h"

#include "imgfs/log.h"

static void test_quote(void **state)
{
	static const struct {
		const char *bytes;
		size_t length;
		const char *quoted;
	} cases[] = {
		{ "", 0, "''" },
		{ "a", 1, "'a'" },
		{ "a b.qcow2", 9, "'a b.qcow2'" },
		{ "~!@#$%^&*()[]{}", 15, "'~!@#$%^&*()[]{}'" },
		{ "'", 1, "'\\x27'" },
		{ "\\", 1, "'\\x5c'" },
		{ "\n", 1, "'\\x0a'" },
		{ "a\0b", 3, "'a\\x00b'" },
		{ "\x1b[31m", 5, "'\\x1b[31m'" },
		{ "\x1f\x20\x7e\x7f", 4, "'\\x1f ~\\x7f'" },
		{ "caf\xc3\xa9", 5, "'caf\\xc3\\xa9'" },
		{ "\x80\xff", 2, "'\\x80\\xff'" },
		{ "100%s%n", 7, "'100%s%n'" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_string_equal(
			quote_bytes(cases[i].bytes, cases[i].length).text, cases[i].quoted);
		if (strlen(cases[i].bytes) == cases[i].length)
			assert_string_equal(quote(cases[i].bytes).text, cases[i].quoted);
	}
}

/* Whatever the length, the text is closed, terminated and inside its room. */
static void test_quote_long(void **state)
{
	static const char bytes[] = { 'n', '\n' };
	char name[2000];

	(void)state;
	for (size_t kind = 0; kind < COUNT(bytes); kind++) {
		memset(name, bytes[kind], sizeof(name));
		for (size_t length = 0; length <= sizeof(name); length += length < 300 ? 1 : 100) {
			struct quoted q = quote_bytes(name, length);
			size_t used = strnlen(q.text, sizeof(q.text));
			size_t whole = 2 + length * (kind ? 4 : 1);

			assert_true(used < sizeof(q.text));
			assert_int_equal(q.text[0], '\'');
			assert_int_equal(q.text[used - 1], '\'');
			if (used == whole)
				continue;
			/* Cut only where it must be, and it shows. */
			assert_true(whole + 8 > sizeof(q.text));
			assert_true(used + 16 > sizeof(q.text));
			assert_memory_equal(q.text + used - 4, "...'", 4);
		}
	}
}

static void test_why(void **state)
{
	char name[1000];
	struct why why;

	(void)state;
	assert_int_equal(why_set(&why, -EINVAL, "it is %d bytes", 7), -EINVAL);
	assert_string_equal(why.text, "it is 7 bytes");
	why_prefix(&why, "its parent %s", "'b'");
	assert_string_equal(why.text, "its parent 'b': it is 7 bytes");
	/* Nobody wants to know. */
	assert_int_equal(why_set(NULL, -EIO, "nothing"), -EIO);
	why_prefix(NULL, "nothing");
	/* More than there is room for is cut. */
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	why_prefix(&why, "%s", name);
	assert_int_equal(strlen(why.text), sizeof(why.text) - 1);
	assert_int_equal(why_set(&why, -EIO, "%s", name), -EIO);
	assert_int_equal(strlen(why.text), sizeof(why.text) - 1);
	why_prefix(&why, "short");
	assert_memory_equal(why.text, "short: nnn", 10);
	assert_int_equal(strlen(why.text), sizeof(why.text) - 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quote),
		cmocka_unit_test(test_quote_long),
		cmocka_unit_test(test_why),
	};

	return run_unit_tests(tests);
}
