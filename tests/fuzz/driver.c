/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datastore of the harnesses is a real directory, in memory where TMPDIR is: sources are
 * opened by the gate alone, and that opens names beneath a directory.
 */
#include "driver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "imgfs/archive.h"
#include "imgfs/cache.h"
#include "imgfs/datastore.h"

#define READS          2048

#define SNAPSHOTS_READ 4 /* of an image */

/* Small, so that entries are evicted while the image is read. */
#define CACHE_BYTES (256u << 10)

#define FILES_MAX   24
#define BLOCK       4096u

static struct {
	char path[4096];
	struct datastore datastore;
	struct image_context context;
	char names[FILES_MAX][64]; /* of this input */
	size_t count;
} store;

void fuzz_failed(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
	abort();
}

static void remove_store(void)
{
	DIR *stream = opendir(store.path);
	struct dirent *entry;

	while (stream && (entry = readdir(stream)))
		unlinkat(store.datastore.root, entry->d_name, 0);
	if (stream)
		closedir(stream);
	rmdir(store.path);
}

static void make_store(void)
{
	const char *base = getenv("TMPDIR");
	struct why why = { "" };

	snprintf(store.path, sizeof(store.path), "%s/imgfs-fuzz-XXXXXX",
		base && *base ? base : "/tmp");
	fuzz_check(mkdtemp(store.path) != NULL);
	fuzz_check(datastore_open(&store.datastore, store.path, REFERENCES_FAMILY, &why) == 0);
	atexit(remove_store);
	store.context.datastore = &store.datastore;
	store.context.cache = cache_new(CACHE_BYTES);
	store.datastore.cache = store.context.cache;
	store.datastore.scan_gzip = true;
	fuzz_check(store.context.cache != NULL);
}

void fuzz_begin(void)
{
	if (!store.context.cache)
		make_store();
	while (store.count > 0)
		unlinkat(store.datastore.root, store.names[--store.count], 0);
}

/* Blocks of zeros become holes, which sources may have and which their readers look for. */
void fuzz_file_stays(const char *name, const void *bytes, size_t length)
{
	static const uint8_t zeros[BLOCK];
	int fd = openat(store.datastore.root, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	fuzz_check(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	for (size_t at = 0; at < length; at += BLOCK) {
		const uint8_t *block = (const uint8_t *)bytes + at;
		size_t size = length - at < BLOCK ? length - at : BLOCK;

		if (memcmp(block, zeros, size) != 0)
			fuzz_check(pwrite(fd, block, size, (off_t)at) == (ssize_t)size);
	}
	close(fd);
}

void fuzz_file(const char *name, const void *bytes, size_t length)
{
	fuzz_check(store.count < FILES_MAX && strlen(name) < sizeof(store.names[0]));
	strcpy(store.names[store.count++], name);
	fuzz_file_stays(name, bytes, length);
}

void fuzz_descriptor(const char *type, uint64_t sectors, const char *extent)
{
	char text[512];
	int length = snprintf(text, sizeof(text),
		"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
		"createType=\"custom\"\nRW %" PRIu64 " %s \"%s\"\n",
		sectors, type, extent);

	fuzz_file("disk.vmdk", text, (size_t)length);
}

/* FNV-1a, then splitmix64: every bit of the input moves the reads. */
static struct dice make_dice(const uint8_t *data, size_t size)
{
	struct dice dice = { 0xcbf29ce484222325 };

	for (size_t i = 0; i < size; i++)
		dice.state = (dice.state ^ data[i]) * 0x100000001b3;
	return dice;
}

uint64_t roll(struct dice *dice, uint64_t limit)
{
	uint64_t z = dice->state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	z ^= z >> 31;
	return limit ? z % limit : 0;
}

static void check_facts(const struct image *image, const char *path, const char *name)
{
	fuzz_check(image_size(image) <= INT64_MAX);
	fuzz_check(strcmp(image_path(image), path) == 0);
	fuzz_check(image_file_count(image) >= 1 && image_file_count(image) <= IMAGE_MAX_FILES);
	fuzz_check(strcmp(image_file(image, 0)->path, name) == 0);
	fuzz_check(image_generation(image) == image_generation(image));
	fuzz_check(image_verify(image) == 0);
	fuzz_check(image_mtime(image).tv_nsec < 1000000000);
	fuzz_check(image_ctime(image).tv_nsec < 1000000000);
	if (image_is_standalone(image))
		fuzz_check(image_file_count(image) == 1);
}

/* NULL where it is refused, which needs a reason. */
static struct image *open_path(const char *path, bool listed)
{
	struct why why = { "" };
	struct image *image = NULL;
	int r = image_open(&store.context, path, &image, &why);

	if (r == 0)
		return image;
	fuzz_check(image == NULL);
	fuzz_check(r == -ENOMEDIUM || why.text[0] != '\0');
	/* Of these only this side could be the cause. */
	fuzz_check(r != -EMFILE && r != -ENOMEM && r != -ESTALE && r != -ERANGE);
	fuzz_check(!listed || (r != -ENOENT && r != -ENOMEDIUM));
	return NULL;
}

/* One of its internal snapshots, by the name that the list has. */
static void check_snapshot(
	const char *name, const char *snapshot, uint64_t size, struct dice *dice, unsigned reads)
{
	char path[64 + SNAPSHOT_NAME_MAX + 3];
	struct image *image;

	fuzz_check(strlen(snapshot) <= SNAPSHOT_NAME_MAX);
	snprintf(path, sizeof(path), "%s//%s", name, snapshot);
	image = open_path(path, true);
	if (!image)
		return;
	check_facts(image, path, name);
	fuzz_check(!image_is_standalone(image));
	fuzz_check(image_size(image) == size);
	fuzz_views(image, dice, reads);
	image_unref(image);
}

static void check_snapshots(const struct image *image, const char *name, struct dice *dice)
{
	struct snapshots s;

	fuzz_check(image_snapshots(image, &s) == 0);
	fuzz_check(s.count <= SNAPSHOTS_MAX);
	for (size_t i = 0; i < s.count; i++) {
		fuzz_check(s.list[i].name[0] != '\0' && !strchr(s.list[i].name, '/'));
		fuzz_check(s.list[i].number < SNAPSHOTS_MAX);
		for (size_t k = 0; k < i; k++)
			fuzz_check(strcmp(s.list[i].name, s.list[k].name) != 0);
	}
	for (size_t i = 0; i < s.count && i < SNAPSHOTS_READ; i++)
		check_snapshot(
			name, s.list[i].name, s.list[i].size, dice, READS / SNAPSHOTS_READ / 2);
	snapshots_free(&s);
}

void fuzz_image(const char *name, const uint8_t *data, size_t size)
{
	struct dice dice = make_dice(data, size);
	struct image *image = open_path(name, false);

	if (!image)
		return;
	check_facts(image, name, name);
	fuzz_views(image, &dice, READS);
	check_snapshots(image, name, &dice);
	fuzz_check(image_verify(image) == 0);
	image_unref(image);
}

/* The files that the archive has are images or are not; it itself keeps what it promises. */
void fuzz_archive(const char *name, const uint8_t *data, size_t size)
{
	const struct archived *archived;
	struct why why = { "" };
	int r = datastore_archive(&store.datastore, name, &archived, &why);
	unsigned opened = 0;

	if (r < 0) {
		fuzz_check(why.text[0] != '\0' && r != -ENOMEM && r != -ESTALE && r != -ERANGE);
		return;
	}
	fuzz_check(archived_count(archived) <= ARCHIVE_MAX_FILES);
	for (size_t i = 0; i < archived_count(archived); i++) {
		const struct archived_file *file = archived_at(archived, i);
		char path[512];

		fuzz_check(file->name[0] != '\0' && !strchr(file->name, '/'));
		fuzz_check(!file->error == !file->reason);
		fuzz_check(archived_find(archived, file->name) != NULL);
		snprintf(path, sizeof(path), "%s/%s", name, file->name);
		if (file->is_disk && opened++ < 4)
			fuzz_image(path, data, size);
	}
	archived_put(archived);
}

#define UNPACKED_MAX (1u << 20)

/* Reads here and there what is in a compressed file; what is not large is an image as well. */
void fuzz_compressed(const char *name, const uint8_t *data, size_t size)
{
	struct dice dice = make_dice(data, size);
	struct why why = { "" };
	struct file *file;
	int r = datastore_open_file(&store.datastore, name, &file, &why);
	bool large;

	if (r < 0) {
		fuzz_check(why.text[0] != '\0' && r != -ENOMEM && r != -ESTALE && r != -ERANGE);
		return;
	}
	fuzz_check(file->size <= INT64_MAX && file_descriptor(file) == -1);
	for (unsigned i = 0; i < 8 && file->size > 0; i++) {
		uint64_t at = roll(&dice, file->size);
		uint8_t once[512], again[512];
		size_t length = 1 + (size_t)roll(&dice, sizeof(once) - 1);

		if (length > file->size - at)
			length = (size_t)(file->size - at);
		r = file_read(file, once, length, at);
		fuzz_check(r == 0 || r == -EIO);
		fuzz_check(file_read(file, again, length, at) == r);
		fuzz_check(r < 0 || memcmp(once, again, length) == 0);
	}
	fuzz_check(file_read(file, &dice, 1, file->size) == -ERANGE);
	large = file->size > UNPACKED_MAX;
	file_unref(file);
	if (!large)
		fuzz_image(name, data, size);
}
