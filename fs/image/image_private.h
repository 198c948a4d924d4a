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

/* Where an image has data; made at the first use, and the same from then on. */
struct learned {
	struct occupancy *occupancy;
	bool without_zeroes; /* of the content too; never without detect_zeroes */
	char *reason;        /* why there is none, which follows from the image itself */
	uint64_t allocated;  /* guest bytes, of an occupancy */
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

	pthread_mutex_t occupancy_lock; /* held for as long as it takes to learn it */
	struct learned learned;
	_Atomic uint64_t allocated; /* guest bytes, plus 1; 0: not known; needs no lock */
};

void learned_clear(struct learned *learned);

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

/* Is the suffix one of those that declare the format? */
bool format_has_suffix(const struct image_format *format, const char *suffix);

/* Does the magic agree with a format that was declared or recorded? raw always does. */
int recognise_as(const struct file *file, const struct image_format *format, struct why *why);

/* Opens layer 0 on its file and then parent after parent. */
int chain_open(
	struct image *image, struct file *file, const struct image_format *format, struct why *why);
void chain_close(struct image *image);

/*
 * Looks for the parent of a layer that knows it by an id (layer_find_parent()). *file has one
 * reference. -ENOENT where it is not among the files that the image may name.
 */
int find_parent(const struct layer *layer, struct file **file, struct why *why);

/* Layer 0 becomes what it was at the snapshot of that name. -ENOENT: there is none. */
int snapshot_use(struct layer *layer, const char *name, struct why *why);

/*
 * Reads the packed bytes of an extent, at most what the file has of them; *packed is the caller's
 * to free. 0, -ENOMEM, -ESTALE, or what reading says.
 */
int unit_read(const struct extent *extent, uint8_t **packed, size_t *length);

/*
 * Takes the units out of the occupancy that hold nothing but zeros: reads all that is allocated,
 * with several threads. Errors as for image_occupancy(); -EFBIG where it is not worth it, for the
 * image has so little data of its own that its tables must use it again and again, or has too
 * scattered a map. The occupancy is good for nothing after an error.
 */
int zeroes_take_out(const struct image *image, struct occupancy *o);

#endif
