/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the image core share. Neither formats nor views include this. */
#ifndef IMGFS_IMAGE_PRIVATE_H
#define IMGFS_IMAGE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "imgfs/image.h"
#include "imgfs/occupancy.h"

struct image_member {
	struct file *file;
	const struct layer *layer; /* the layer that named it */
};

struct image {
	const struct image_context *context;
	char *path;
	atomic_uint refs;

	/* Its format is declared (by a rule or its suffix), so it may name other files. */
	bool declared;

	/* Grow while the image is opened, then stay as they are. */
	struct layer layers[IMAGE_MAX_LAYERS];
	size_t layer_count;
	struct image_member *members;
	size_t member_count;

	pthread_mutex_t occupancy_lock;
	struct occupancy *occupancy; /* made at its first use; under the lock until then */
	char *no_occupancy;          /* or why there is none */
};

static inline struct cache *image_cache(const struct image *image)
{
	return image->context->cache;
}

/*
 * Which format is it? See image_open() for the rule. *declared: by more than its magic.
 * -ENOMEDIUM where it is no image and nobody said that it was one.
 */
int recognise(const struct image_context *context, const struct file *file,
	const struct image_format **format, bool *declared, struct why *why);

/* Does the magic agree with a format that was declared or recorded? raw always does. */
int recognise_as(const struct file *file, const struct image_format *format, struct why *why);

/* Opens layer 0 on its file and then parent after parent. */
int chain_open(
	struct image *image, struct file *file, const struct image_format *format, struct why *why);
void chain_close(struct image *image);

#endif
