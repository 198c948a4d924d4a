/* SPDX-License-Identifier: Apache-2.0 */
/* Archives as directories (archived.c) and OVA (archive/ova.c, tar.c, ovf.c). */
#include "tar_writer.h"

#include <time.h>

#include "imgfs/archive.h"
#include "imgfs/names.h"

#define SEED           3
#define OVA_TEST_LARGE ((8u << 20) + 2)

static struct file *must_open(const char *path)
{
	struct why why = { "" };
	struct file *file = NULL;
	int r = datastore_open_file(&store.datastore, path, &file, &why);

	if (r < 0)
		print_message("# %s: %s\n", path, why.text);
	assert_int_equal(r, 0);
	return file;
}

static void must_refuse(const char *path, int err, const char *reason)
{
	struct why why = { "" };
	struct file *file = NULL;
	int r = datastore_open_file(&store.datastore, path, &file, &why);

	if (r != err || !strstr(why.text, reason))
		print_message("# %s: %d \"%s\"\n", path, r, why.text);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
}

/* The archive as a whole is refused. */
static void must_not_list(const char *path, int err, const char *reason)
{
	const struct archived *archived = NULL;
	struct why why = { "" };
	int r = datastore_archive(&store.datastore, path, &archived, &why);

	if (r != err || !strstr(why.text, reason))
		print_message("# %s: %d \"%s\"\n", path, r, why.text);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
}

static const struct archived *must_list(const char *path)
{
	const struct archived *archived = NULL;
	struct why why = { "" };
	int r = datastore_archive(&store.datastore, path, &archived, &why);

	if (r < 0)
		print_message("# %s: %s\n", path, why.text);
	assert_int_equal(r, 0);
	return archived;
}

static void assert_pattern(const struct file *file, uint64_t seed)
{
	uint8_t *bytes = malloc(file->size), *expected = malloc(file->size);

	assert_int_equal(file_read(file, bytes, file->size, 0), 0);
	pattern(expected, seed, 0, file->size);
	assert_bytes(bytes, expected, file->size);
	free(bytes);
	free(expected);
}

static uint64_t add_pattern(struct tar_writer *w, const char *name, uint64_t seed, size_t length)
{
	uint8_t *bytes = malloc(length);
	uint64_t offset;

	pattern(bytes, seed, 0, length);
	offset = tar_add(w, name, bytes, length);
	free(bytes);
	return offset;
}

/* An archive of two disks and a file that belongs to one of them. */
static void write_ova(const char *name)
{
	struct tar_writer w = { name, 0 };

	tar_add_text(&w, "vm.ovf",
		OVF_BEGIN "<File ovf:id='f1' ovf:href='a.raw' ovf:size='70000'/>\n"
			  "<File ovf:id='f2' ovf:href='disks/b.img'/>\n"
			  "<File ovf:id='f3' ovf:href='b.nvram'/>\n" OVF_MIDDLE
			  "<Disk ovf:diskId='d1' ovf:fileRef='f1' ovf:capacity='1'/>\n"
			  "<Disk ovf:diskId='d2' ovf:fileRef='f2'/>\n"
			  "<Disk ovf:diskId='d3' ovf:capacity='7'/>\n" OVF_END);
	add_pattern(&w, "a.raw", SEED, 70000);
	add_pattern(&w, "disks/b.img", SEED + 1, 1024);
	add_pattern(&w, "b.nvram", SEED + 2, 10);
	add_pattern(&w, "secret.raw", SEED + 3, 512);
	tar_end(&w);
}

/* So that it is kept what is found out. */
static void let_settle(void)
{
	struct timespec pause = { .tv_nsec = 30 * 1000000 };

	nanosleep(&pause, NULL);
}

static void test_list(void **state)
{
	const struct archived *archived;

	(void)state;
	store_mkdir("d");
	write_ova("d/x.ova");
	archived = must_list("d/x.ova");
	assert_int_equal(archived_count(archived), 3);
	assert_string_equal(archived_at(archived, 0)->name, "a.raw");
	assert_true(archived_at(archived, 0)->is_disk);
	assert_string_equal(archived_at(archived, 1)->name, "b.img");
	assert_true(archived_at(archived, 1)->is_disk);
	assert_string_equal(archived_at(archived, 2)->name, "b.nvram");
	assert_false(archived_at(archived, 2)->is_disk);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(archived_at(archived, i)->error, 0);
		assert_int_equal(archived_at(archived, i)->window_count, 1);
	}
	assert_int_equal(archived_at(archived, 0)->windows[0].length, 70000);
	assert_ptr_equal(archived_find(archived, "b.img"), archived_at(archived, 1));
	assert_null(archived_find(archived, "secret.raw"));
	assert_null(archived_find(archived, "vm.ovf"));
	archived_put(archived);
	assert_true(name_is_archive("x.ova"));
	assert_true(name_is_archive("x.OVA"));
	assert_false(name_is_archive("x.ovf"));
	assert_false(name_is_archive("ova"));
}

static void test_open(void **state)
{
	struct file *a, *b, *again, *nvram;
	struct stat st;

	(void)state;
	store_mkdir("d");
	write_ova("d/x.ova");
	assert_int_equal(stat(store_path("d/x.ova"), &st), 0);
	a = must_open("d/x.ova/a.raw");
	b = must_open("d/x.ova/b.img");
	nvram = must_open("d/x.ova/b.nvram");
	again = must_open("d/x.ova/a.raw");
	assert_string_equal(a->path, "d/x.ova/a.raw");
	assert_int_equal(a->size, 70000);
	assert_int_equal(a->state.size, st.st_size);
	assert_int_equal(a->state.ino, st.st_ino);
	assert_pattern(a, SEED);
	assert_pattern(b, SEED + 1);
	assert_pattern(nvram, SEED + 2);
	assert_false(file_is_same(a, b));
	assert_true(file_is_same(a, again));
	assert_true(a->serial != again->serial);
	file_unref(a);
	file_unref(b);
	file_unref(nvram);
	file_unref(again);

	must_refuse("d/x.ova/secret.raw", -ENOENT, "no such file");
	must_refuse("d/x.ova/vm.ovf", -ENOENT, "no such file");
	must_refuse("d/x.ova/disks/b.img", -ENOTDIR, "");
	must_refuse("d/x.ova/a.raw/a", -ENOTDIR, "");
	must_refuse("d/x.ova/..", -ENOENT, "");
	must_refuse("d/x.ova/", -ENOENT, "");
	must_refuse("d/y.ova/a.raw", -ENOENT, "");
	store_text("d/plain", "");
	must_refuse("d/plain/a.raw", -ENOTDIR, "");
	store_mkdir("d/dir.ova");
	store_text("d/dir.ova/a.raw", "hello");
	a = must_open("d/dir.ova/a.raw");
	assert_int_equal(a->size, 5);
	file_unref(a);
	must_refuse("d/dir.ova/b.img", -ENOENT, "");
}

static void test_stat(void **state)
{
	struct open_directory directory;
	struct stat st, seen;
	struct file *file;

	(void)state;
	write_ova("x.ova");
	assert_int_equal(stat(store_path("x.ova"), &st), 0);
	assert_int_equal(datastore_stat(&store.datastore, "x.ova/a.raw", &seen), 0);
	assert_int_equal(seen.st_ino, st.st_ino);
	assert_int_equal(seen.st_size, st.st_size);
	assert_true(S_ISREG(seen.st_mode));
	assert_int_equal(datastore_stat(&store.datastore, "x.ova/c.raw", &seen), -ENOENT);
	assert_int_equal(datastore_stat(&store.datastore, "x.ova/secret.raw", &seen), -ENOENT);
	assert_int_equal(datastore_stat(&store.datastore, "x.ova/a.raw/b", &seen), -ENOTDIR);
	assert_int_equal(datastore_stat(&store.datastore, "y.ova/a.raw", &seen), -ENOENT);
	assert_int_equal(datastore_open_directory(&store.datastore, "", &directory), 0);
	assert_int_equal(datastore_stat_in(
				 &store.datastore, &directory, "x.ova/a.raw", "x.ova/a.raw", &seen),
		0);
	close(directory.fd);
	assert_int_equal(datastore_open_directory(&store.datastore, "x.ova", &directory), -ENOTDIR);

	file = must_open("x.ova/a.raw");
	assert_true(datastore_unchanged(&store.datastore, "x.ova/a.raw", &file->state));
	assert_int_equal(file_verify(file), 0);
	let_settle();
	store_poke("x.ova", st.st_size - 1, "", 1);
	assert_false(datastore_unchanged(&store.datastore, "x.ova/a.raw", &file->state));
	assert_int_equal(file_verify(file), -ESTALE);
	file_unref(file);
}

/* Another archive of the same size takes its place. */
static void test_changed(void **state)
{
	struct file *file;

	(void)state;
	write_ova("x.ova");
	let_settle();
	file = must_open("x.ova/a.raw");
	file_unref(file);
	write_ova("y.ova");
	store_poke("y.ova", 512 + strlen(OVF_BEGIN "<File ovf:id='f1' ovf:href='"), "c", 1);
	assert_int_equal(rename(store_path("y.ova"), store_path("x.ova")), 0);
	must_refuse("x.ova/a.raw", -ENOENT, "");
	must_refuse("x.ova/c.raw", -ENOENT, "not in the archive");
}

static uint64_t bytes_read(void)
{
	char text[512] = "";
	FILE *f = fopen("/proc/self/io", "r");
	unsigned long long count = 0;

	assert_non_null(f);
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	assert_int_equal(sscanf(text, "rchar: %llu", &count), 1);
	fclose(f);
	return count;
}

/* What is known costs no read. */
static void test_kept(void **state)
{
	struct stat st;
	uint64_t before, first, second;

	(void)state;
	write_ova("x.ova");
	let_settle();
	before = bytes_read();
	assert_int_equal(datastore_stat(&store.datastore, "x.ova/a.raw", &st), 0);
	first = bytes_read() - before;
	before = bytes_read();
	for (int i = 0; i < 100; i++) {
		assert_int_equal(datastore_stat(&store.datastore, "x.ova/a.raw", &st), 0);
		assert_int_equal(datastore_stat(&store.datastore, "x.ova/c.raw", &st), -ENOENT);
	}
	second = bytes_read() - before;
	assert_true(first > second + 2000);
	assert_true(second < 1000);
}

/* What is wrong with one is known as well. */
static void test_kept_refusal(void **state)
{
	struct stat st;
	uint64_t before;

	(void)state;
	store_text("x.ova", "this is no archive");
	let_settle();
	must_not_list("x.ova", -EINVAL, "not a tar archive");
	before = bytes_read();
	for (int i = 0; i < 100; i++) {
		must_not_list("x.ova", -EINVAL, "not a tar archive");
		assert_int_equal(datastore_stat(&store.datastore, "x.ova/a.raw", &st), -EINVAL);
	}
	assert_true(bytes_read() - before < 1000);
	must_refuse("x.ova/a.raw", -EINVAL, "not a tar archive");
	must_not_list("x.raw", -ENOTDIR, "not an archive");
	must_not_list("y.ova", -ENOENT, "");
}

/* Sizes of more than 8 GiB, in base 256, and members that begin behind one. */
static void test_large(void **state)
{
	struct tar_writer w = { "x.ova", 0 };
	uint64_t size = 9 * GIB + 12345, offset;
	struct file *file;
	uint8_t byte;

	(void)state;
	tar_add_text(&w, "vm.ovf",
		OVF_BEGIN
		"<File ovf:id='1' ovf:href='a.raw'/><File ovf:id='2' ovf:href='b.raw'/>" OVF_MIDDLE
		"<Disk ovf:fileRef='1'/><Disk ovf:fileRef='2'/>" OVF_END);
	offset = tar_add_hole(&w, "a.raw", size);
	store_poke("x.ova", offset + size - 1, "z", 1);
	add_pattern(&w, "b.raw", SEED, 5000);
	tar_end(&w);
	file = must_open("x.ova/a.raw");
	assert_int_equal(file->size, size);
	assert_int_equal(file_read(file, &byte, 1, size - 1), 0);
	assert_int_equal(byte, 'z');
	file_unref(file);
	file = must_open("x.ova/b.raw");
	assert_pattern(file, SEED);
	file_unref(file);
}

static void test_chunks(void **state)
{
	struct tar_writer w = { "x.ova", 0 };
	struct file *file;
	uint8_t *bytes = malloc(25000);
	uint64_t at, contiguous;

	(void)state;
	pattern(bytes, SEED, 0, 25000);
	tar_add_text(&w, "vm.ovf",
		OVF_BEGIN
		"<File ovf:id='1' ovf:href='a.raw' ovf:chunkSize='10000' ovf:size='25000'/>"
		"<File ovf:id='2' ovf:href='short.raw' ovf:chunkSize='10000' ovf:size='25000'/>"
		"<File ovf:id='3' ovf:href='odd.raw' ovf:chunkSize='10000'/>"
		"<File ovf:id='4' ovf:href='none.raw' ovf:chunkSize='10000'/>"
		"<File ovf:id='5' ovf:href='whole.raw' ovf:chunkSize='10000'/>"
		"<File ovf:id='6' ovf:href='undeclared.raw'/>" OVF_MIDDLE OVF_END);
	tar_add(&w, "a.raw.000000001", bytes + 10000, 10000);
	tar_add(&w, "a.raw.000000000", bytes, 10000);
	tar_add(&w, "a.raw.000000002", bytes + 20000, 5000);
	tar_add(&w, "short.raw.000000000", bytes, 10000);
	tar_add(&w, "short.raw.000000001", bytes, 10000);
	tar_add(&w, "odd.raw.000000000", bytes, 9999);
	tar_add(&w, "odd.raw.000000001", bytes, 10000);
	tar_add(&w, "none.raw.000000001", bytes, 10000);
	tar_add(&w, "whole.raw", bytes, 25000);
	tar_add(&w, "undeclared.raw.000000000", bytes, 25000);
	tar_end(&w);
	file = must_open("x.ova/a.raw");
	assert_int_equal(file->size, 25000);
	assert_pattern(file, SEED);
	assert_true(file_place(file, 9000, &at, &contiguous));
	assert_int_equal(contiguous, 1000);
	file_unref(file);
	file = must_open("x.ova/whole.raw");
	assert_pattern(file, SEED);
	file_unref(file);
	must_refuse("x.ova/short.raw", -EINVAL, "not of the size");
	must_refuse("x.ova/odd.raw", -EINVAL, "wrong size");
	must_refuse("x.ova/none.raw", -ENOENT, "not in the archive");
	must_refuse("x.ova/undeclared.raw", -ENOENT, "not in the archive");
	free(bytes);
}

/* What names and hrefs may be. */
static void test_names(void **state)
{
	struct tar_writer w = { "x.ova", 0 };
	struct file *file;
	uint8_t h[512];

	(void)state;
	tar_add_text(&w, "./sub/vm.ovf",
		OVF_BEGIN "<File ovf:id='1' ovf:href='a%20b.raw'/>"
			  "<File ovf:id='2' ovf:href='100%25.raw'/>"
			  "<File ovf:id='3' ovf:href='./c.raw'/>"
			  "<File ovf:id='4' ovf:href='../up.raw'/>"
			  "<File ovf:id='5' ovf:href='/abs.raw'/>"
			  "<File ovf:id='6' ovf:href='one/same.raw'/>"
			  "<File ovf:id='7' ovf:href='two/same.raw'/>"
			  "<File ovf:id='8' ovf:href='twice.raw'/>"
			  "<File ovf:id='9' ovf:href='http://example.com/far.raw'/>"
			  "<File ovf:id='10' ovf:href='link.raw'/>"
			  "<File ovf:id='11' ovf:href='gz.vmdk' ovf:compression='gzip'/>"
			  "<File ovf:id='12' ovf:href='id.raw' ovf:compression='identity'/>"
			  "<File ovf:id='13' ovf:href='again.raw'/>"
			  "<File ovf:id='14' ovf:href='again.raw'/>"
			  "<File ovf:id='15' ovf:href='%2e%2e/%75p.img'/>" OVF_MIDDLE
			  "<Disk ovf:fileRef='14'/>" OVF_END);
	add_pattern(&w, "./sub/a b.raw", SEED, 512);
	add_pattern(&w, "sub/100%25.raw", SEED + 1, 512);
	add_pattern(&w, "sub/c.raw", SEED + 2, 512);
	add_pattern(&w, "sub/../up.raw", SEED, 512);
	add_pattern(&w, "sub/../up.img", SEED, 512);
	add_pattern(&w, "/abs.raw", SEED, 512);
	add_pattern(&w, "sub//abs.raw", SEED, 512);
	add_pattern(&w, "sub/one/same.raw", SEED, 512);
	add_pattern(&w, "sub/two/same.raw", SEED, 512);
	add_pattern(&w, "sub/twice.raw", SEED, 512);
	add_pattern(&w, "sub/twice.raw", SEED + 1, 512);
	tar_header(h, "sub/link.raw", 0, '2');
	memcpy(h + 157, "c.raw", 5);
	tar_put_header(&w, h);
	add_pattern(&w, "sub/gz.vmdk", SEED, 512);
	add_pattern(&w, "sub/id.raw", SEED, 512);
	add_pattern(&w, "sub/again.raw", SEED, 512);
	tar_end(&w);

	file = must_open("x.ova/a b.raw");
	assert_pattern(file, SEED);
	file_unref(file);
	file = must_open("x.ova/100%.raw");
	assert_pattern(file, SEED + 1);
	file_unref(file);
	file = must_open("x.ova/c.raw");
	assert_pattern(file, SEED + 2);
	file_unref(file);
	file_unref(must_open("x.ova/id.raw"));
	file_unref(must_open("x.ova/again.raw"));
	must_refuse("x.ova/up.raw", -EPERM, "leads out");
	must_refuse("x.ova/up.img", -EPERM, "leads out");
	must_refuse("x.ova/abs.raw", -EPERM, "leads out");
	must_refuse("x.ova/same.raw", -EINVAL, "two files of its name");
	must_refuse("x.ova/twice.raw", -EINVAL, "two members");
	must_refuse("x.ova/far.raw", -ENOENT, "not in the archive");
	must_refuse("x.ova/link.raw", -ENOTSUP, "not a plain file");
	must_refuse("x.ova/gz.vmdk", -ENOTSUP, "compressed ('gzip')");
}

/* A member that says more than there is, and what follows headers that are damaged. */
static void test_cut(void **state)
{
	struct tar_writer w = { "x.ova", 0 };
	uint64_t offset;

	(void)state;
	tar_add_text(&w, "vm.ovf",
		OVF_BEGIN "<File ovf:id='1' ovf:href='a.raw'/><File ovf:id='2' ovf:href='b.raw'/>"
			  "<File ovf:id='3' ovf:href='c.raw'/>" OVF_MIDDLE OVF_END);
	add_pattern(&w, "a.raw", SEED, 5000);
	offset = add_pattern(&w, "b.raw", SEED, 5000);
	assert_true(store_truncate("x.ova", offset + 4999));
	file_unref(must_open("x.ova/a.raw"));
	must_refuse("x.ova/b.raw", -EINVAL, "ends before it does");
	must_refuse("x.ova/c.raw", -ENOENT, "");

	let_settle();
	w.at = offset - 512;
	add_pattern(&w, "b.raw", SEED, 5000);
	store_poke("x.ova", offset - 512, "#", 1);
	file_unref(must_open("x.ova/a.raw"));
	must_refuse("x.ova/b.raw", -ENOENT, "which is damaged");
}

static void refuse_descriptor(const char *text, const char *reason)
{
	struct tar_writer w = { "bad.ova", 0 };

	unlink(store_path("bad.ova"));
	tar_add_text(&w, "vm.ovf", text);
	tar_end(&w);
	must_not_list("bad.ova", -EINVAL, reason);
}

static void test_descriptors(void **state)
{
	struct tar_writer w = { "many.ova", 0 };
	char *large = malloc(OVA_TEST_LARGE);

	(void)state;
	refuse_descriptor("", "no element");
	refuse_descriptor("<Envelope>", "no XML");
	refuse_descriptor("\x7f"
			  "ELF",
		"no XML");
	refuse_descriptor("<html/>", "not one of OVF");
	refuse_descriptor(
		"<!DOCTYPE Envelope SYSTEM 'file:///etc/passwd'><Envelope/>", "a document type");
	refuse_descriptor("<!DOCTYPE Envelope [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]>"
			  "<Envelope><References><File id='&b;' href='a'/></References></Envelope>",
		"a document type");
	refuse_descriptor("<Envelope>&undefined;</Envelope>", "no XML");
	refuse_descriptor(OVF_BEGIN "<File ovf:id='1'/>" OVF_MIDDLE OVF_END, "without a name");
	refuse_descriptor(OVF_BEGIN "<File ovf:href='1'/>" OVF_MIDDLE OVF_END, "without a name");
	refuse_descriptor(
		OVF_BEGIN "<File ovf:id='1' ovf:href=''/>" OVF_MIDDLE OVF_END, "names a file ''");
	refuse_descriptor(OVF_BEGIN "<File ovf:id='1' ovf:href='a/'/>" OVF_MIDDLE OVF_END,
		"names a file 'a/'");
	refuse_descriptor(OVF_BEGIN "<File ovf:id='1' ovf:href='..'/>" OVF_MIDDLE OVF_END,
		"names a file '..'");
	refuse_descriptor(
		OVF_BEGIN "<File ovf:id='1' ovf:href='a%2fb'/>" OVF_MIDDLE OVF_END, "names a file");
	refuse_descriptor(OVF_BEGIN
		"<File ovf:id='1' ovf:href='a' ovf:chunkSize='-1'/>" OVF_MIDDLE OVF_END,
		"no number");
	memset(large, ' ', OVA_TEST_LARGE);
	large[OVA_TEST_LARGE - 1] = '\0';
	memcpy(large, OVF_BEGIN OVF_MIDDLE OVF_END, strlen(OVF_BEGIN OVF_MIDDLE OVF_END));
	refuse_descriptor(large, "more than 8 MiB");
	free(large);

	store_text("empty.ova", "");
	must_not_list("empty.ova", -EINVAL, "");
	tar_add_text(&w, "vm.mf", "");
	tar_end(&w);
	must_not_list("many.ova", -EINVAL, "no OVF descriptor");
}

/* More members than anybody needs: not gone through to the end. */
static void test_many(void **state)
{
	struct tar_writer w = { "many.ova", 0 };
	char name[32];

	(void)state;
	tar_add_text(&w, "vm.ovf", OVF_BEGIN OVF_MIDDLE OVF_END);
	for (int i = 0; i < ARCHIVE_MAX_FILES - 1; i++) {
		snprintf(name, sizeof(name), "%d", i);
		tar_add_hole(&w, name, 0);
	}
	tar_end(&w);
	archived_put(must_list("many.ova"));
	w.at -= 1024;
	tar_add_hole(&w, "last", 0);
	tar_end(&w);
	must_not_list("many.ova", -EINVAL, "more than 4096 members");
}

/* A descriptor in an archive names its extent in the archive, and nothing beside the archive. */
static void test_references(void **state)
{
	struct tar_writer w = { "x.ova", 0 };
	static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\n"
				   "parentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
				   "RW 8 FLAT \"%s\" 0\n";
	char good[256], other[256];
	struct image *image;
	struct view *view;
	uint8_t *bytes, expected[4096];
	uint64_t size;

	(void)state;
	snprintf(good, sizeof(good), text, "a-flat.vmdk");
	snprintf(other, sizeof(other), text, "b-flat.vmdk");
	tar_add_text(&w, "vm.ovf",
		OVF_BEGIN
		"<File ovf:id='1' ovf:href='a.vmdk'/><File ovf:id='2' ovf:href='a-flat.vmdk'/>"
		"<File ovf:id='3' ovf:href='b.vmdk'/>" OVF_MIDDLE
		"<Disk ovf:fileRef='1'/><Disk ovf:fileRef='3'/>" OVF_END);
	tar_add_text(&w, "a.vmdk", good);
	tar_add_text(&w, "b.vmdk", other);
	add_pattern(&w, "a-flat.vmdk", SEED, 4096);
	add_pattern(&w, "b-flat.vmdk", SEED, 4096);
	tar_end(&w);
	store_truncate("b-flat.vmdk", 4096);
	image = open_image("x.ova/a.vmdk");
	assert_int_equal(image_file_count(image), 2);
	assert_false(image_is_standalone(image));
	view = open_view(image, "raw");
	bytes = read_view(view, &size);
	assert_int_equal(size, 4096);
	pattern(expected, SEED, 0, 4096);
	assert_bytes(bytes, expected, 4096);
	free(bytes);
	view_close(view);
	image_unref(image);
	assert_refused("x.ova/b.vmdk", -ENOENT, "no such file");
}

/* Two disks of one archive are two images, and each is what is served for itself. */
static void test_images(void **state)
{
	struct image *a, *b;
	struct view *view;
	uint8_t *bytes, expected[1024];
	uint64_t size;

	(void)state;
	write_ova("x.ova");
	a = open_image("x.ova/a.raw");
	b = open_image("x.ova/b.img");
	assert_true(image_generation(a) != image_generation(b));
	assert_int_equal(image_size(b), 1024);
	view = open_view(b, "raw");
	assert_true(view->identity);
	assert_int_equal(file_descriptor(image_file(b, 0)), -1);
	bytes = read_view(view, &size);
	assert_int_equal(size, 1024);
	pattern(expected, SEED + 1, 0, 1024);
	assert_bytes(bytes, expected, 1024);
	free(bytes);
	view_close(view);
	image_unref(a);
	image_unref(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		store_test(test_list),
		store_test(test_open),
		store_test(test_stat),
		store_test(test_changed),
		store_test(test_kept),
		store_test(test_kept_refusal),
		store_test(test_large),
		store_test(test_chunks),
		store_test(test_names),
		store_test(test_cut),
		store_test(test_descriptors),
		store_test(test_many),
		store_test(test_references),
		store_test(test_images),
	};

	return run_unit_tests(tests);
}
