/* SPDX-License-Identifier: Apache-2.0 */
/* The flat VMDK view: what the descriptor calls its extent, and the extent. */
#include "sources.h"

#define SECTOR 512ull

static struct view *open_as(
	struct image *image, const char *format, const char *name, bool monolithic, int error)
{
	static struct view_options options;
	const struct view_format *flat = view_format("vmdk-flat");
	struct view *view = NULL;
	struct why why = { "" };
	int r;

	options = view_options_default;
	options.monolithic_flat = monolithic;
	r = view_open_as(image, strcmp(format, "extent") == 0 ? flat->second : flat, name, &options,
		&view, &why);
	if (r != error)
		print_message("# %s: %d, %s\n", name ? name : "-", r, why.text);
	assert_int_equal(r, error);
	assert_true(r == 0 || why.text[0] != '\0');
	return view;
}

static void assert_text(struct image *image, const char *name, bool monolithic, const char *lines)
{
	struct view *view = open_as(image, "descriptor", name, monolithic, 0);
	uint64_t size;
	char *text = (char *)read_view(view, &size);

	text[size] = '\0';
	assert_int_equal(strlen(text), size);
	if (!strstr(text, lines))
		print_message("# no %s in %s", lines, text);
	assert_non_null(strstr(text, lines));
	assert_int_equal(text[size - 1], '\n');
	free(text);
	view_close(view);
}

static void test_names(void **state)
{
	static const char *const names[][2] = {
		{ "web.vmdk", "web-flat.vmdk" },
		{ "web.flat.vmdk", "web.flat-flat.vmdk" },
		{ "web.qcow2.vmdk", "web.qcow2-flat.vmdk" },
		{ "web.vmdk.vmdk", "web.vmdk-flat.vmdk" },
		{ "a b@c.vmdk", "a b@c-flat.vmdk" },
		{ "WEB.VMDK", "WEB-flat.vmdk" },
		{ "odd", "odd-flat.vmdk" },
		{ NULL, "x.flat-flat.vmdk" },
	};
	struct image *image = source_empty(10 * MIB + 1);

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		char lines[200];

		snprintf(lines, sizeof(lines),
			"\ncreateType=\"vmfs\"\n\n# Extent description\nRW 20481 VMFS \"%s\"\n\n",
			names[i][1]);
		assert_text(image, names[i][0], false, lines);
		snprintf(lines, sizeof(lines),
			"\ncreateType=\"monolithicFlat\"\n\n# Extent description\n"
			"RW 20481 FLAT \"%s\" 0\n\n",
			names[i][1]);
		assert_text(image, names[i][0], true, lines);
	}
	image_unref(image);
}

/* Readers open what the descriptor names, so it names that or is not there. */
static void test_names_that_do_not_fit(void **state)
{
	static const char *const names[] = { "quo\"te.vmdk", "new\nline.vmdk", "caf\xc3\xa9.vmdk",
		"tab\t.vmdk", "a/b.vmdk", "parentFileNameHint.vmdk" };
	struct image *image = source_empty(MIB);
	char name[256];

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		open_as(image, "descriptor", names[i], false, -EFBIG);
		open_as(image, "extent", names[i], false, -EFBIG);
	}
	/* 255 bytes are the longest name of a file. */
	memset(name, 'n', sizeof(name));
	strcpy(name + 245, ".vmdk");
	assert_text(image, name, false, "nnnnnn-flat.vmdk\"\n");
	strcpy(name + 246, ".vmdk");
	open_as(image, "descriptor", name, false, -EFBIG);
	image_unref(image);
}

static void test_names_of_images(void **state)
{
	struct image *image;

	(void)state;
	store_mkdir("d");
	assert_true(store_truncate("d/y.img", 512));
	image = open_image("d/y.img");
	assert_text(image, NULL, false, "\nRW 1 VMFS \"y.flat-flat.vmdk\"\n");
	image_unref(image);
	assert_true(store_truncate("quo\"te.raw", 512));
	image = open_image("quo\"te.raw");
	open_as(image, "descriptor", NULL, false, -EFBIG);
	assert_text(image, "web.vmdk", false, "\nRW 1 VMFS \"web-flat.vmdk\"\n");
	image_unref(image);
}

/* The content ID is that of the text's own numbers and names, and of nothing else. */
static void test_content_id(void **state)
{
	static const uint64_t sizes[] = { MIB, MIB + 1, MIB + 512, MIB };
	static const char *const names[] = { "a.vmdk", "a.vmdk", "b.vmdk", "a.vmdk" };
	char cids[COUNT(sizes)][9];

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct image *image = source_empty(sizes[i]);
		struct view *view = open_as(image, "descriptor", names[i], false, 0);
		const char *line = strstr((const char *)view->regions[0].bytes, "\nCID=");

		snprintf(cids[i], sizeof(cids[i]), "%.8s", line + 5);
		view_close(view);
		image_unref(image);
	}
	assert_string_equal(cids[0], cids[3]);
	assert_string_not_equal(cids[0], cids[1]);
	assert_string_not_equal(cids[1], cids[2]);
	assert_string_not_equal(cids[0], cids[2]);
}

/* ---- the extent ---- */

static void check_extent(struct image *image, bool identity)
{
	struct view *view = open_as(image, "extent", "web-flat.vmdk", false, 0);
	struct view *raw = open_view(image, "raw");
	uint64_t size, raw_size;
	uint8_t *bytes = read_view(view, &size), *disk = read_view(raw, &raw_size);

	assert_int_equal(size, round_up(raw_size, SECTOR));
	assert_bytes(bytes, disk, raw_size);
	assert_true(is_zero(bytes + raw_size, size - raw_size));
	assert_int_equal(view->identity, identity);
	assert_null(view->occupancy);
	free(bytes);
	free(disk);
	view_close(raw);
	view_close(view);
}

static void test_extent(void **state)
{
	static const uint64_t sizes[] = { 1, 511, 512, 513, UNIT, 3 * UNIT + 100, 3 * UNIT + 512 };
	static const uint64_t units[] = { 0, 3 };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct image *image = source_of_units(sizes[i], units, 1 + (sizes[i] > 3 * UNIT));
		uint8_t bytes[100];

		check_extent(image, false);
		image_unref(image);
		/* The bytes of a raw source are those of its file, where that ends as it should. */
		store_write("r.raw", "", 0);
		assert_true(store_truncate("r.raw", sizes[i]));
		pattern(bytes, 3, 0, sizeof(bytes));
		store_poke("r.raw", 0, bytes, min_u64(sizes[i], sizeof(bytes)));
		image = open_image("r.raw");
		check_extent(image, sizes[i] % 512 == 0);
		image_unref(image);
	}
}

static void test_empty(void **state)
{
	struct image *image = source_empty(0);

	(void)state;
	open_as(image, "descriptor", "web.vmdk", false, -EFBIG);
	open_as(image, "extent", "web-flat.vmdk", false, -EFBIG);
	image_unref(image);
	assert_false(view_format("vmdk-flat")->surely_fits(0));
	/* Any other size fits. */
	image = source_empty(8ull << 50);
	assert_text(image, "web.vmdk", false, "\nRW 17592186044416 VMFS \"web-flat.vmdk\"\n");
	view_close(open_as(image, "extent", "web-flat.vmdk", false, 0));
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_names),
		store_test(test_names_that_do_not_fit),
		store_test(test_names_of_images),
		store_test(test_content_id),
		store_test(test_extent),
		store_test(test_empty),
	};

	return run_unit_tests(tests);
}
