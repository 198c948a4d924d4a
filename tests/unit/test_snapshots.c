/* SPDX-License-Identifier: Apache-2.0 */
/* Internal snapshots: what they are called, and which bytes they are. */
#include "qcow2_image.h"

#define SIZE (4 * MIB)

/* One as it is to be written; NULL and 0 leave out what there may be without. */
struct wanted {
	const char *id, *name;
	size_t id_length, name_length; /* 0: that of the text */
	uint64_t size;                 /* 0: no extra data */
	uint32_t extra;                /* bytes of it; 0: as is usual */
	uint32_t l1_entries;
	uint64_t l1;
};

static void add_entry(struct qcow2_image *q, const struct wanted *w)
{
	size_t id = w->id_length ? w->id_length : strlen(w->id);
	size_t name = w->name_length ? w->name_length : strlen(w->name);
	uint32_t extra = w->extra ? w->extra : w->size ? 24 : 0;
	uint64_t at = qcow2_append(q, round_up(40 + extra + id + name, 8));
	uint8_t *p = q->file + at;

	put_be64(p, w->l1);
	put_be32(p + 8, w->l1_entries);
	put_be16(p + 12, (uint16_t)id);
	put_be16(p + 14, (uint16_t)name);
	put_be32(p + 36, extra);
	if (extra >= 16)
		put_be64(p + 48, w->size);
	memcpy(p + 40 + extra, w->id, id);
	memcpy(p + 40 + extra + id, w->name, name);
}

/* An image with those snapshots; the L1 tables of all of them are the active one. */
static void write_image(struct wanted *list, size_t count)
{
	static uint8_t bytes[65536];
	struct qcow2_image q;
	uint64_t table;

	memset(bytes, 'a', sizeof(bytes));
	qcow2_begin(&q, 16, SIZE);
	qcow2_data(&q, 0, bytes);
	table = qcow2_append_cluster(&q, 0);
	for (size_t i = 0; i < count; i++) {
		if (list[i].l1 == 0)
			list[i].l1 = q.l1;
		if (list[i].l1_entries == 0)
			list[i].l1_entries = 1;
		add_entry(&q, &list[i]);
	}
	put_be32(q.file + 60, (uint32_t)count);
	put_be64(q.file + 64, table);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
}

#define S(i, n, ...)                                \
	{                                           \
		.id = (i), .name = (n), __VA_ARGS__ \
	}
#define WRITE(...)                                          \
	do {                                                \
		static struct wanted list_[] = __VA_ARGS__; \
		write_image(list_, COUNT(list_));           \
	} while (0)

/* The names that paths have, in order; NULL ends them. */
static void check_names(const char *const *names)
{
	struct image *image = open_image("x.qcow2");
	struct snapshots s;
	size_t count = 0;

	assert_int_equal(image_snapshots(image, &s), 0);
	for (; names[count]; count++) {
		assert_true(count < s.count);
		assert_string_equal(s.list[count].name, names[count]);
	}
	assert_int_equal(s.count, count);
	snapshots_free(&s);
	image_unref(image);
}

#define CHECK(...) check_names((const char *const[]) { __VA_ARGS__, NULL })

static void test_names(void **state)
{
	(void)state;
	WRITE({ S("1", "before"), S("2", "after") });
	CHECK("before", "after");
	/* Two of one name go by their ids, after those with names. */
	WRITE({ S("1", "x"), S("2", "y"), S("3", "x") });
	CHECK("y", "1", "3");
	/* An id does not take another's name, and there is no third name. */
	WRITE({ S("1", "x"), S("2", "1"), S("3", "x") });
	CHECK("1", "3");
	WRITE({ S("7", ""), S("8", "a/b"), S("9", "a\nb"), S("10", "\x7f"), S("11", "ok") });
	CHECK("ok", "7", "8", "9", "10");
	WRITE({ S("", ""), S("a/b", ""), S("1", "a\0b", .name_length = 3) });
	CHECK("1");
}

static void test_ids_of_several(void **state)
{
	(void)state;
	WRITE({ S("1", "x"), S("1", "x"), S("2", "x"), S("3", "y"), S("3", "") });
	CHECK("y", "2");
}

static void test_long_names(void **state)
{
	static char longest[201], longer[202];
	struct wanted list[] = { S("1", longest), S("2", longer) };

	(void)state;
	memset(longest, 'x', 200);
	memset(longer, 'x', 201);
	write_image(list, COUNT(list));
	CHECK(longest, "2");
}

static void check_refused(const char *path, int err, const char *reason)
{
	struct why why = { "" };
	struct image *image;

	assert_int_equal(image_open(&store.context, path, &image, &why), err);
	assert_non_null(strstr(why.text, reason));
}

static void test_sizes(void **state)
{
	struct image *image;

	(void)state;
	WRITE({ S("1", "small", .size = MIB), S("2", "old"), S("3", "large", .size = 600 * MIB),
		S("4", "odd", .size = 70001), S("5", "endless", .size = 1ull << 63) });
	image = open_image("x.qcow2//small");
	assert_int_equal(image_size(image), MIB);
	assert_false(image_is_standalone(image));
	assert_string_equal(image_path(image), "x.qcow2//small");
	image_unref(image);
	image = open_image("x.qcow2//old");
	assert_int_equal(image_size(image), SIZE);
	image_unref(image);
	image = open_image("x.qcow2//odd");
	assert_int_equal(image_size(image), 70001);
	image_unref(image);
	check_refused("x.qcow2//large", -EINVAL, "too small");
	check_refused("x.qcow2//endless", -EINVAL, "2^63");
	image = open_image("x.qcow2");
	assert_int_equal(image_size(image), SIZE);
	assert_true(image_is_standalone(image));
	image_unref(image);
}

static void check_size(const char *path, uint64_t size)
{
	struct image *image = open_image(path);

	assert_int_equal(image_size(image), size);
	image_unref(image);
}

/* The size of the disk is bytes 8 to 15 of the extra data. */
static void test_extra_data(void **state)
{
	(void)state;
	WRITE({ S("1", "8", .extra = 8), S("2", "15", .extra = 15),
		S("3", "16", .extra = 16, .size = MIB), S("4", "17", .extra = 17, .size = MIB + 1),
		S("5", "1024", .extra = 1024, .size = MIB + 2),
		S("6", "1025", .extra = 1025, .size = MIB + 3), S("7", "last") });
	CHECK("8", "15", "16", "17", "1024");
	check_size("x.qcow2//8", SIZE);
	check_size("x.qcow2//15", SIZE);
	check_size("x.qcow2//16", MIB);
	check_size("x.qcow2//17", MIB + 1);
	check_size("x.qcow2//1024", MIB + 2);
	check_refused("x.qcow2//1025", -ENOENT, "'1025'");
}

/* A name that the file does not hold is not one of zeros, which would leave the id. */
static void test_cut_entry(void **state)
{
	struct stat st;

	(void)state;
	WRITE({ S("1", "a"), S("2", "name") });
	CHECK("a", "name");
	assert_int_equal(stat(store_path("x.qcow2"), &st), 0);
	assert_true(store_truncate("x.qcow2", (uint64_t)st.st_size - 3)); /* what pads it */
	CHECK("a", "name");
	assert_true(store_truncate("x.qcow2", (uint64_t)st.st_size - 4));
	CHECK("a");
	check_refused("x.qcow2//2", -ENOENT, "'2'");
}

static void test_many(void **state)
{
	static struct wanted list[SNAPSHOTS_MAX + 1];
	static char names[SNAPSHOTS_MAX + 1][8];

	(void)state;
	for (size_t i = 0; i < COUNT(list); i++) {
		snprintf(names[i], sizeof(names[i]), "%zu", i);
		list[i] = (struct wanted)S("", names[i], .size = MIB + i);
	}
	write_image(list, COUNT(list));
	check_size("x.qcow2//0", MIB);
	check_size("x.qcow2//1023", MIB + 1023);
	check_refused("x.qcow2//1024", -ENOENT, "'1024'");
}

static void test_not_there(void **state)
{
	(void)state;
	WRITE({ S("1", "before") });
	check_refused("x.qcow2//after", -ENOENT, "'after'");
	check_refused("x.qcow2//", -ENOENT, "no snapshot");
	check_refused("x.qcow2//1", -ENOENT, "'1'");
	check_refused("y.qcow2//before", -ENOENT, "");
	store_write("x.raw", "disk", 4);
	check_refused("x.raw//before", -ENOENT, "'before'");
}

/* Each has the bytes of its own table. */
static void test_bytes(void **state)
{
	static uint8_t bytes[65536];
	struct qcow2_image q;
	uint64_t l1, l2, data, table, size;
	struct wanted w = S("1", "before", .size = 2 * 65536ull, .l1_entries = 1);
	struct image *image;
	struct view *view;
	uint8_t *disk;

	(void)state;
	memset(bytes, 'a', sizeof(bytes));
	qcow2_begin(&q, 16, SIZE);
	qcow2_data(&q, 0, bytes);
	l1 = qcow2_append_cluster(&q, q.cluster);
	l2 = qcow2_append_cluster(&q, q.cluster);
	data = qcow2_append_cluster(&q, q.cluster);
	memset(q.file + data, 'b', q.cluster);
	put_be64(q.file + l1, l2);
	put_be64(q.file + l2 + 8, data);  /* without the bit "used once" */
	put_be64(q.file + l2 + 16, data); /* behind the end: the machine's state */
	table = qcow2_append_cluster(&q, 0);
	w.l1 = l1;
	add_entry(&q, &w);
	put_be32(q.file + 60, 1);
	put_be64(q.file + 64, table);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);

	image = open_image("x.qcow2//before");
	view = open_view(image, "raw");
	disk = read_view(view, &size);
	assert_int_equal(size, 2 * 65536);
	for (uint64_t i = 0; i < size; i++)
		assert_int_equal(disk[i], i < 65536 ? 0 : 'b');
	free(disk);
	view_close(view);
	image_unref(image);
}

static void test_damage(void **state)
{
	uint8_t number[8];
	struct image *image;
	struct snapshots s;

	(void)state;
	WRITE({ S("1", "a"), S("2", "b"), S("3", "c", .l1 = 512), S("4", "d", .l1 = 1ull << 50),
		S("5", "e", .l1_entries = 1u << 31) });
	check_refused("x.qcow2//c", -EINVAL, "outside the file");
	check_refused("x.qcow2//d", -EINVAL, "outside the file");
	check_refused("x.qcow2//e", -EINVAL, "larger than 32 MiB");
	/* The table ends early: what is before that counts. */
	put_be32(number, 60000);
	store_poke("x.qcow2", 60, number, 4);
	image = open_image("x.qcow2");
	assert_int_equal(image_snapshots(image, &s), 0);
	assert_true(s.count >= 5);
	snapshots_free(&s);
	image_unref(image);
	put_be64(number, UINT64_MAX - 7);
	store_poke("x.qcow2", 64, number, 8);
	image = open_image("x.qcow2");
	assert_int_equal(image_snapshots(image, &s), 0);
	assert_int_equal(s.count, 0);
	snapshots_free(&s);
	image_unref(image);
	check_refused("x.qcow2//a", -ENOENT, "'a'");
}

/* ---- other files ---- */

/* An image with one snapshot of it; `edit` names another file. */
static void write_naming(void (*edit)(struct qcow2_image *q))
{
	struct wanted w = S("1", "y", .l1_entries = 1);
	struct qcow2_image q;
	uint64_t table;

	qcow2_begin(&q, 16, SIZE);
	edit(&q);
	w.l1 = q.l1;
	table = qcow2_append_cluster(&q, 0);
	add_entry(&q, &w);
	put_be32(q.file + 60, 1);
	put_be64(q.file + 64, table);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
}

static void on_own_family(struct qcow2_image *q)
{
	qcow2_backing(q, "x-base.raw", "raw");
}

static void on_family_of_name(struct qcow2_image *q)
{
	qcow2_backing(q, "y-base.raw", "raw");
}

/* What an image may name is told by its file, and not by what a snapshot is called. */
static void test_references(void **state)
{
	struct image *image;

	(void)state;
	store_text("x-base.raw", "lower");
	store_text("y-base.raw", "another's");
	write_naming(on_own_family);
	image = open_image("x.qcow2//y");
	assert_int_equal(image_file_count(image), 2);
	assert_string_equal(image_file(image, 0)->path, "x.qcow2");
	assert_string_equal(image_file(image, 1)->path, "x-base.raw");
	image_unref(image);
	write_naming(on_family_of_name);
	check_refused("x.qcow2//y", -EPERM, "references=datastore");
	check_refused("x.qcow2", -EPERM, "references=datastore");
}

static void in_data_file(struct qcow2_image *q)
{
	put_be64(q->file + 72, 1u << 2);
	qcow2_extension(q, 0x44415441, "x-data.raw", 10);
}

/* There clusters have the places that they have in the disk, so there is no older state. */
static void test_data_file(void **state)
{
	(void)state;
	store_write("x-data.raw", "", 0);
	assert_true(store_truncate("x-data.raw", SIZE));
	write_naming(in_data_file);
	image_unref(open_image("x.qcow2"));
	check_refused("x.qcow2//y", -EINVAL, "snapshots");
}

/* Both states at a time: neither takes the other's tables or units out of the cache. */
static void test_two_at_a_time(void **state)
{
	static uint8_t now[4096], then[4096];
	struct wanted w = S("1", "then", .l1_entries = 1);
	struct qcow2_image q;
	struct image *images[2];
	struct view *views[2];
	uint64_t l1, l2, data, table, done;
	uint8_t bytes[4096];

	(void)state;
	memset(now, 'n', sizeof(now));
	memset(then, 't', sizeof(then));
	qcow2_begin(&q, 12, 8192);
	qcow2_packed(&q, 0, now);
	l1 = qcow2_append_cluster(&q, 4096);
	l2 = qcow2_append_cluster(&q, 4096);
	data = qcow2_append_cluster(&q, 4096);
	put_be64(q.file + l1, l2);
	put_be64(q.file + l2, data);
	memcpy(q.file + data, then, 4096);
	table = qcow2_append_cluster(&q, 0);
	w.l1 = l1;
	add_entry(&q, &w);
	put_be32(q.file + 60, 1);
	put_be64(q.file + 64, table);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	for (size_t i = 0; i < 2; i++) {
		images[i] = open_image(i ? "x.qcow2//then" : "x.qcow2");
		views[i] = open_view(images[i], "raw");
	}
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(view_read(views[i % 2], 0, 4096, bytes, &done), 0);
		assert_bytes(bytes, i % 2 ? then : now, 4096);
	}
	for (size_t i = 0; i < 2; i++) {
		view_close(views[i]);
		image_unref(images[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_names),
		store_test(test_ids_of_several),
		store_test(test_long_names),
		store_test(test_sizes),
		store_test(test_extra_data),
		store_test(test_cut_entry),
		store_test(test_many),
		store_test(test_not_there),
		store_test(test_bytes),
		store_test(test_damage),
		store_test(test_references),
		store_test(test_data_file),
		store_test(test_two_at_a_time),
	};

	return run_unit_tests(tests);
}
