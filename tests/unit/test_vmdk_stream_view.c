/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streamOptimized view against a file that is laid out anew here, record by record, from a
 * list of occupied units; what a damaged unit takes with it; and whose source is served as it is.
 */
#include "sources.h"

#define SECTOR     512ull
#define RECORD     (129 * SECTOR)
#define CHECKSUM   65560u
#define STREAM_END 65564u

/* ---- the file as one would write it with zlib ---- */

struct writer {
	uint64_t size;
	const uint64_t *units;
	size_t count;
	uint8_t *file;
	uint64_t length, room;
};

static uint8_t *append(struct writer *w, uint64_t length)
{
	uint8_t *at;

	if (w->length + length > w->room) {
		w->room = (w->length + length) * 2;
		w->file = realloc(w->file, w->room);
		assert_non_null(w->file);
	}
	at = memset(w->file + w->length, 0, length);
	w->length += length;
	return at;
}

static void append_marker(struct writer *w, uint64_t sectors, uint32_t type)
{
	uint8_t *marker = append(w, SECTOR);

	put_le64(marker, sectors);
	put_le32(marker + 12, type);
}

static void append_record(struct writer *w, uint64_t unit)
{
	uint8_t *r = append(w, RECORD);
	uint8_t grain[65536];

	for (uint64_t b = 0; b < UNIT; b++)
		grain[b] = source_byte(w->size, unit * UNIT + b);
	put_le64(r, unit * 128);
	put_le32(r + 8, 65552);
	memcpy(r + 12, "\x78\x01\x00\x00\x80\xff\x7f", 7);
	memcpy(r + 19, grain, 32768);
	memcpy(r + 19 + 32768, "\x01\x00\x80\xff\x7f", 5);
	memcpy(r + 24 + 32768, grain + 32768, 32768);
	put_be32(r + CHECKSUM, (uint32_t)adler32(1, grain, sizeof(grain)));
}

static uint64_t directory_sectors(uint64_t size)
{
	return div_ceil(div_ceil(size, 512 * UNIT) * 4, SECTOR);
}

static uint64_t overhead(uint64_t size)
{
	return round_up(22 + directory_sectors(size), 128);
}

static void put_header(uint8_t *h, uint64_t size, uint64_t directory)
{
	memcpy(h, "KDMV\3\0\0\0\1\0\3\0", 12);
	put_le64(h + 12, div_ceil(size, 512));
	put_le64(h + 20, 128);
	put_le64(h + 28, 1);
	put_le64(h + 36, 20);
	put_le32(h + 44, 512);
	put_le64(h + 56, directory);
	put_le64(h + 64, overhead(size));
	memcpy(h + 72, "\0\n \r\n\1\0", 7);
}

/* The records and tables; notes where the tables are. */
static void append_groups(struct writer *w, uint8_t *directory)
{
	for (size_t i = 0; i < w->count;) {
		uint64_t group = w->units[i] / 512;
		uint8_t table[4 * SECTOR] = { 0 };

		for (; i < w->count && w->units[i] / 512 == group; i++) {
			put_le32(table + w->units[i] % 512 * 4, (uint32_t)(w->length / SECTOR));
			append_record(w, w->units[i]);
		}
		append_marker(w, 4, 1);
		put_le32(directory + group * 4, (uint32_t)(w->length / SECTOR));
		memcpy(append(w, sizeof(table)), table, sizeof(table));
	}
}

/* The whole file but for the descriptor. */
static uint8_t *lay_out(uint64_t size, const uint64_t *units, size_t count, uint64_t *length)
{
	struct writer w = { .size = size, .units = units, .count = count };
	uint64_t sectors = directory_sectors(size), last;
	uint8_t *directory = calloc(sectors, SECTOR);

	assert_non_null(directory);
	put_header(append(&w, 21 * SECTOR), size, 22);
	append_marker(&w, sectors, 2);
	append(&w, (overhead(size) - 22) * SECTOR);
	append_groups(&w, directory);
	memcpy(w.file + 22 * SECTOR, directory, sectors * SECTOR);
	append_marker(&w, sectors, 2);
	last = w.length / SECTOR;
	memcpy(append(&w, sectors * SECTOR), directory, sectors * SECTOR);
	append_marker(&w, 1, 3);
	put_header(append(&w, SECTOR), size, last);
	append(&w, SECTOR);
	free(directory);
	*length = w.length;
	return w.file;
}

/* ---- layout ---- */

/* Reads that begin and end where records, halves, tables and regions do, or anywhere. */
static void check_reads(
	const struct view *view, const uint8_t *whole, uint64_t body, uint64_t *random)
{
	static const uint64_t places[] = { 0, 8, 12, 19, 32787, 32792, CHECKSUM, STREAM_END };
	uint8_t *bytes = malloc(4 * MIB);
	uint64_t done;

	assert_non_null(bytes);
	for (int i = 0; i < 300; i++) {
		uint64_t limit = i % 20 ? 2 * RECORD : 4 * MIB;
		uint64_t at = random_below(random, view->size), length;

		if (i % 3 == 0) {
			at = body + random_below(random, 40) * RECORD;
			at += places[random_below(random, COUNT(places))];
			at -= min_u64(at, random_below(random, 3));
			at = min_u64(at, view->size);
		}
		length = random_below(random, limit);
		length = min_u64(length, view->size - at);
		assert_int_equal(view_read(view, at, length, bytes, &done), 0);
		assert_int_equal(done, length);
		assert_bytes(bytes, whole + at, length);
	}
	free(bytes);
}

static void check_view(struct image *image, uint64_t size, const uint64_t *units, size_t count)
{
	struct view *view = open_view(image, "vmdk-stream");
	uint64_t length, got_length, random = size + count;
	uint8_t *expected = lay_out(size, units, count, &length);
	uint8_t *got = read_view(view, &got_length);

	assert_int_equal(got_length, length);
	assert_non_null(strstr((const char *)got + SECTOR, "\ncreateType=\"streamOptimized\"\n"));
	memcpy(expected + SECTOR, got + SECTOR, 20 * SECTOR);
	assert_bytes(got, expected, length);
	check_reads(view, expected, overhead(size) * SECTOR, &random);
	check_table_fill(view, "grain directory", &random);
	check_table_fill(view, "grain directory again", &random);
	check_table_runs(view, "grain directory");
	free(expected);
	free(got);
	view_close(view);
}

static void check_layout(uint64_t size, const uint64_t *units, size_t count)
{
	struct image *image = source_of_units(size, units, count);

	check_view(image, size, units, count);
	image_unref(image);
}

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, units[8];
		size_t count;
	} cases[] = {
		{ 1, { 0 }, 0 },
		{ 1, { 0 }, 1 },
		{ 511, { 0 }, 1 },
		{ 513, { 0 }, 1 },
		{ UNIT - 1, { 0 }, 1 },
		{ UNIT + 1, { 0, 1 }, 2 },
		{ UNIT + 1, { 1 }, 1 },
		/* Borders of a table, of a page of the occupancy, of a sector of the directory. */
		{ 511 * UNIT, { 510 }, 1 },
		{ 512 * UNIT, { 0, 511 }, 2 },
		{ 513 * UNIT, { 1, 511, 512 }, 3 },
		{ 16 * 512 * UNIT, { 0, 8191 }, 2 },
		{ 16 * 512 * UNIT + 1, { 8191, 8192 }, 2 },
		{ 17 * 512 * UNIT, { 3, 4, 1024, 1025, 8192, 8193, 8700 }, 7 },
		{ 128 * 512 * UNIT + 1, { 65535, 65536 }, 2 },
		{ 20 * GIB + 700, { 0, 8191, 8192, 100000, 20 * GIB / UNIT }, 5 },
		/* The directory takes more than the sectors that are there for nothing else. */
		{ 13568 * 512 * UNIT, { 0, 13568 * 512 - 1 }, 2 },
		{ 13568 * 512 * UNIT + 1, { 5, 13568 * 512 }, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_layout(cases[i].size, cases[i].units, cases[i].count);
}

static void test_random_layout(void **state)
{
	uint64_t units[60];

	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++) {
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

/* Neighbours that are compressed: more of them than are read at once. */
static void test_of_packed(void **state)
{
	uint64_t units[40], size;
	uint8_t *bytes = malloc(UNIT);
	struct qcow2_image q;
	struct image *image;

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < COUNT(units); i++)
		units[i] = 2 + i + i / 37;
	size = (units[COUNT(units) - 1] + 1) * UNIT - 1000;
	source_begin(&q, 16, size);
	for (size_t i = 0; i < COUNT(units); i++) {
		for (uint64_t b = 0; b < UNIT; b++)
			bytes[b] = source_byte(size, units[i] * UNIT + b);
		qcow2_packed(&q, units[i] * UNIT, bytes);
	}
	free(bytes);
	image = source_end(&q, 0);
	check_view(image, size, units, COUNT(units));
	image_unref(image);
}

/* ---- damage ---- */

/* What is lost are the bytes themselves and the checksum of their grain, and nothing else. */
static void test_damage(void **state)
{
	const uint64_t cluster = 4096, lost = 1, at = 5 * cluster;
	uint8_t *bytes = malloc(4 * RECORD), *whole = malloc(4 * RECORD);
	uint64_t body = 128 * SECTOR, start, done;
	struct qcow2_image q;
	struct image *image;
	struct view *view;

	(void)state;
	assert_true(bytes && whole);
	source_begin(&q, 12, 3 * UNIT);
	for (uint64_t guest = 0; guest < 3 * UNIT; guest += cluster) {
		for (uint64_t b = 0; b < cluster; b++)
			bytes[b] = source_byte(3 * UNIT, guest + b);
		qcow2_data(&q, guest, bytes);
	}
	qcow2_set(&q, lost * UNIT + at, QCOW2_COPIED | 1ull << 40);
	image = source_end(&q, 0);
	view = open_view(image, "vmdk-stream");
	start = body + lost * RECORD;
	assert_int_equal(view_read(view, body, 3 * RECORD, bytes, &done), -EIO);
	for (uint64_t i = 0; i < 3 * RECORD; i++) {
		uint64_t inside = i - lost * RECORD;
		bool bad =
			i >= lost * RECORD && ((inside >= 19 + at && inside < 19 + at + cluster) ||
						      (inside >= CHECKSUM && inside < STREAM_END));

		if (i % 64 > 24)
			continue; /* with a unit to be read for some of them, this takes long */
		assert_int_equal(view_read(view, body + i, 1, bytes, &done), bad ? -EIO : 0);
	}
	/* Up to it and from it on, and all of the other records. */
	assert_int_equal(view_read(view, body, RECORD + 19 + at, whole, &done), 0);
	assert_int_equal(view_read(view, body, RECORD + 19 + at + 1, whole, &done), -EIO);
	assert_int_equal(view_read(view, start + 19 + at + cluster, CHECKSUM - 19 - at - cluster,
				 whole, &done),
		0);
	assert_int_equal(view_read(view, start + STREAM_END, view->size, whole, &done), 0);
	free(bytes);
	free(whole);
	view_close(view);
	image_unref(image);
}

/* ---- what is served as it is ---- */

/* A file that the view has made, named as an image. */
static void save_view(const char *format, const char *name)
{
	static const uint64_t units[] = { 1 };
	struct image *image = source_of_units(4 * UNIT, units, 1);
	struct view *view = open_view(image, format);
	uint64_t size;
	uint8_t *bytes = read_view(view, &size);

	store_write(name, bytes, size);
	free(bytes);
	view_close(view);
	image_unref(image);
}

static void check_identity(const char *name, const char *variant, bool stream)
{
	struct image *image = open_image(name);
	struct view *view = open_view(image, "vmdk-stream");

	assert_true(image_is_standalone(image));
	if (variant)
		assert_string_equal(image_variant(image), variant);
	else
		assert_null(image_variant(image));
	assert_int_equal(view->identity, stream);
	view_close(view);
	view = open_view(image, "vmdk");
	assert_true(view->identity);
	view_close(view);
	image_unref(image);
}

static void change_text(const char *name, const char *from, const char *to)
{
	char text[21 * 512 + 1] = { 0 };
	int fd = store_open(name, O_RDWR);
	char *at;

	assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), sizeof(text) - 1);
	at = memmem(text, sizeof(text) - 1, from, strlen(from));
	assert_non_null(at);
	assert_int_equal(pwrite(fd, to, strlen(to), at - text), (ssize_t)strlen(to));
	close(fd);
}

static void test_as_is(void **state)
{
	(void)state;
	save_view("vmdk-stream", "s.vmdk");
	check_identity("s.vmdk", "streamOptimized", true);
	save_view("vmdk", "m.vmdk");
	check_identity("m.vmdk", "monolithicSparse", false);
	/* A file that contradicts itself is not the one thing nor the other. */
	change_text("s.vmdk", "streamOptimized\"", "monolithicSparse");
	change_text("s.vmdk", "monolithicSparse\n", "monolithicSparse\"");
	check_identity("s.vmdk", NULL, false);
}

/* ---- limits ---- */

static int open_stream(struct image *image, struct why *why)
{
	struct view *view;
	int r = view_open(image, view_format("vmdk-stream"), &view, why);

	if (r == 0)
		view_close(view);
	image_unref(image);
	return r;
}

/* The last sector that anything points at must be a number of 32 bits. */
static void test_too_large(void **state)
{
	uint64_t units = 2 * TIB / UNIT, last;
	struct why why = { "" };

	(void)state;
	do {
		units--;
		last = overhead(units * UNIT) + 129 * units + 5 * div_ceil(units, 512) + 1;
	} while (last + directory_sectors(units * UNIT) > UINT32_MAX);
	assert_int_equal(open_stream(source_of_clusters(units / 32 * 32 * UNIT, 1), &why), 0);
	assert_int_equal(open_stream(source_of_clusters(units * UNIT, 1), &why), 0);
	assert_int_equal(open_stream(source_of_clusters(units * UNIT + 1, 1), &why), -EFBIG);
	assert_non_null(strstr(why.text, "2 TiB"));
	assert_int_equal(open_stream(source_of_clusters(14 * TIB, 256), &why), 0);
	assert_int_equal(open_stream(source_empty(64 * TIB), &why), 0);
	assert_int_equal(open_stream(source_empty(0), &why), -EFBIG);
	assert_non_null(strstr(why.text, "empty"));
	assert_false(view_format("vmdk-stream")->surely_fits(0));
	assert_true(view_format("vmdk-stream")->surely_fits(1));
}

/* Numbers of a file of more than 1 TiB, at the borders of pages and in between. */
static void test_full(void **state)
{
	const uint64_t size = TIB + 5 * UNIT, units = size / UNIT;
	struct image *image = source_of_clusters(size, 1);
	struct view *view = open_view(image, "vmdk-stream");
	uint64_t random = 1, body = overhead(size), done;

	(void)state;
	assert_int_equal(view->size, SECTOR * (body + 129 * units + 5 * div_ceil(units, 512) + 1 +
						      directory_sectors(size) + 3));
	for (int i = 0; i < 3000; i++) {
		uint64_t unit = i < 6    ? units - 1 - (uint64_t)i
				: i < 40 ? 512 * (uint64_t)i + (uint64_t)(i % 3) - 1
					 : random_below(&random, units);
		uint64_t group = unit / 512, count = min_u64(512, units - group * 512);
		uint64_t start = body + group * (129 * 512 + 5);
		uint8_t bytes[12];

		view_read(view, (start + unit % 512 * 129) * SECTOR, 12, bytes, &done);
		assert_int_equal(get_le64(bytes), unit * 128);
		view_read(view, (start + count * 129) * SECTOR, 12, bytes, &done);
		assert_int_equal(get_le64(bytes), 4);
		view_read(
			view, (start + count * 129 + 1) * SECTOR + unit % 512 * 4, 4, bytes, &done);
		assert_int_equal(get_le32(bytes), start + unit % 512 * 129);
		view_read(view, 22 * SECTOR + group * 4, 4, bytes, &done);
		assert_int_equal(get_le32(bytes), start + count * 129 + 1);
	}
	check_table_fill(view, "grain directory", &random);
	view_close(view);
	image_unref(image);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_layout),
		store_test(test_random_layout),
		store_test(test_of_packed),
		store_test(test_damage),
		store_test(test_as_is),
		store_test(test_too_large),
		store_test(test_full),
	};

	return run_unit_tests(tests);
}
