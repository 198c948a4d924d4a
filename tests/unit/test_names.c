/* SPDX-License-Identifier: Apache-2.0 */
/* What names mean (names.h), and which names a directory shows (naming.c). */
#include "support.h"

#include <limits.h>

#include "fs/catalog/catalog_private.h"
#include "imgfs/names.h"

static void test_suffix(void **state)
{
	static const struct {
		const char *name, *suffix;
		size_t stem;
	} cases[] = {
		{ "a.qcow2", "qcow2", 1 },
		{ "a.b.qcow2", "qcow2", 3 },
		{ "a.qcow2.qcow2", "qcow2", 7 },
		{ "a", "", 1 },
		{ "a.", "", 2 },
		{ ".a", "", 2 },
		{ ".qcow2", "", 6 },
		{ ".a.qcow2", "qcow2", 2 },
		{ "..qcow2", "qcow2", 1 },
		{ "", "", 0 },
		{ "a.QCow2", "QCow2", 1 },
		{ "a.img", "img", 1 },
		{ "a.qcow", "qcow", 1 },
		{ "a.raw", "raw", 1 },
		{ "a.dd", "dd", 1 },
		{ "a.vmdk", "vmdk", 1 },
		{ "a.VHD", "VHD", 1 },
		{ "a.vpc", "vpc", 1 },
		{ "a.vhdx", "vhdx", 1 },
		{ "a.vdi", "vdi", 1 },
		{ "a.ova", "ova", 1 },
		{ "a.txt", "txt", 5 },
		{ "a.qcow3", "qcow3", 7 },
		{ "a.qcow2 ", "qcow2 ", 8 },
		{ "a.raw\n", "raw\n", 6 },
		{ "a\xff\xfe.raw", "raw", 3 },
		{ "a\n.raw", "raw", 2 },
		{ " .raw", "raw", 1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_string_equal(name_suffix(cases[i].name), cases[i].suffix);
		assert_int_equal(name_stem_length(cases[i].name), cases[i].stem);
		assert_true(name_has_suffix(cases[i].name, cases[i].suffix));
		assert_int_equal(
			name_suffix_known(cases[i].suffix), cases[i].stem != strlen(cases[i].name));
	}
	assert_true(name_has_suffix("a.RAW", "raw"));
	assert_false(name_has_suffix("a.raw", "ra"));
	assert_false(name_has_suffix("raw", "raw"));
	assert_false(name_suffix_known(""));
	assert_false(name_suffix_known("qcow22"));
}

static void test_extent(void **state)
{
	static const struct {
		const char *name;
		size_t stem; /* 0: no extent */
	} cases[] = {
		{ "x-flat.vmdk", 1 },
		{ "x-delta.vmdk", 1 },
		{ "x-sesparse.vmdk", 1 },
		{ "x-ctk.vmdk", 1 },
		{ "x-s001.vmdk", 1 },
		{ "x-f001.vmdk", 1 },
		{ "x-S001.VMDK", 1 },
		{ "x-FLAT.vmdk", 1 },
		{ "x-s0001.vmdk", 1 },
		{ "x-000001-delta.vmdk", 8 },
		{ "x-000001-s001.vmdk", 8 },
		{ "a-flat-flat.vmdk", 6 },
		{ "x.vmdk", 0 },
		{ "x-000001.vmdk", 0 }, /* a snapshot's descriptor */
		{ "x-s01.vmdk", 0 },
		{ "x-s.vmdk", 0 },
		{ "x-001.vmdk", 0 },
		{ "xs001.vmdk", 0 },
		{ "x-e001.vmdk", 0 },
		{ "x-s001a.vmdk", 0 },
		{ "xflat.vmdk", 0 },
		{ "-flat.vmdk", 0 },
		{ "-s001.vmdk", 0 },
		{ "001.vmdk", 0 },
		{ "s001.vmdk", 0 },
		{ "x-flat.raw", 0 },
		{ "x-flat", 0 },
		{ "x-flat.vmdk.raw", 0 },
		{ ".vmdk", 0 },
		{ "", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		size_t stem = 0;
		bool is = name_is_extent(cases[i].name, &stem);

		if (is != (cases[i].stem > 0))
			print_message("# %s\n", cases[i].name);
		assert_int_equal(is, cases[i].stem > 0);
		if (is)
			assert_int_equal(stem, cases[i].stem);
	}
}

static void test_family(void **state)
{
	static const struct {
		const char *top, *name;
		bool family;
	} cases[] = {
		{ "x.vmdk", "x-flat.vmdk", true },
		{ "x.vmdk", "x.raw", true },
		{ "x.vmdk", "x_1", true },
		{ "x.vmdk", "x@snap.qcow2", true },
		{ "x.vmdk", "x-", true },
		{ "x.vmdk", "x.", true },
		{ "bo.qcow2", "bob.raw", false },
		{ "bo.qcow2", "bo.raw", true },
		{ "bob.qcow2", "bo.raw", false },
		{ "bo.qcow2", "bo", false },
		{ "bo", "bo.raw", true },
		{ "bo", "bo", false },
		{ "bo.qcow2", "bo raw", false },
		{ "bo.qcow2", "bo+1.raw", false },
		{ "bo.qcow2", "Bo.raw", false },
		{ "bo.qcow2", "xbo.raw", false },
		{ "bo.tar", "bo.raw", false }, /* .tar is no image suffix: the stem is "bo.tar" */
		{ "bo.tar", "bo.tar.raw", true },
		/* A delta's number is not part of the disk's stem. */
		{ "x-000001.vmdk", "x.vmdk", true },
		{ "x-000001.vmdk", "x-000001-delta.vmdk", true },
		{ "x-000002.vmdk", "x-000001.vmdk", true },
		{ "x-999999.qcow2", "x.qcow2", true },
		{ "x-000001.vmdk", "xy.vmdk", false },
		{ "x-00001.vmdk", "x.vmdk", false },
		{ "x-0000001.vmdk", "x.vmdk", false },
		{ "x_000001.vmdk", "x.vmdk", false },
		{ "x-00000a.vmdk", "x.vmdk", false },
		{ "x000001.vmdk", "x.vmdk", false },
		/* Nothing would be left of it. */
		{ "-000001.vmdk", ".vmdk", false },
		{ "-000001.vmdk", "-000001.raw", true },
		{ "x-000001-000002.vmdk", "x-000001.vmdk", true },
		{ "x-000001-000002.vmdk", "x.vmdk", false },
		{ "", "", false },
		{ "", ".raw", false },
		{ "\xff.raw", "\xff-flat.vmdk", true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		bool family = name_is_family(cases[i].top, cases[i].name);

		if (family != cases[i].family)
			print_message("# %s, %s\n", cases[i].top, cases[i].name);
		assert_int_equal(family, cases[i].family);
	}
}

/* ---- naming ---- */

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct naming *)a)->file, ((const struct naming *)b)->file);
}

/* What becomes of a file: 'w' keeps its whole name, 's' its stem, '-' is hidden. */
struct expected_name {
	const char *file;
	char fate;
};

static int decide(
	struct naming *files, size_t count, const char *const *directories, size_t directory_count)
{
	static struct choices choices;
	struct naming_rules rules = {
		.choices = &choices,
		.directories = directories,
		.directory_count = directory_count,
	};

	assert_int_equal(choices_parse(&choices, CHOICES_DEFAULT, NULL, NULL, NULL), 0);
	return naming_decide(files, count, &rules);
}

/* With a choice of the suffix that goes by either name. */
static int view_name(const char *file, bool whole, const char *suffix, char **name)
{
	struct choice choice = { .base = BASE_ANY };

	snprintf(choice.suffix, sizeof(choice.suffix), "%s", suffix);
	return naming_view_name(file, whole, &choice, name);
}

static void check_directory(const struct expected_name *expected, size_t count,
	const char *const *directories, size_t directory_count)
{
	struct naming files[16];

	assert_true(count <= COUNT(files));
	memset(files, 0xa5, sizeof(files));
	for (size_t i = 0; i < count; i++)
		files[i].file = expected[i].file;
	qsort(files, count, sizeof(*files), compare_files);
	assert_int_equal(decide(files, count, directories, directory_count), 0);
	for (size_t i = 0; i < count; i++) {
		size_t n = 0;
		char fate = files[i].hidden ? '-' : files[i].whole ? 'w' : 's';

		while (strcmp(expected[n].file, files[i].file) != 0)
			n++;
		if (fate != expected[n].fate)
			print_message("# %s: %c, not %c\n", files[i].file, fate, expected[n].fate);
		assert_int_equal(fate, expected[n].fate);
	}
}

#define check(directories, ...)                                                              \
	do {                                                                                 \
		static const struct expected_name expected_[] = __VA_ARGS__;                 \
		static const char *const directories_[] = directories;                       \
		check_directory(                                                             \
			expected_, COUNT(expected_), directories_, COUNT(directories_) - 1); \
	} while (0)
#define NONE         \
	{            \
		NULL \
	}
#define LIST(...)                 \
	{                         \
		__VA_ARGS__, NULL \
	}

static void test_collisions(void **state)
{
	(void)state;
	check(NONE, { { "a.qcow2", 's' }, { "b.vmdk", 's' } });
	check(NONE, { { "a.qcow2", 'w' }, { "a.vmdk", 'w' }, { "b.vmdk", 's' } });
	check(NONE, { { "a.qcow2", 'w' }, { "a.vmdk", 'w' }, { "a.raw", 'w' }, { "a", 'w' } });
	/* Names that sort between those of one stem. */
	check(NONE, { { "a.qcow2", 'w' }, { "a-b.qcow2", 's' }, { "a.b.raw", 's' },
			    { "a.vmdk", 'w' }, { "a1.raw", 's' } });
	check(NONE, { { "a.IMG", 'w' }, { "a.img", 'w' } });
	check(NONE, { { "A.img", 's' }, { "a.img", 's' } });
	check(NONE, { { "a.qcow2", 's' }, { "a.qcow2.raw", 's' }, { "a.raw.raw", 's' } });
	check(NONE, { { "a.tar", 's' }, { "a.raw", 's' } });
	check(NONE, { { "\xff.raw", 'w' }, { "\xff.img", 'w' }, { "\xfe.img", 's' } });
	check(NONE, { { "a\n.raw", 'w' }, { "a\n.img", 'w' } });
	assert_int_equal(decide(NULL, 0, NULL, 0), 0);
}

static void test_directories(void **state)
{
	(void)state;
	check(LIST("a.raw"), { { "a.qcow2", 'w' }, { "b.qcow2", 's' } });
	check(LIST("a.vmdk"), { { "a.qcow2", 'w' } });
	check(LIST("a.qcow2"), { { "a.img", 'w' } });
	check(LIST("a", "a.img", "a.raw.d", "b.raw", "c.txt"),
		{ { "a.qcow2", 's' }, { "b", 'w' }, { "c.img", 's' } });
}

static void test_hidden(void **state)
{
	(void)state;
	check(NONE, { { ".a.qcow2", '-' }, { "a.raw", 's' } });
	check(NONE, { { "x.vmdk", 's' }, { "x-flat.vmdk", '-' }, { "x-s001.vmdk", '-' },
			    { "x-ctk.vmdk", '-' }, { "y-flat.vmdk", 's' } });
	/* An extent without its descriptor is a file like any other. */
	check(NONE, { { "x-flat.vmdk", 's' } });
	check(NONE, { { "x.raw", 's' }, { "x-flat.vmdk", 's' } });
	check(NONE, { { "x.VMDK", 's' }, { "x-flat.VMDK", '-' } });
	check(NONE, { { "x.vmdk", 's' }, { "x-flat.VMDK", '-' } });
	check(NONE, { { "x.vmdk", 's' }, { "x-000001.vmdk", 's' }, { "x-000001-delta.vmdk", '-' },
			    { "x-000001-s001.vmdk", '-' } });
	/* What is hidden takes no stem from anybody. */
	check(NONE, { { "x.vmdk", 's' }, { "x-flat.vmdk", '-' }, { "x-flat.raw", 's' } });
}

static void test_view_names(void **state)
{
	static const struct {
		const char *file, *suffix;
		bool whole;
		const char *name;
	} cases[] = {
		{ "a.qcow2", "qcow2", false, "a.qcow2" },
		{ "a.qcow2", "raw", false, "a.raw" },
		{ "a.b.img", "vmdk", false, "a.b.vmdk" },
		{ "a.txt", "raw", false, "a.txt.raw" },
		{ "a", "raw", false, "a.raw" },
		{ "a.qcow2", "raw", true, "a.qcow2.raw" },
		{ "a.qcow2", "qcow2", true, "a.qcow2" },
		{ "a.QCOW2", "qcow2", true, "a.QCOW2" },
		{ "a.QCOW2", "qcow2", false, "a.qcow2" },
		{ "a.qcow", "qcow2", true, "a.qcow.qcow2" },
		{ "a", "raw", true, "a.raw" },
		{ "\xff\n.img", "raw", false, "\xff\n.raw" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *name = NULL;

		assert_int_equal(
			view_name(cases[i].file, cases[i].whole, cases[i].suffix, &name), 0);
		assert_string_equal(name, cases[i].name);
		free(name);
	}
}

/* A name of so many bytes, made of x, with the suffix at its end. */
static const char *long_name(size_t length, const char *suffix)
{
	static char name[NAME_MAX + 2];

	memset(name, 'x', length);
	strcpy(name + length - strlen(suffix), suffix);
	return name;
}

static void test_long_names(void **state)
{
	char *name;

	(void)state;
	/* The suffix gives way to a shorter one, or to one that still fits. */
	assert_int_equal(view_name(long_name(NAME_MAX, ".qcow2"), false, "vmdk", &name), 0);
	assert_int_equal(strlen(name), NAME_MAX - 1);
	free(name);
	assert_int_equal(view_name(long_name(NAME_MAX - 1, ".vmdk"), false, "qcow2", &name), 0);
	assert_int_equal(strlen(name), NAME_MAX);
	free(name);
	assert_int_equal(
		view_name(long_name(NAME_MAX, ".vmdk"), false, "qcow2", &name), -ENAMETOOLONG);
	assert_int_equal(view_name(long_name(NAME_MAX - 4, ""), false, "raw", &name), 0);
	assert_int_equal(strlen(name), NAME_MAX);
	free(name);
	assert_int_equal(
		view_name(long_name(NAME_MAX - 3, ""), false, "raw", &name), -ENAMETOOLONG);
	assert_int_equal(
		view_name(long_name(NAME_MAX, ".raw"), true, "vmdk", &name), -ENAMETOOLONG);
	assert_int_equal(view_name(long_name(NAME_MAX, ".raw"), true, "raw", &name), 0);
	assert_int_equal(strlen(name), NAME_MAX);
	free(name);
}

static void test_long_extent(void **state)
{
	char descriptor[NAME_MAX + 1], extent[NAME_MAX + 1];
	struct naming files[2];

	(void)state;
	/* The longest extent that there can be, with its descriptor and without. */
	strcpy(extent, long_name(NAME_MAX, "-flat.vmdk"));
	memcpy(descriptor, extent, NAME_MAX - 10);
	strcpy(descriptor + NAME_MAX - 10, ".vmdk");
	files[0].file = extent;
	files[1].file = descriptor;
	qsort(files, 2, sizeof(*files), compare_files);
	decide(files, 2, NULL, 0);
	assert_int_equal(files[0].hidden, files[0].file == extent);
	assert_int_equal(files[1].hidden, files[1].file == extent);
	files[0].file = extent;
	decide(files, 1, NULL, 0);
	assert_false(files[0].hidden);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suffix),
		cmocka_unit_test(test_extent),
		cmocka_unit_test(test_family),
		cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_hidden),
		cmocka_unit_test(test_view_names),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_long_extent),
	};

	return run_unit_tests(tests);
}
