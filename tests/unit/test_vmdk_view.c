/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMDK view against a file that is laid out anew here, sector by sector, from a list of
 * occupied units; its descriptor line by line.
 */
#include "sources.h"

#define SECTOR 512ull

static uint64_t up(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

/* Sectors of a disk of so many bytes, as one would draw them on paper. */
struct sectors {
	uint64_t capacity, tables, directory, rgd, gd, grains;
};

static struct sectors count_sectors(uint64_t size)
{
	struct sectors s = { .capacity = up(size, 512), .rgd = 21 };

	s.tables = up(up(s.capacity, 128), 512);
	s.directory = up(s.tables * 4, 512);
	s.gd = s.rgd + s.directory + s.tables * 4;
	s.grains = up(s.gd + s.directory + s.tables * 4, 128) * 128;
	return s;
}

/* The file that there should be but for the descriptor, from malloc. */
static uint8_t *lay_out(uint64_t size, const uint64_t *units, size_t count, uint64_t *length)
{
	struct sectors s = count_sectors(size);
	const uint64_t directories[] = { s.rgd, s.gd };
	uint8_t *f;

	*length = (s.grains + 128 * count) * SECTOR;
	f = calloc(1, *length);
	assert_non_null(f);
	memcpy(f, "KDMV\1\0\0\0\3\0\0\0", 12);
	put_le64(f + 12, s.capacity);
	put_le64(f + 20, 128);
	put_le64(f + 28, 1);
	put_le64(f + 36, 20);
	put_le32(f + 44, 512);
	put_le64(f + 48, s.rgd);
	put_le64(f + 56, s.gd);
	put_le64(f + 64, s.grains);
	memcpy(f + 72, "\0\n \r\n\0\0", 7);
	for (size_t d = 0; d < 2; d++) {
		uint64_t first = directories[d] + s.directory;

		for (uint64_t t = 0; t < s.tables; t++)
			put_le32(f + directories[d] * SECTOR + t * 4, (uint32_t)(first + t * 4));
		for (size_t i = 0; i < count; i++)
			put_le32(f + first * SECTOR + units[i] * 4, (uint32_t)(s.grains + 128 * i));
	}
	for (size_t i = 0; i < count; i++) {
		for (uint64_t b = 0; b < UNIT; b++)
			f[(s.grains + 128 * i) * SECTOR + b] =
				source_byte(size, units[i] * UNIT + b);
	}
	return f;
}

static void check_layout(uint64_t size, const uint64_t *units, size_t count)
{
	static const char *const tables[] = { "redundant grain directory", "redundant grain tables",
		"grain directory", "grain tables" };
	struct image *image = source_of_units(size, units, count);
	struct view *view = open_view(image, "vmdk");
	uint64_t length, got_length, random = size;
	uint8_t *expected = lay_out(size, units, count, &length);
	uint8_t *got = read_view(view, &got_length);

	assert_int_equal(got_length, length);
	memcpy(expected + SECTOR, got + SECTOR, 20 * SECTOR);
	assert_bytes(got, expected, length);
	for (size_t i = 0; i < COUNT(tables); i++)
		check_table_fill(view, tables[i], &random);
	check_table_runs(view, "redundant grain tables");
	check_table_runs(view, "grain tables");
	free(expected);
	free(got);
	view_close(view);
	image_unref(image);
}

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, units[6];
		size_t count;
	} cases[] = {
		{ 1, { 0 }, 0 },
		{ 1, { 0 }, 1 },
		{ 511, { 0 }, 1 },
		{ 512, { 0 }, 1 },
		{ 513, { 0 }, 1 },
		{ UNIT - 1, { 0 }, 1 },
		{ UNIT, { 0 }, 1 },
		{ UNIT + 1, { 0, 1 }, 2 },
		{ UNIT + 1, { 1 }, 1 },
		/* Borders of a grain table (512 grains), and of a directory sector (128 tables). */
		{ 511 * UNIT, { 510 }, 1 },
		{ 512 * UNIT, { 0, 511 }, 2 },
		{ 512 * UNIT + 1, { 511, 512 }, 2 },
		{ 513 * UNIT, { 1, 512 }, 2 },
		{ 128 * 512 * UNIT, { 0, 65535 }, 2 },
		{ 128 * 512 * UNIT + 1, { 65535, 65536 }, 2 },
		{ 129 * 512 * UNIT, { 5, 1024, 1025, 2047, 65536 }, 5 },
		{ 20 * GIB + 700, { 0, 8191, 8192, 100000, 20 * GIB / UNIT }, 5 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count);
}

static void test_random_layout(void **state)
{
	uint64_t units[60];

	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++) {
		uint64_t random = seed, unit = 0;
		size_t count = 0;

		while (count < COUNT(units)) {
			unit += random_below(&random, seed % 3 ? 4 : 3000);
			units[count++] = unit++;
		}
		check_layout((unit + random_below(&random, 100)) * UNIT +
				     random_below(&random, UNIT) + 1,
			units, count);
	}
}

static uint32_t number_at(const struct view *view, uint64_t sector, uint64_t index)
{
	uint8_t bytes[4];
	uint64_t done;

	assert_int_equal(view_read(view, sector * SECTOR + index * 4, 4, bytes, &done), 0);
	assert_int_equal(done, 4);
	return get_le32(bytes);
}

/* A disk that qemu-img was given: 143363 sectors, 27 grains, of them 0, 3 and 4. */
static void test_worked_example(void **state)
{
	static const uint8_t header[] = { 0x4b, 0x44, 0x4d, 0x56, 1, 0, 0, 0, 3, 0, 0, 0, 0x03,
		0x30, 2, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x14, 0,
		0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 0, 0, 0,
		0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0x20, 0x0d, 0x0a, 0, 0 };
	uint64_t units[27] = { 0, 3, 4 };
	struct image *image;
	struct view *view;

	(void)state;
	for (size_t i = 3; i < COUNT(units); i++)
		units[i] = 40 * i;
	units[26] = 1120;
	image = source_of_units(73401856, units, COUNT(units));
	view = open_view(image, "vmdk");
	assert_int_equal(view->size, 1835008);
	assert_bytes(view->regions[0].bytes, header, sizeof(header));
	assert_int_equal(number_at(view, 21, 0), 22);
	assert_int_equal(number_at(view, 21, 1), 26);
	assert_int_equal(number_at(view, 21, 2), 30);
	assert_int_equal(number_at(view, 21, 3), 0);
	assert_int_equal(number_at(view, 34, 0), 35);
	assert_int_equal(number_at(view, 34, 1), 39);
	assert_int_equal(number_at(view, 34, 2), 43);
	assert_int_equal(number_at(view, 34, 3), 0);
	for (uint64_t copy = 22; copy <= 35; copy += 13) {
		assert_int_equal(number_at(view, copy, 0), 128);
		assert_int_equal(number_at(view, copy, 1), 0);
		assert_int_equal(number_at(view, copy, 2), 0);
		assert_int_equal(number_at(view, copy, 3), 256);
		assert_int_equal(number_at(view, copy, 4), 384);
		assert_int_equal(number_at(view, copy, 5), 0);
		assert_int_equal(number_at(view, copy, 1120), 128 + 128 * 26);
	}
	assert_int_equal(find_region(view, "padding")->start, 24064);
	assert_int_equal(find_region(view, "grains")->start, 65536);
	view_close(view);
	image_unref(image);
}

/* ---- descriptor ---- */

/* The descriptor of a view, terminated, checked to be text and zeros to its end. */
static const char *descriptor_of(const struct view *view)
{
	static char text[20 * 512 + 1];
	const uint8_t *bytes = view->regions[0].bytes + SECTOR;
	size_t length = strnlen((const char *)bytes, 20 * 512);

	assert_int_equal(view->regions[0].end, 21 * SECTOR);
	assert_true(length < 20 * 512);
	for (size_t i = 0; i < length; i++)
		assert_true(bytes[i] == '\n' || (bytes[i] >= 0x20 && bytes[i] < 0x7f));
	assert_true(is_zero(bytes + length, 20 * 512 - length));
	memcpy(text, bytes, length);
	text[length] = '\0';
	return text;
}

static void assert_line(const char *text, const char *line)
{
	const char *found = strstr(text, line);

	if (!found)
		print_message("# no %s in %s\n", line, text);
	assert_non_null(found);
	assert_true(found == text || found[-1] == '\n');
	assert_int_equal(found[strlen(line)], '\n');
	assert_null(strstr(found + 1, line));
}

static uint32_t cid_of(const struct view *view)
{
	const char *text = descriptor_of(view);
	const char *line = strstr(text, "\nCID=");
	const char *longer = strstr(text, "\nddb.longContentID = \"");
	char digits[9];

	assert_true(line && longer);
	memcpy(digits, line + 5, 8);
	digits[8] = '\0';
	assert_int_equal(strspn(digits, "0123456789abcdef"), 8);
	assert_int_equal(line[13], '\n');
	/* The long one has 32 digits, and the short one is its end. */
	longer += strlen("\nddb.longContentID = \"");
	assert_int_equal(strspn(longer, "0123456789abcdef"), 32);
	assert_memory_equal(longer + 24, digits, 8);
	assert_memory_equal(longer + 32, "\"\n", 2);
	return (uint32_t)strtoul(digits, NULL, 16);
}

static void test_descriptor(void **state)
{
	static const char *const lines[] = { "# Disk DescriptorFile", "version=1",
		"encoding=\"UTF-8\"", "parentCID=ffffffff", "isNativeSnapshot=\"no\"",
		"createType=\"monolithicSparse\"", "RW 3 SPARSE \"x.vmdk\"",
		"ddb.adapterType = \"lsilogic\"", "ddb.geometry.cylinders = \"1\"",
		"ddb.geometry.heads = \"255\"", "ddb.geometry.sectors = \"63\"",
		"ddb.toolsInstallType = \"4\"", "ddb.toolsVersion = \"2147483647\"",
		"ddb.virtualHWVersion = \"4\"" };
	struct image *image = source_empty(1025);
	struct view *view = open_view(image, "vmdk");
	const char *text = descriptor_of(view), *last = text;

	(void)state;
	/* In this order: readers take the first CID, and sections as they come. */
	for (size_t i = 0; i < COUNT(lines); i++) {
		assert_line(text, lines[i]);
		assert_true(strstr(text, lines[i]) >= last);
		last = strstr(text, lines[i]);
	}
	assert_memory_equal(text, "# Disk DescriptorFile\nversion=1\n", 32);
	assert_true(strstr(text, "CID=") == strstr(text, "\nCID=") + 1);
	cid_of(view);
	view_close(view);
	image_unref(image);
}

/* The name in the extent line is the view's own, or one that no reader can misread. */
static void test_extent_name(void **state)
{
	static const char *const names[][2] = {
		{ "disk.qcow2", "disk.vmdk" },
		{ "disk.raw", "disk.vmdk" },
		{ "a.b.img", "a.b.vmdk" },
		{ "with space.img", "with space.vmdk" },
		{ "quo\"te.img", "disk.vmdk" },
		{ "new\nline.img", "disk.vmdk" },
		{ "caf\xc3\xa9.img", "disk.vmdk" },
		{ "\x7f.img", "disk.vmdk" },
		{ "d/e.img", "e.vmdk" },
	};

	(void)state;
	store_mkdir("d");
	for (size_t i = 0; i < COUNT(names); i++) {
		struct qcow2_image q;
		struct image *image;
		struct view *view;
		char line[64];

		qcow2_begin(&q, 16, MIB);
		qcow2_write(&q, names[i][0]);
		qcow2_end(&q);
		image = open_image(names[i][0]);
		view = open_view(image, "vmdk");
		/* .raw is raw whatever is in it. */
		snprintf(line, sizeof(line), "RW %" PRIu64 " SPARSE \"%s\"",
			image_size(image) / 512, names[i][1]);
		assert_line(descriptor_of(view), line);
		view_close(view);
		image_unref(image);
	}
}

static void test_long_name(void **state)
{
	char name[256];
	struct image *image;
	struct view *view;
	const char *text;

	(void)state;
	memset(name, 'n', 255);
	strcpy(name + 251, ".img");
	assert_true(store_truncate(name, 512));
	image = open_image(name);
	view = open_view(image, "vmdk");
	text = strstr(descriptor_of(view), "SPARSE \"");
	assert_non_null(text);
	/* One line, closed by its quote, and the rest follows. */
	assert_memory_equal(strchr(text + 8, '"'), "\"\n", 2);
	assert_non_null(strstr(text, "ddb.adapterType"));
	view_close(view);
	image_unref(image);
}

/* SCSI: 255 heads, 63 sectors, cylinders rounded down, at least one, at most 65535. */
static void test_geometry(void **state)
{
	static const struct {
		uint64_t sectors, cylinders;
	} cases[] = {
		{ 1, 1 },
		{ 16064, 1 },
		{ 16065, 1 },
		{ 16066, 1 },
		{ 2 * 16065 - 1, 1 },
		{ 2 * 16065, 2 },
		{ 2 * 16065 + 1, 2 },
		{ 83886080, 5221 }, /* 40 GiB, as ESXi has it */
		{ 65534ull * 16065, 65534 },
		{ 65535ull * 16065 - 1, 65534 },
		{ 65535ull * 16065, 65535 },
		{ 65535ull * 16065 + 1, 65535 },
		{ 65536ull * 16065, 65535 },
		{ 1ull << 33, 65535 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		/* A sector that is not whole is one. */
		struct image *image = source_empty(cases[i].sectors * 512 - i % 2);
		struct view *view = open_view(image, "vmdk");
		char line[64];

		snprintf(line, sizeof(line), "ddb.geometry.cylinders = \"%" PRIu64 "\"",
			cases[i].cylinders);
		assert_line(descriptor_of(view), line);
		snprintf(line, sizeof(line), "RW %" PRIu64 " SPARSE \"x.vmdk\"", cases[i].sectors);
		assert_line(descriptor_of(view), line);
		view_close(view);
		image_unref(image);
	}
}

/* ---- content IDs ---- */

static uint32_t cid_of_units(uint64_t size, const uint64_t *units, size_t count)
{
	struct image *image = source_of_units(size, units, count);
	struct view *view = open_view(image, "vmdk");
	uint32_t cid = cid_of(view);

	view_close(view);
	image_unref(image);
	return cid;
}

static void test_cid(void **state)
{
	static const uint64_t units[] = { 0, 1, 2, 5, 8191, 8192 };
	const uint64_t size = 8193 * UNIT;
	uint32_t cid = cid_of_units(size, units, 6), others[5];
	struct image *image;
	struct view *view;

	(void)state;
	/* Of the map and nothing else: made anew, and from clusters of another size. */
	assert_int_equal(cid_of_units(size, units, 6), cid);
	{
		struct qcow2_image q;
		uint8_t bytes[4096] = { 0 };

		source_begin(&q, 12, size);
		for (size_t i = 0; i < COUNT(units); i++)
			qcow2_data(&q, units[i] * UNIT + i * 4096, bytes);
		image = source_end(&q, 0);
		view = open_view(image, "vmdk");
		assert_int_equal(cid_of(view), cid);
		view_close(view);
		image_unref(image);
	}
	others[0] = cid_of_units(size, units, 5);
	others[1] = cid_of_units(size, units + 1, 5);
	others[2] = cid_of_units(size + 1, units, 6);
	others[3] = cid_of_units(size - 1, units, 6);
	others[4] = cid_of_units(size, units, 0);
	for (size_t i = 0; i < COUNT(others); i++) {
		assert_true(others[i] != cid);
		for (size_t k = 0; k < i; k++)
			assert_true(others[i] != others[k]);
	}
}

/* 0, ffffffff and fffffffe mean something else, and no disk gets them. */
static void test_cid_never(void **state)
{
	static const uint64_t sizes[] = { 1, 512, 4 * GIB - 2, 4 * GIB - 1, 4 * GIB, 8 * GIB - 2,
		8 * GIB - 1, 8 * GIB, TIB, 2 * TIB - 1 };

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct image *image = source_empty(sizes[i]);
		struct view *view = open_view(image, "vmdk");
		uint32_t cid = cid_of(view);

		assert_true(cid != 0 && cid != UINT32_MAX && cid != UINT32_MAX - 1);
		view_close(view);
		image_unref(image);
	}
}

/* ---- limits ---- */

static int open_vmdk(struct image *image, struct why *why)
{
	struct view *view;
	int r = view_open(image, view_format("vmdk"), &view, why);

	if (r == 0)
		view_close(view);
	image_unref(image);
	return r;
}

/* Sectors are numbers of 32 bits: the last one of the file must be one. */
static void test_too_large(void **state)
{
	uint64_t units = 2 * TIB / UNIT;
	struct why why = { "" };

	(void)state;
	while (count_sectors(units * UNIT).grains + 128 * units > UINT32_MAX)
		units--;
	assert_int_equal(open_vmdk(source_of_clusters(units * UNIT, 1), &why), 0);
	assert_int_equal(open_vmdk(source_of_clusters(units * UNIT + 1, 1), &why), -EFBIG);
	assert_non_null(strstr(why.text, "2 TiB"));
	assert_int_equal(open_vmdk(source_of_clusters(3 * TIB, 1), &why), -EFBIG);
	/* A large disk is no problem, what is on it would be; until the tables alone are. */
	assert_int_equal(open_vmdk(source_of_clusters(14 * TIB, 256), &why), 0);
	assert_int_equal(open_vmdk(source_empty(64 * TIB), &why), 0);
	assert_int_equal(open_vmdk(source_empty(8ull << 50), &why), 0);
	assert_int_equal(open_vmdk(source_empty(16ull << 50), &why), -EFBIG);
}

static void test_empty(void **state)
{
	struct why why = { "" };

	(void)state;
	assert_int_equal(open_vmdk(source_empty(0), &why), -EFBIG);
	assert_non_null(strstr(why.text, "empty"));
	assert_false(view_format("vmdk")->surely_fits(0));
	assert_true(view_format("vmdk")->surely_fits(1));
}

/* The numbers of a file of nearly 2 TiB, at its borders and in between. */
static void test_full_entries(void **state)
{
	const uint64_t size = TIB + 5 * UNIT;
	struct image *image = source_of_clusters(size, 1);
	struct view *view = open_view(image, "vmdk");
	struct sectors s = count_sectors(size);
	uint64_t units = size / UNIT, random = 1;

	(void)state;
	assert_int_equal(view->size, (s.grains + 128 * units) * SECTOR);
	for (int i = 0; i < 3000; i++) {
		uint64_t unit = i < 6    ? units - 1 - (uint64_t)i
				: i < 20 ? 8192 * (uint64_t)i + (uint64_t)(i % 3) - 1
					 : random_below(&random, units);
		uint32_t entry = (uint32_t)(s.grains + 128 * unit);

		assert_int_equal(number_at(view, s.rgd + s.directory, unit), entry);
		assert_int_equal(number_at(view, s.gd + s.directory, unit), entry);
		assert_int_equal(
			number_at(view, s.gd, unit / 512), s.gd + s.directory + unit / 512 * 4);
	}
	assert_int_equal(number_at(view, s.gd + s.directory, units), 0);
	check_table_fill(view, "grain tables", &random);
	check_table_fill(view, "grain directory", &random);
	view_close(view);
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_layout),
		store_test(test_random_layout),
		store_test(test_worked_example),
		store_test(test_descriptor),
		store_test(test_extent_name),
		store_test(test_long_name),
		store_test(test_geometry),
		store_test(test_cid),
		store_test(test_cid_never),
		store_test(test_too_large),
		store_test(test_empty),
		store_test(test_full_entries),
	};

	return run_unit_tests(tests);
}
