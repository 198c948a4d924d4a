/* SPDX-License-Identifier: Apache-2.0 */
/* The gate (datastore.c) and what an open file answers (file.c). */
#include "support.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static int open_path(const char *path, struct file **file, struct why *why)
{
	*file = NULL;
	why->text[0] = '\0';
	return datastore_open_file(&store.datastore, path, file, why);
}

static struct file *must_open(const char *path)
{
	struct why why;
	struct file *file;
	int r = open_path(path, &file, &why);

	if (r < 0)
		print_message("# %s: %s\n", path, why.text);
	assert_int_equal(r, 0);
	return file;
}

static void must_refuse(const char *path, int err, const char *reason)
{
	struct why why;
	struct file *file;
	int r = open_path(path, &file, &why);

	if (r != err || !strstr(why.text, reason))
		print_message("# %s: %d \"%s\"\n", path, r, why.text);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
	assert_null(file);
}

static void test_regular(void **state)
{
	struct stat st, seen;
	struct file *a, *b;

	(void)state;
	store_mkdir("d");
	store_text("d/f", "hello");
	assert_int_equal(chmod(store_path("d/f"), 0640), 0);
	assert_int_equal(stat(store_path("d/f"), &st), 0);
	a = must_open("d/f");
	assert_string_equal(a->path, "d/f");
	assert_int_equal(a->size, 5);
	assert_int_equal(a->state.dev, st.st_dev);
	assert_int_equal(a->state.ino, st.st_ino);
	assert_int_equal(a->state.mtime.tv_nsec, st.st_mtim.tv_nsec);
	assert_int_equal(a->mode & 07777, 0640);
	assert_int_equal(a->uid, st.st_uid);
	assert_int_equal(a->gid, st.st_gid);
	assert_int_equal(a->blocks, st.st_blocks);
	assert_int_equal(fcntl(a->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_true(fcntl(a->fd, F_GETFD) & FD_CLOEXEC);
	/* Another open is another serial. */
	b = must_open("d/./f");
	assert_true(a->serial != b->serial);
	assert_true(file_state_equal(&a->state, &b->state));
	file_unref(b);
	assert_int_equal(datastore_stat(&store.datastore, "d/f", &seen), 0);
	assert_int_equal(seen.st_ino, st.st_ino);
	assert_ptr_equal(file_ref(a), a);
	file_unref(a);
	assert_int_equal(file_verify(a), 0);
	file_unref(a);
	file_unref(NULL);
}

static void test_missing(void **state)
{
	struct stat st;

	(void)state;
	must_refuse("nothing", -ENOENT, "No such file");
	must_refuse("nothing/at/all", -ENOENT, "");
	store_text("f", "x");
	must_refuse("f/g", -ENOTDIR, "");
	assert_int_equal(datastore_stat(&store.datastore, "nothing", &st), -ENOENT);
	assert_int_equal(datastore_open_dir(&store.datastore, "nothing"), -ENOENT);
	assert_int_equal(datastore_open_dir(&store.datastore, "f"), -ENOTDIR);
}

static void test_not_regular(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	store_mkdir("d");
	must_refuse("d", -EINVAL, "a directory");
	must_refuse("", -EINVAL, "a directory");
	/* An open of a FIFO for reading would wait for a writer. */
	assert_int_equal(mkfifo(store_path("fifo"), 0644), 0);
	must_refuse("fifo", -EINVAL, "a FIFO");
	assert_true(fd >= 0);
	strcpy(address.sun_path, store_path("socket"));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	must_refuse("socket", -EINVAL, "a socket");
	close(fd);
}

static void test_device(void **state)
{
	(void)state;
	/* The device of /dev/zero. Making one takes root. */
	if (mknod(store_path("device"), S_IFCHR | 0644, (dev_t)(1 << 8 | 5)) < 0)
		SKIP_REST("devices cannot be made");
	must_refuse("device", -EINVAL, "a device");
}

static void test_directories(void **state)
{
	int fd;
	struct stat root, st;

	(void)state;
	store_mkdir("d");
	assert_int_equal(stat(store.path, &root), 0);
	fd = datastore_open_dir(&store.datastore, "");
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_ino, root.st_ino);
	close(fd);
	fd = datastore_open_dir(&store.datastore, "d");
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(symlink("d", store_path("l")), 0);
	assert_true(datastore_open_dir(&store.datastore, "l") < 0);
	assert_int_equal(datastore_open_dir(&store.datastore, ".."), -EXDEV);
}

static void make_links(void)
{
	store_mkdir("d");
	store_text("d/f", "x");
	assert_int_equal(symlink("d/f", store_path("last")), 0);
	assert_int_equal(symlink("d", store_path("middle")), 0);
	assert_int_equal(symlink("../d/f", store_path("d/up")), 0);
	assert_int_equal(symlink("../../etc/passwd", store_path("d/out")), 0);
	assert_int_equal(symlink("/etc/passwd", store_path("absolute")), 0);
	assert_int_equal(symlink(store_path("d/f"), store_path("inside")), 0);
	assert_int_equal(symlink("loop", store_path("loop")), 0);
	assert_int_equal(symlink("gone", store_path("dangling")), 0);
	assert_int_equal(symlink("/proc/self/fd/0", store_path("magic")), 0);
}

static void test_symlinks_refused(void **state)
{
	static const char *const links[] = { "last", "d/up", "d/out", "absolute", "inside", "loop",
		"dangling", "magic" };
	struct stat st;

	(void)state;
	make_links();
	for (size_t i = 0; i < COUNT(links); i++)
		must_refuse(links[i], -EINVAL, "follow_symlinks");
	must_refuse("middle/f", -ELOOP, "follow_symlinks");
	assert_int_equal(datastore_stat(&store.datastore, "last", &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(datastore_stat(&store.datastore, "middle/f", &st), -ELOOP);
}

static void test_symlinks_followed(void **state)
{
	static const char *const inside[] = { "last", "middle/f", "d/up", "middle/up" };
	struct stat st;

	(void)state;
	make_links();
	store.datastore.follow_symlinks = true;
	for (size_t i = 0; i < COUNT(inside); i++) {
		struct file *file = must_open(inside[i]);

		assert_int_equal(file->size, 1);
		file_unref(file);
	}
	must_refuse("d/out", -EXDEV, "out of the datastore");
	must_refuse("absolute", -EXDEV, "out of the datastore");
	must_refuse("inside", -EXDEV, "out of the datastore");
	must_refuse("magic", -EXDEV, "out of the datastore");
	must_refuse("loop", -ELOOP, "");
	must_refuse("dangling", -ENOENT, "");
	assert_int_equal(datastore_stat(&store.datastore, "last", &st), 0);
	assert_true(S_ISREG(st.st_mode));
}

/* The short way to look at a name gives the answer of the long one. */
static void test_stat_in(void **state)
{
	static const char *const names[] = { "f", "last", "dangling", "d", "nothing", "magic" };
	struct open_directory directory;

	(void)state;
	make_links();
	assert_int_equal(
		datastore_open_directory(&store.datastore, "nothing", &directory), -ENOENT);
	assert_int_equal(datastore_open_directory(&store.datastore, "", &directory), 0);
	for (int follow = 0; follow < 2; follow++) {
		store.datastore.follow_symlinks = follow;
		for (size_t i = 0; i < COUNT(names); i++) {
			struct stat st = { 0 }, expected = { 0 };
			int r = datastore_stat(&store.datastore, names[i], &expected);

			assert_int_equal(datastore_stat_in(&store.datastore, &directory, names[i],
						 names[i], &st),
				r);
			if (r < 0)
				continue;
			assert_int_equal(st.st_ino, expected.st_ino);
			assert_int_equal(st.st_mode, expected.st_mode);
		}
	}
	close(directory.fd);
}

static void test_beneath(void **state)
{
	struct file *file;

	(void)state;
	store_mkdir("d");
	store_text("f", "x");
	must_refuse("..", -EXDEV, "out of the datastore");
	must_refuse("../f", -EXDEV, "out of the datastore");
	must_refuse("d/../../f", -EXDEV, "out of the datastore");
	must_refuse("/etc/passwd", -EXDEV, "out of the datastore");
	must_refuse(store_path("f"), -EXDEV, "out of the datastore");
	file = must_open("d/../f");
	file_unref(file);
}

#define CANNOT_MOUNT 77

/* Opens d/f with another file system mounted on d, in a namespace of its own. An exit status. */
static int open_in_mount(void)
{
	struct datastore ds;
	struct file *file;
	struct why why;
	int fd;

	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return CANNOT_MOUNT;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("none", store_path("d"), "tmpfs", 0, NULL) < 0)
		return CANNOT_MOUNT;
	fd = open(store_path("d/f"), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0 || datastore_open(&ds, store.path, REFERENCES_NONE, &why) < 0)
		return CANNOT_MOUNT;
	return datastore_open_file(&ds, "d/f", &file, &why) == -EXDEV &&
			       datastore_open_dir(&ds, "d") == -EXDEV
		       ? 0
		       : 1;
}

static void test_other_file_system(void **state)
{
	int status = 0;
	pid_t child;

	(void)state;
	store_mkdir("d");
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(open_in_mount());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == CANNOT_MOUNT)
		SKIP_REST("nothing can be mounted here");
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_open_datastore(void **state)
{
	struct datastore ds;
	struct why why = { "" };

	(void)state;
	store_mkdir("d");
	store_text("f", "x");
	assert_int_equal(symlink("d", store_path("l")), 0);
	assert_int_equal(
		datastore_open(&ds, store_path("nothing"), REFERENCES_NONE, &why), -ENOENT);
	assert_non_null(strstr(why.text, "No such file"));
	assert_int_equal(datastore_open(&ds, store_path("f"), REFERENCES_NONE, &why), -ENOTDIR);
	/* The root's name is canonical: what absolute references are compared with. */
	assert_int_equal(datastore_open(&ds, store_path("l/../l//."), REFERENCES_NONE, &why), 0);
	assert_string_equal(strrchr(ds.root_path, '/'), "/d");
	assert_int_equal(ds.references, REFERENCES_NONE);
	assert_false(ds.follow_symlinks);
	datastore_close(&ds);
}

static void test_read(void **state)
{
	uint8_t buffer[8];
	struct file *file;

	(void)state;
	store_text("f", "0123456789");
	file = must_open("f");
	assert_int_equal(file_read(file, buffer, 4, 3), 0);
	assert_memory_equal(buffer, "3456", 4);
	assert_int_equal(file_read(file, buffer, 1, 9), 0);
	assert_int_equal(buffer[0], '9');
	assert_int_equal(file_read(file, buffer, 0, 10), 0);
	memset(buffer, 0x5a, sizeof(buffer));
	assert_int_equal(file_read(file, buffer, 2, 9), -ERANGE);
	assert_int_equal(file_read(file, buffer, 1, 10), -ERANGE);
	assert_int_equal(file_read(file, buffer, 0, 11), -ERANGE);
	assert_int_equal(file_read(file, buffer, 8, UINT64_MAX - 3), -ERANGE);
	assert_int_equal(buffer[0], 0x5a);
	/* Grown since: what was not there at the open is not there now. */
	assert_true(store_truncate("f", 20));
	assert_int_equal(file_read(file, buffer, 1, 10), -ERANGE);
	/* Truncated since: never zeros. */
	assert_true(store_truncate("f", 5));
	assert_int_equal(file_read(file, buffer, 4, 1), 0);
	assert_int_equal(file_read(file, buffer, 5, 1), -ERANGE);
	assert_int_equal(file_read(file, buffer, 1, 7), -ERANGE);
	file_unref(file);
}

static void change_write(void)
{
	store_poke("f", 0, "X", 1);
}

static void change_mode(void)
{
	assert_int_equal(chmod(store_path("f"), 0600), 0);
}

static void change_size(void)
{
	assert_true(store_truncate("f", 3));
}

static void change_rename_over(void)
{
	store_text("g", "other");
	assert_int_equal(rename(store_path("g"), store_path("f")), 0);
}

static void change_remove(void)
{
	assert_int_equal(unlink(store_path("f")), 0);
}

/* As a writer that hides its tracks: the change time still tells. */
static void change_and_set_mtime(void)
{
	struct stat st;

	assert_int_equal(stat(store_path("f"), &st), 0);
	store_poke("f", 0, "X", 1);
	assert_int_equal(utimensat(AT_FDCWD, store_path("f"),
				 (struct timespec[2]) { st.st_atim, st.st_mtim }, 0),
		0);
}

static void test_verify(void **state)
{
	static void (*const changes[])(void) = { change_write, change_mode, change_size,
		change_rename_over, change_remove, change_and_set_mtime };

	(void)state;
	for (size_t i = 0; i < COUNT(changes); i++) {
		uint8_t byte;
		struct file *file;

		store_text("f", "hello");
		file = must_open("f");
		usleep(20000); /* a tick of the file system's clock */
		assert_int_equal(file_read(file, &byte, 1, 0), 0);
		assert_int_equal(file_verify(file), 0);
		changes[i]();
		assert_int_equal(file_verify(file), -ESTALE);
		file_unref(file);
	}
}

static void test_state_equal(void **state)
{
	static const struct file_state a = { 1, 2, 3, { 4, 5 }, { 6, 7 } };

	(void)state;
	assert_true(file_state_equal(&a, &a));
	for (int field = 0; field < 7; field++) {
		struct file_state b = a;

		b.dev += field == 0;
		b.ino += field == 1;
		b.size += field == 2;
		b.mtime.tv_sec += field == 3;
		b.mtime.tv_nsec += field == 4;
		b.ctime.tv_sec += field == 5;
		b.ctime.tv_nsec += field == 6;
		assert_false(file_state_equal(&a, &b));
	}
}

/* The runs of data, as text: "0-4096 8192-12288". */
static const char *data_runs(const struct file *file)
{
	static char text[512];
	size_t used = 0;
	uint64_t start, end;

	text[0] = '\0';
	for (uint64_t at = 0; at < file->size; at = end) {
		assert_int_equal(file_next_data(file, at, &start, &end), 0);
		assert_true(start >= at && end >= start && end <= file->size);
		if (start == file->size)
			break;
		assert_true(end > start);
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%" PRIu64 "-%" PRIu64,
			used ? " " : "", start, end);
	}
	return text;
}

static void test_next_data(void **state)
{
	static uint8_t bytes[65536];
	uint64_t start, end;
	struct file *file;

	(void)state;
	memset(bytes, 0x11, sizeof(bytes));
	assert_true(store_truncate("f", MIB + 100));
	store_poke("f", 65536, bytes, 65536);
	store_poke("f", 5 * 65536, bytes, 65536);
	store_poke("f", MIB + 99, bytes, 1);
	file = must_open("f");
	if (lseek(file->fd, 0, SEEK_DATA) != 65536) {
		file_unref(file);
		SKIP_REST("no holes of 64 KiB in this file system");
	}
	assert_string_equal(data_runs(file), "65536-131072 327680-393216 1048576-1048676");
	/* Inside of a run it goes on from the offset. */
	assert_int_equal(file_next_data(file, 65537, &start, &end), 0);
	assert_int_equal(start, 65537);
	assert_int_equal(end, 131072);
	assert_int_equal(file_next_data(file, 131071, &start, &end), 0);
	assert_int_equal(start, 131071);
	assert_int_equal(file_next_data(file, 131072, &start, &end), 0);
	assert_int_equal(start, 327680);
	for (uint64_t past = MIB + 100; past < MIB + 102; past++) {
		assert_int_equal(file_next_data(file, past, &start, &end), 0);
		assert_int_equal(start, MIB + 100);
		assert_int_equal(end, MIB + 100);
	}
	file_unref(file);

	store_text("empty", "");
	file = must_open("empty");
	assert_string_equal(data_runs(file), "");
	file_unref(file);
	assert_true(store_truncate("hole", MIB));
	file = must_open("hole");
	assert_string_equal(data_runs(file), "");
	file_unref(file);
	/* A file that became shorter has lost its data, not changed its size. */
	file = must_open("f");
	assert_true(store_truncate("f", 65536 + 10));
	assert_int_equal(file_next_data(file, 0, &start, &end), 0);
	assert_true(end <= 131072);
	file_unref(file);
}

static bool knows_extents(const struct file *file)
{
	struct fiemap map = { .fm_length = ~0ull };

	return ioctl(file->fd, FS_IOC_FIEMAP, &map) == 0;
}

/*
 * Space that was preallocated and never written counts as allocated, and it makes no difference
 * that pages of it are in the page cache.
 */
static void test_preallocated(void **state)
{
	uint8_t page[4096];
	uint64_t start, end;
	struct file *file;
	int fd = store_open("f", O_CREAT | O_RDWR);

	(void)state;
	assert_int_equal(ftruncate(fd, 4 << 20), 0);
	if (fallocate(fd, 0, 1 << 20, 1 << 20) < 0) {
		close(fd);
		SKIP_REST("no fallocate in this file system");
	}
	memset(page, 0x22, sizeof(page));
	assert_int_equal(pwrite(fd, page, sizeof(page), 3 << 20), 4096);
	assert_int_equal(fsync(fd), 0);
	file = must_open("f");
	if (!knows_extents(file)) {
		file_unref(file);
		close(fd);
		SKIP_REST("no FIEMAP in this file system");
	}
	for (int round = 0; round < 3; round++) {
		assert_int_equal(file_next_data(file, 0, &start, &end), 0);
		assert_int_equal(start, MIB);
		assert_true(end > start && end <= 2 * MIB);
		for (uint64_t at = start; at < 2 * MIB; at = end) {
			assert_int_equal(file_next_data(file, at, &start, &end), 0);
			assert_int_equal(start, at);
		}
		assert_int_equal(end, 2 * MIB);
		assert_int_equal(file_next_data(file, 2 * MIB, &start, &end), 0);
		assert_int_equal(start, 3 * MIB);
		assert_int_equal(end, 3 * MIB + 4096);
		/* Brings a page of the middle into the cache, then all of them. */
		for (uint64_t at = MIB + 512 * KIB; at < 2 * MIB; at += 4096) {
			assert_int_equal(file_read(file, page, sizeof(page), at), 0);
			assert_true(is_zero(page, sizeof(page)));
			if (round == 0)
				break;
		}
	}
	file_unref(file);
	close(fd);
}

static void test_max_files(void **state)
{
	static struct file *files[DATASTORE_MAX_FILES];

	(void)state;
	store_text("f", "x");
	for (size_t i = 0; i < COUNT(files); i++)
		files[i] = must_open("f");
	must_refuse("f", -EMFILE, "400");
	must_refuse("nothing", -EMFILE, "400");
	file_unref(files[7]);
	/* A failed open takes no place. */
	for (int i = 0; i < 3; i++)
		must_refuse("nothing", -ENOENT, "");
	files[7] = must_open("f");
	must_refuse("f", -EMFILE, "400");
	for (size_t i = 0; i < COUNT(files); i++)
		file_unref(files[i]);
	file_unref(must_open("f"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_regular),
		store_test(test_missing),
		store_test(test_not_regular),
		store_test(test_device),
		store_test(test_directories),
		store_test(test_symlinks_refused),
		store_test(test_symlinks_followed),
		store_test(test_stat_in),
		store_test(test_beneath),
		store_test(test_other_file_system),
		store_test(test_open_datastore),
		store_test(test_read),
		store_test(test_verify),
		cmocka_unit_test(test_state_equal),
		store_test(test_next_data),
		store_test(test_preallocated),
		store_test(test_max_files),
	};

	return run_unit_tests(tests);
}
