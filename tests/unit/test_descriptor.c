/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor of VMDK views: its very text, what each option changes in it and nothing else,
 * geometries, and names.
 */
#include "sources.h"

#include "fs/view/descriptor.h"

#define SECTOR 512ull

static const struct descriptor_extent sparse = { "SPARSE", "", "x.vmdk" };

/* The text for a disk of so many bytes. */
static const char *text_of(uint64_t size, const struct view_options *options,
	const struct descriptor_extent *extent, uint64_t content)
{
	static char text[DESCRIPTOR_BYTES];
	struct image *image = source_empty(size);
	struct view view = { .image = image, .options = options };
	size_t length;

	memset(text, 'x', sizeof(text));
	length = descriptor_write(&view, "monolithicSparse", extent, content, text);
	assert_int_equal(length, strlen(text));
	image_unref(image);
	return text;
}

static void test_text(void **state)
{
	static const char expected[] = "# Disk DescriptorFile\n"
				       "version=1\n"
				       "encoding=\"UTF-8\"\n"
				       "CID=89abcdef\n"
				       "parentCID=ffffffff\n"
				       "isNativeSnapshot=\"no\"\n"
				       "createType=\"monolithicSparse\"\n"
				       "\n"
				       "# Extent description\n"
				       "RW 83886080 SPARSE \"x.vmdk\"\n"
				       "\n"
				       "# The Disk Data Base\n"
				       "#DDB\n"
				       "\n"
				       "ddb.adapterType = \"lsilogic\"\n"
				       "ddb.geometry.cylinders = \"5221\"\n"
				       "ddb.geometry.heads = \"255\"\n"
				       "ddb.geometry.sectors = \"63\"\n"
				       "ddb.longContentID = \"0123456789abcdef0123456789abcdef\"\n"
				       "ddb.toolsInstallType = \"4\"\n"
				       "ddb.toolsVersion = \"2147483647\"\n"
				       "ddb.virtualHWVersion = \"4\"\n";

	(void)state;
	assert_string_equal(
		text_of(40 * GIB, &view_options_default, &sparse, 0x0123456789abcdef), expected);
}

/* The text has the one line where the default has the other. */
static void assert_changed(const struct view_options *options, const char *from, const char *to)
{
	char expected[DESCRIPTOR_BYTES];
	const char *text = text_of(40 * GIB, &view_options_default, &sparse, 7);
	const char *at = strstr(text, from);

	assert_non_null(at);
	snprintf(expected, sizeof(expected), "%.*s%s%s", (int)(at - text), text, to,
		at + strlen(from));
	assert_string_equal(text_of(40 * GIB, options, &sparse, 7), expected);
}

static void test_options(void **state)
{
	struct view_options options = view_options_default;

	(void)state;
	options.adapter = ADAPTER_BUSLOGIC;
	assert_changed(&options, "\"lsilogic\"", "\"buslogic\"");
	options.adapter = ADAPTER_IDE;
	assert_changed(&options,
		"\"lsilogic\"\nddb.geometry.cylinders = \"5221\"\nddb.geometry.heads = \"255\"",
		"\"ide\"\nddb.geometry.cylinders = \"16383\"\nddb.geometry.heads = \"16\"");
	options = view_options_default;
	options.hardware_version = 21;
	assert_changed(&options, "virtualHWVersion = \"4\"", "virtualHWVersion = \"21\"");
	options = view_options_default;
	options.tools_version = 12389;
	assert_changed(&options, "toolsVersion = \"2147483647\"", "toolsVersion = \"12389\"");
	options = view_options_default;
	options.sector_size = 4096;
	assert_changed(&options, "ddb.longContentID = \"00000000000000070000000000000007\"\n",
		"ddb.logicalSectorSize = \"4096\"\n"
		"ddb.longContentID = \"00000000000000070000000000000007\"\n"
		"ddb.physicalSectorSize = \"4096\"\n");
	/* That of a flat VMDK is for those who write it to say. */
	options = view_options_default;
	options.monolithic_flat = true;
	assert_changed(&options, "", "");
}

static void test_extent_line(void **state)
{
	static const struct descriptor_extent flat = { "FLAT", " 0", "a b-flat.vmdk" };

	(void)state;
	/* A sector that is not whole is one. */
	assert_non_null(strstr(
		text_of(1, &view_options_default, &flat, 1), "\nRW 1 FLAT \"a b-flat.vmdk\" 0\n"));
	assert_non_null(strstr(
		text_of(512, &view_options_default, &sparse, 1), "\nRW 1 SPARSE \"x.vmdk\"\n"));
	assert_non_null(strstr(
		text_of(513, &view_options_default, &sparse, 1), "\nRW 2 SPARSE \"x.vmdk\"\n"));
}

static void test_longest(void **state)
{
	struct view_options options = { ADAPTER_LSILOGIC, UINT32_MAX, UINT32_MAX, 4096, true };
	struct descriptor_extent extent = { "SPARSE", " 0", "" };

	(void)state;
	memset(extent.name, 'n', sizeof(extent.name) - 1);
	assert_true(strlen(text_of(8ull << 50, &options, &extent, UINT64_MAX)) < 1024);
}

/* Cylinders rounded down, at least one, at most what the field holds. */
static void test_geometry(void **state)
{
	static const struct {
		enum vmdk_adapter adapter;
		uint64_t sectors, cylinders;
	} cases[] = {
		{ ADAPTER_LSILOGIC, 1, 1 },
		{ ADAPTER_LSILOGIC, 16064, 1 },
		{ ADAPTER_LSILOGIC, 2 * 16065 - 1, 1 },
		{ ADAPTER_LSILOGIC, 2 * 16065, 2 },
		{ ADAPTER_LSILOGIC, 65535ull * 16065 - 1, 65534 },
		{ ADAPTER_LSILOGIC, 65535ull * 16065, 65535 },
		{ ADAPTER_LSILOGIC, 65536ull * 16065, 65535 },
		{ ADAPTER_BUSLOGIC, 83886080, 5221 },
		{ ADAPTER_BUSLOGIC, 1ull << 40, 65535 },
		{ ADAPTER_IDE, 1, 1 },
		{ ADAPTER_IDE, 1007, 1 },
		{ ADAPTER_IDE, 1008, 1 },
		{ ADAPTER_IDE, 2 * 1008 - 1, 1 },
		{ ADAPTER_IDE, 2 * 1008, 2 },
		{ ADAPTER_IDE, 10485760, 10402 },
		{ ADAPTER_IDE, 16383 * 1008 - 1, 16382 },
		{ ADAPTER_IDE, 16383 * 1008, 16383 },
		{ ADAPTER_IDE, 16384 * 1008, 16383 },
		{ ADAPTER_IDE, 1ull << 40, 16383 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct view_options options = view_options_default;
		char lines[160];

		options.adapter = cases[i].adapter;
		snprintf(lines, sizeof(lines),
			"\nddb.geometry.cylinders = \"%" PRIu64 "\"\nddb.geometry.heads = \"%s\"\n"
			"ddb.geometry.sectors = \"63\"\n",
			cases[i].cylinders, cases[i].adapter == ADAPTER_IDE ? "16" : "255");
		assert_non_null(
			strstr(text_of(cases[i].sectors * SECTOR, &options, &sparse, 1), lines));
	}
}

static void test_content_id(void **state)
{
	static const struct {
		uint64_t content;
		const char *line, *longer;
	} cases[] = {
		{ 0, "\nCID=00000001\n", "\"00000000000000000000000000000001\"" },
		{ 0x1234567800000000, "\nCID=00000001\n", "\"12345678000000001234567800000001\"" },
		{ 0x12345678fffffffd, "\nCID=fffffffd\n", "\"12345678fffffffd12345678fffffffd\"" },
		{ 0x12345678fffffffe, "\nCID=00000001\n", "\"12345678fffffffe1234567800000001\"" },
		{ UINT64_MAX, "\nCID=00000001\n", "\"ffffffffffffffffffffffff00000001\"" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *text = text_of(MIB, &view_options_default, &sparse, cases[i].content);

		assert_non_null(strstr(text, cases[i].line));
		assert_non_null(strstr(text, cases[i].longer));
	}
}

static void test_names(void **state)
{
	static const char *const good[] = { "a", "a b.vmdk", " ", "~", "a=b", "RW 1 FLAT",
		"back\\slash", "CID=1", "parentFileName" };
	static const char *const bad[] = { "", "a\"b", "a/b", "a\nb", "a\rb", "a\tb", "\x7f",
		"caf\xc3\xa9", "\x80", "parentFileNameHint", "my PARENTFILENAMEHINT=x",
		"a changeTrackPath" };
	char name[EXTENT_NAME_MAX + 1];

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(descriptor_name_ok(good[i], strlen(good[i])));
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(descriptor_name_ok(bad[i], strlen(bad[i])));
	memset(name, 'n', sizeof(name));
	assert_true(descriptor_name_ok(name, EXTENT_NAME_MAX - 1));
	assert_false(descriptor_name_ok(name, EXTENT_NAME_MAX));
	/* What is behind the name does not count. */
	assert_true(descriptor_name_ok("ab\"", 2));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_text),
		store_test(test_options),
		store_test(test_extent_line),
		store_test(test_longest),
		store_test(test_geometry),
		store_test(test_content_id),
		store_test(test_names),
	};

	return run_unit_tests(tests);
}
