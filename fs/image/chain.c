/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chain of layers, and every file that any of them names.
 *
 * The chain is opened from the top down, one layer after the other without recursion. Whatever a
 * layer names passes the references policy with the family of the image at the top: reading a
 * parent gives a tenant nothing that the top could not have named itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Makes the file one of the image's. Takes its own reference on success. */
static int add_member(
	struct image *image, const struct layer *layer, struct file *file, struct why *why)
{
	struct image_member *grown;

	if (image->member_count == IMAGE_MAX_FILES)
		return why_set(why, -EINVAL, "it is made of more than %d files", IMAGE_MAX_FILES);
	grown = reallocarray(image->members, image->member_count + 1, sizeof(*grown));
	if (!grown)
		return why_set(why, -ENOMEM, "out of memory");
	image->members = grown;
	grown[image->member_count++] = (struct image_member) {
		.file = file_ref(file),
		.layer = layer,
	};
	return 0;
}

static int check_declared(const struct layer *layer, const char *shown, struct why *why)
{
	if (layer->image->declared)
		return 0;
	return why_set(why, -EPERM,
		"only its content says that it is %s, so it may not name %s "
		"(-o format=GLOB:%s declares it)",
		layer->format->name, shown, layer->format->name);
}

/* Opens what `layer` names. The caller has a reference to *file. */
static int open_reference(
	struct layer *layer, const char *name, size_t length, struct file **file, struct why *why)
{
	struct image *image = layer->image;
	const struct datastore *ds = image->context->datastore;
	struct quoted shown = quote_bytes(name, length);
	autofree char *path = NULL;
	int r = check_declared(layer, shown.text, why);

	if (r < 0)
		return r;
	r = reference_resolve(
		ds, image->layers[0].file->path, layer->file->path, name, length, &path, why);
	if (r < 0)
		return r;
	r = datastore_open_file(ds, path, file, why);
	if (r < 0)
		why_prefix(why, "it names %s", shown.text);
	return r;
}

/* The member that is this very file; NULL for none. */
static const struct image_member *find_member(const struct image *image, const struct file *file)
{
	for (size_t i = 0; i < image->member_count; i++) {
		if (file_is_same(image->members[i].file, file))
			return &image->members[i];
	}
	return NULL;
}

int layer_open_file(
	struct layer *layer, const char *name, size_t length, struct file **file, struct why *why)
{
	const struct image_member *known;
	struct file *opened;
	int r;

	r = open_reference(layer, name, length, &opened, why);
	if (r < 0)
		return r;
	known = find_member(layer->image, opened);
	if (!known) {
		r = add_member(layer->image, layer, opened, why);
		if (r == 0)
			*file = opened;
	} else if (known->layer == layer && known->file != layer->file) {
		*file = known->file;
	} else {
		r = why_set(why, -ELOOP, "it names %s, which is a part of it already",
			quote_bytes(name, length).text);
	}
	file_unref(opened);
	return r;
}

int layer_set_parent(struct layer *layer, const char *name, size_t length, const char *format_name,
	struct why *why)
{
	if (format_name && *format_name) {
		layer->parent_format = image_format_by_name(format_name);
		if (!layer->parent_format)
			return why_set(why, -ENOTSUP,
				"its parent has the format %s, which is not "
				"supported",
				quote(format_name).text);
	}
	layer->parent_name = malloc(length + 1);
	if (!layer->parent_name)
		return why_set(why, -ENOMEM, "out of memory");
	memcpy(layer->parent_name, name, length);
	layer->parent_name[length] = '\0';
	layer->parent_name_length = length;
	return 0;
}

int layer_find_parent(struct layer *layer, const char *what, struct why *why)
{
	layer->parent_by_id = true;
	return layer_set_parent(layer, what, strlen(what), layer->format->name, why);
}

static int open_layer(
	struct image *image, struct file *file, const struct image_format *format, struct why *why)
{
	struct layer *layer = &image->layers[image->layer_count];
	int r;

	*layer = (struct layer) { .format = format, .image = image, .file = file };
	r = add_member(image, layer, file, why);
	if (r == 0)
		r = format->open(layer, why);
	if (r == 0 && layer->size > INT64_MAX) {
		r = why_set(why, -EINVAL, "its virtual size is beyond 2^63");
		if (format->close)
			format->close(layer);
	}
	if (r < 0) {
		free(layer->parent_name);
		layer->parent_name = NULL;
		return r;
	}
	image->layer_count++;
	return 0;
}

/* What is the parent's format where the child does not record it? */
static int guess_parent_format(struct layer *layer, struct why *why)
{
	if (strlen(layer->parent_name) == layer->parent_name_length &&
		name_has_suffix(layer->parent_name, "raw")) {
		layer->parent_format = image_format_by_name("raw");
		return 0;
	}
	return why_set(why, -EINVAL, "it does not record the format of its backing file %s",
		quote_bytes(layer->parent_name, layer->parent_name_length).text);
}

static int open_parent_file(struct layer *child, struct file **file, struct why *why)
{
	int r;

	if (!child->parent_by_id)
		return open_reference(
			child, child->parent_name, child->parent_name_length, file, why);
	r = check_declared(child, child->parent_name, why);
	return r < 0 ? r : find_parent(child, file, why);
}

static int open_parent(struct layer *child, struct why *why)
{
	struct image *image = child->image;
	struct file *file;
	int r;

	if (image->layer_count == IMAGE_MAX_LAYERS)
		return why_set(why, -ELOOP, "its chain has more than %d layers", IMAGE_MAX_LAYERS);
	if (!child->parent_format) {
		r = guess_parent_format(child, why);
		if (r < 0)
			return r;
	}
	r = open_parent_file(child, &file, why);
	if (r < 0)
		return r;
	if (find_member(image, file))
		r = why_set(why, -ELOOP, "its chain comes back to %s", quote(file->path).text);
	if (r == 0)
		r = recognise_as(file, child->parent_format, why);
	if (r == 0)
		r = open_layer(image, file, child->parent_format, why);
	if (r < 0 && r != -ELOOP)
		why_prefix(why, "its parent %s", quote(file->path).text);
	file_unref(file);
	if (r < 0)
		return r;
	child->parent = &image->layers[image->layer_count - 1];
	if (child->format->accept_parent)
		return child->format->accept_parent(child, child->parent, why);
	return 0;
}

int chain_open(
	struct image *image, struct file *file, const struct image_format *format, struct why *why)
{
	const char *snapshot = strstr(image->path, SNAPSHOT_MARK);
	int r = open_layer(image, file, format, why);

	if (r == 0 && snapshot)
		r = snapshot_use(&image->layers[0], snapshot + strlen(SNAPSHOT_MARK), why);
	while (r == 0 && image->layers[image->layer_count - 1].parent_name)
		r = open_parent(&image->layers[image->layer_count - 1], why);
	return r;
}

void chain_close(struct image *image)
{
	for (size_t i = 0; i < image->layer_count; i++) {
		struct layer *layer = &image->layers[i];

		if (layer->format->close)
			layer->format->close(layer);
		free(layer->parent_name);
	}
}
