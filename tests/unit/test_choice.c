/* SPDX-License-Identifier: Apache-2.0 */
/* Which views a list of words names. */
#include "support.h"

#include "imgfs/choice.h"

static struct choices chosen;

static const struct choice *find(const char *suffix, enum choice_base base)
{
	for (size_t i = 0; i < chosen.count; i++) {
		if (strcmp(chosen.list[i].suffix, suffix) == 0 && chosen.list[i].base == base)
			return &chosen.list[i];
	}
	return NULL;
}

static void parse(const char *list, const char *vmdk, const char *vhd)
{
	struct why why = { "" };

	chosen.options = view_options_default;
	assert_int_equal(choices_parse(&chosen, list, vmdk, vhd, &why), 0);
}

static void test_default(void **state)
{
	(void)state;
	parse(CHOICES_DEFAULT, NULL, NULL);
	assert_int_equal(chosen.count, 3);
	assert_string_equal(chosen.list[0].format->name, "qcow2");
	assert_string_equal(chosen.list[1].format->name, "raw");
	assert_string_equal(chosen.list[2].format->name, "vmdk");
	for (size_t i = 0; i < chosen.count; i++) {
		assert_int_equal(chosen.list[i].base, BASE_ANY);
		assert_string_equal(chosen.list[i].suffix, chosen.list[i].format->name);
	}
}

static void test_flavours(void **state)
{
	(void)state;
	parse("vmdk:vhd", "stream", "fixed");
	assert_string_equal(find("vmdk", BASE_ANY)->format->name, "vmdk-stream");
	assert_string_equal(find("vhd", BASE_ANY)->format->name, "vhd-fixed");
	parse("vmdk:stream.vmdk", NULL, NULL);
	assert_string_equal(find("vmdk", BASE_ANY)->format->name, "vmdk");
	assert_string_equal(find("stream.vmdk", BASE_ANY)->format->name, "vmdk-stream");
}

/* The descriptor and its extent, for the stem and for the whole name. */
static void test_pairs(void **state)
{
	static const enum choice_base bases[] = { BASE_STEM, BASE_WHOLE };

	(void)state;
	parse("vmdk:flat.vmdk", "flat", NULL);
	assert_int_equal(chosen.count, 8);
	for (size_t i = 0; i < COUNT(bases); i++) {
		const struct choice *one = find("vmdk", bases[i]);
		const struct choice *two = find("flat.vmdk", bases[i]);

		assert_string_equal(one->format->name, "vmdk-flat");
		assert_ptr_equal(one->format, two->format);
		assert_ptr_equal(find("-flat.vmdk", bases[i])->format, one->format->second);
		assert_ptr_equal(find("flat-flat.vmdk", bases[i])->format, one->format->second);
	}
}

/* Numbers of nodes are the same as long as the bytes are. */
static void test_seeds(void **state)
{
	struct choices before;

	(void)state;
	parse("raw:flat.vmdk:vmdk", NULL, NULL);
	before = chosen;
	for (size_t i = 0; i < before.count; i++) {
		for (size_t j = 0; j < i; j++)
			assert_true(before.list[i].seed != before.list[j].seed);
	}
	parse("vmdk:raw", NULL, NULL);
	assert_true(find("raw", BASE_ANY)->seed == before.list[0].seed);
	assert_true(find("vmdk", BASE_ANY)->seed == before.list[before.count - 1].seed);
	chosen.options.adapter = ADAPTER_IDE;
	assert_int_equal(choices_parse(&chosen, "vmdk", NULL, NULL, NULL), 0);
	assert_true(chosen.list[0].seed != before.list[before.count - 1].seed);
}

static void test_nonsense(void **state)
{
	static const char *const lists[] = { "", ":", "raw::raw", "raw:raw", "nothing", "RAW",
		"raw ", "vmdk:qcow2:vmdk", "0123456789012345678901234567890123456789" };
	struct why why;

	(void)state;
	for (size_t i = 0; i < COUNT(lists); i++) {
		why.text[0] = '\0';
		assert_int_equal(choices_parse(&chosen, lists[i], NULL, NULL, &why), -EINVAL);
		assert_true(why.text[0] != '\0');
	}
	assert_int_equal(choices_parse(&chosen, "vmdk", "thick", NULL, &why), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default),
		cmocka_unit_test(test_flavours),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_seeds),
		cmocka_unit_test(test_nonsense),
	};

	return run_unit_tests(tests);
}
