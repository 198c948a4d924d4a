/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking for a parent that an image knows by an id and not by name.
 *
 * It is looked for in the directory of the child, and with references=datastore in the one above
 * too: VirtualBox keeps a disk beside its machine, and what differs from it in a directory
 * "Snapshots" there. Only files that the image may name are opened, through the gate as all are,
 * and of each only the beginning is read. Which one is found follows from the names: the first one
 * of the right state in the order of their bytes.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_private.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Each is opened, by each child that is opened. */
#define CANDIDATES_MAX 512u

/* Names that are read of a directory. */
#define NAMES_MAX 200000u

struct candidates {
	char *paths[CANDIDATES_MAX];
	size_t count;
};

static void candidates_free(struct candidates *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->paths[i]);
}

static void close_stream(DIR **stream)
{
	if (*stream)
		closedir(*stream);
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* `from` is a path in the directory of the name. A name that the policy refuses is passed over. */
static int add_candidate(const struct layer *layer, const char *from, const char *name,
	struct candidates *c, struct why *why)
{
	const struct image *image = layer->image;
	char *path;
	int r;

	if (name[0] == '.' || !format_has_suffix(layer->format, name_suffix(name)))
		return 0;
	r = reference_resolve(image->context->datastore, image->layers[0].file->path, from, name,
		strlen(name), &path, NULL);
	if (r < 0)
		return r == -ENOMEM ? why_set(why, r, "out of memory") : 0;
	if (strcmp(path, layer->file->path) == 0) {
		free(path);
		return 0;
	}
	if (c->count == CANDIDATES_MAX) {
		free(path);
		return why_set(why, -EFBIG, "more than %u files could be its parent, %s",
			CANDIDATES_MAX, layer->parent_name);
	}
	c->paths[c->count++] = path;
	return 0;
}

static int read_names(const struct layer *layer, const char *from, DIR *stream,
	struct candidates *c, struct why *why)
{
	const struct dirent *entry;

	for (unsigned names = 0; names < NAMES_MAX; names++) {
		int r;

		errno = 0;
		entry = readdir(stream);
		if (!entry && errno != 0)
			return why_set(why, -errno, "its parent cannot be looked for: %s",
				strerror(errno));
		if (!entry)
			break;
		r = add_candidate(layer, from, entry->d_name, c, why);
		if (r < 0)
			return r;
	}
	return 0;
}

static int list_candidates(
	const struct layer *layer, const char *from, struct candidates *c, struct why *why)
{
	const char *slash = strrchr(from, '/');
	autofree char *directory = strndup(from, slash ? (size_t)(slash - from) : 0);
	DIR *stream cleanup_with(close_stream) = NULL;
	int r, fd;

	if (!directory)
		return why_set(why, -ENOMEM, "out of memory");
	fd = datastore_open_dir(layer->image->context->datastore, directory);
	if (fd < 0)
		return why_set(why, fd, "its parent cannot be looked for: %s", strerror(-fd));
	stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return why_set(why, -ENOMEM, "out of memory");
	}
	r = read_names(layer, from, stream, c, why);
	if (r == 0 && c->count > 0)
		qsort(c->paths, c->count, sizeof(c->paths[0]), compare_paths);
	return r;
}

/* Is it so with this file, and will stay so? One that cannot be opened is not the parent then. */
static bool is_lasting(int err)
{
	return err == -ENOENT || err == -EACCES || err == -EPERM || err == -ELOOP ||
	       err == -EXDEV || err == -EINVAL || err == -ENOTDIR;
}

/* *match says what the file is to the layer; *file is set, with a reference, unless PARENT_NOT. */
static int try_candidate(const struct layer *layer, const char *path, struct file **file,
	enum parent_match *match, struct why *why)
{
	uint8_t head[PROBE_BYTES];
	struct probe probe = { .head = head };
	struct file *opened;
	int r = datastore_open_file(layer->image->context->datastore, path, &opened, why);

	*match = PARENT_NOT;
	if (r < 0) {
		why_prefix(why, "looking for its parent in %s", quote(path).text);
		return is_lasting(r) ? 0 : r;
	}
	probe.size = opened->size;
	probe.head_length = min_u64(PROBE_BYTES, probe.size);
	r = file_read(opened, head, probe.head_length, 0);
	if (r == 0)
		*match = layer->format->is_parent(layer, &probe);
	else
		why_set(why, r, "looking for its parent in %s: %s", quote(path).text, strerror(-r));
	if (*match == PARENT_NOT)
		file_unref(opened);
	else
		*file = opened;
	return r;
}

/* Keeps in *file the first one that is of the right state, or else the first of another. */
static int search(const struct layer *layer, const char *from, struct file **file,
	enum parent_match *best, struct why *why)
{
	struct candidates c cleanup_with(candidates_free) = { .count = 0 };
	int r = list_candidates(layer, from, &c, why);

	for (size_t i = 0; r == 0 && *best != PARENT_YES && i < c.count; i++) {
		enum parent_match match;
		struct file *found;

		r = try_candidate(layer, c.paths[i], &found, &match, why);
		if (r < 0 || match == PARENT_NOT)
			continue;
		if (match <= *best) {
			file_unref(found);
			continue;
		}
		if (*best != PARENT_NOT)
			file_unref(*file);
		*file = found;
		*best = match;
	}
	return r;
}

/* The directory of a path as a path of its own, which is then looked for beside; NULL at the root.
 */
static int directory_of(const char *path, char **directory, struct why *why)
{
	const char *slash = strrchr(path, '/');

	*directory = slash ? strndup(path, (size_t)(slash - path)) : NULL;
	return slash && !*directory ? why_set(why, -ENOMEM, "out of memory") : 0;
}

int find_parent(const struct layer *layer, struct file **file, struct why *why)
{
	enum reference_policy policy = layer->image->context->datastore->references;
	enum parent_match best = PARENT_NOT;
	autofree char *above = NULL;
	int r;

	if (policy == REFERENCES_NONE)
		return why_set(why, -EPERM,
			"its parent is %s, and references=none (-o references=family or datastore "
			"would look for it)",
			layer->parent_name);
	r = search(layer, layer->file->path, file, &best, why);
	if (r == 0 && best != PARENT_YES && policy == REFERENCES_DATASTORE) {
		r = directory_of(layer->file->path, &above, why);
		if (r == 0 && above)
			r = search(layer, above, file, &best, why);
	}
	if (r < 0 && best != PARENT_NOT)
		file_unref(*file);
	if (r < 0)
		return r;
	if (best != PARENT_NOT)
		return 0;
	return why_set(why, -ENOENT, "its parent, %s, is not among the files %s",
		layer->parent_name,
		policy == REFERENCES_DATASTORE ? "beside it and in the directory above"
					       : "of its own family (-o references=datastore would "
						 "look at all beside it)");
}
