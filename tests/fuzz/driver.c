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

#include "imgfs/cache.h"
#include "imgfs/datastore.h"

#define READS 2048

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

static void check_facts(const struct image *image, const char *name)
{
	fuzz_check(image_size(image) <= INT64_MAX);
	fuzz_check(strcmp(image_path(image), name) == 0);
	fuzz_check(image_file_count(image) >= 1 && image_file_count(image) <= IMAGE_MAX_FILES);
	fuzz_check(strcmp(image_file(image, 0)->path, name) == 0);
	fuzz_check(image_generation(image) == image_generation(image));
	fuzz_check(image_verify(image) == 0);
	fuzz_check(image_mtime(image).tv_nsec < 1000000000);
	fuzz_check(image_ctime(image).tv_nsec < 1000000000);
	if (image_is_standalone(image))
		fuzz_check(image_file_count(image) == 1);
}

void fuzz_image(const char *name, const uint8_t *data, size_t size)
{
	struct dice dice = make_dice(data, size);
	struct why why = { "" };
	struct image *image = NULL;
	int r = image_open(&store.context, name, &image, &why);

	if (r < 0) {
		fuzz_check(image == NULL);
		fuzz_check(r == -ENOMEDIUM || why.text[0] != '\0');
		/* Of these only this side could be the cause. */
		fuzz_check(r != -EMFILE && r != -ENOMEM && r != -ESTALE && r != -ERANGE);
		return;
	}
	check_facts(image, name);
	fuzz_views(image, &dice, READS);
	fuzz_check(image_verify(image) == 0);
	image_unref(image);
}
