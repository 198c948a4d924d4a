/* SPDX-License-Identifier: Apache-2.0 */
/* An open image: its lifetime, its files, and whether they are still what was opened. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "image_private.h"
#include "imgfs/cache.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"
#include "imgfs/wire.h"

static void image_destroy(struct image *image)
{
	chain_close(image);
	for (size_t i = 0; i < image->member_count; i++) {
		cache_drop_file(image_cache(image), image->members[i].file->serial);
		file_unref(image->members[i].file);
	}
	free(image->members);
	learned_clear(&image->learned);
	pthread_mutex_destroy(&image->occupancy_lock);
	free(image->path);
	free(image);
}

static struct image *image_new(const struct image_context *context, const char *path)
{
	struct image *image = calloc(1, sizeof(*image));

	if (!image)
		return NULL;
	image->context = context;
	atomic_init(&image->refs, 1);
	pthread_mutex_init(&image->occupancy_lock, NULL);
	image->path = strdup(path);
	if (!image->path) {
		image_destroy(image);
		return NULL;
	}
	return image;
}

int image_open(const struct image_context *context, const char *path, struct image **image,
	struct why *why)
{
	const struct image_format *format;
	struct image *opened = image_new(context, path);
	autofree char *file_path = path_of_file(path);
	struct file *file;
	int r;

	if (!opened || !file_path) {
		image_unref(opened);
		return why_set(why, -ENOMEM, "out of memory");
	}
	r = datastore_open_file(context->datastore, file_path, &file, why);
	if (r < 0) {
		image_unref(opened);
		return r;
	}
	r = recognise(context, file, &format, &opened->declared, why);
	if (r == 0)
		r = chain_open(opened, file, format, why);
	file_unref(file);
	if (r < 0) {
		image_unref(opened);
		return r;
	}
	*image = opened;
	return 0;
}

struct image *image_ref(struct image *image)
{
	atomic_fetch_add(&image->refs, 1);
	return image;
}

void image_unref(struct image *image)
{
	if (image && atomic_fetch_sub(&image->refs, 1) == 1)
		image_destroy(image);
}

uint64_t image_size(const struct image *image)
{
	return image->layers[0].size;
}

const struct image_format *image_format_of(const struct image *image)
{
	return image->layers[0].format;
}

const char *image_variant(const struct image *image)
{
	return image->layers[0].variant;
}

const char *image_path(const struct image *image)
{
	return image->path;
}

bool image_is_standalone(const struct image *image)
{
	return image->layer_count == 1 && image->member_count == 1 && image->layers[0].standalone;
}

size_t image_file_count(const struct image *image)
{
	return image->member_count;
}

const struct file *image_file(const struct image *image, size_t index)
{
	return image->members[index].file;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static struct timespec newest(const struct image *image, bool change)
{
	struct timespec time = { 0 };

	for (size_t i = 0; i < image->member_count; i++) {
		const struct file_state *state = &image->members[i].file->state;
		const struct timespec *t = change ? &state->ctime : &state->mtime;

		if (i == 0 || is_later(t, &time))
			time = *t;
	}
	return time;
}

struct timespec image_mtime(const struct image *image)
{
	return newest(image, false);
}

struct timespec image_ctime(const struct image *image)
{
	return newest(image, true);
}

/*
 * The states of the files, one hashed with the other as its seed. The device number is left out:
 * it is not the same after a reboot or on another machine.
 */
static uint64_t hash_state(const struct file_state *state, uint64_t seed)
{
	uint8_t bytes[48];

	put_le64(bytes, state->ino);
	put_le64(bytes + 8, state->size);
	put_le64(bytes + 16, (uint64_t)state->mtime.tv_sec);
	put_le64(bytes + 24, (uint64_t)state->mtime.tv_nsec);
	put_le64(bytes + 32, (uint64_t)state->ctime.tv_sec);
	put_le64(bytes + 40, (uint64_t)state->ctime.tv_nsec);
	return XXH3_64bits_withSeed(bytes, sizeof(bytes), seed);
}

uint64_t image_generation(const struct image *image)
{
	uint64_t hash = 0;

	for (size_t i = 0; i < image->member_count; i++) {
		const struct file *file = image->members[i].file;

		hash = hash_state(&file->state, hash + file->part);
	}
	return hash;
}

int image_verify(const struct image *image)
{
	for (size_t i = 0; i < image->member_count; i++) {
		int r = file_verify(image->members[i].file);

		if (r < 0)
			return r;
	}
	return 0;
}

const struct file *image_in_use(const struct image *image)
{
	for (size_t i = 0; i < image->member_count; i++) {
		if (file_in_use(image->members[i].file))
			return image->members[i].file;
	}
	return NULL;
}
