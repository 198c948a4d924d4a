/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

static int compare_file(const void *key, const void *element)
{
	return strcmp(key, ((const struct naming *)element)->file);
}

static bool has_file(const struct naming *files, size_t count, const char *name)
{
	return bsearch(name, files, count, sizeof(*files), compare_file) != NULL;
}

static int compare_name(const void *key, const void *element)
{
	return strcmp(key, *(const char *const *)element);
}

static bool has_directory(const char *const *directories, size_t count, const char *name)
{
	return count > 0 &&
	       bsearch(name, directories, count, sizeof(*directories), compare_name) != NULL;
}

/* "x-flat.vmdk" is a part of "x.vmdk" where that is there. */
static bool is_part_of_descriptor(const struct naming *files, size_t count, const char *name)
{
	size_t stem;
	char descriptor[NAME_MAX + 8];

	if (!name_is_extent(name, &stem) || stem + 6 > sizeof(descriptor))
		return false;
	memcpy(descriptor, name, stem);
	strcpy(descriptor + stem, name + name_stem_length(name));
	if (has_file(files, count, descriptor))
		return true;
	strcpy(descriptor + stem, ".vmdk");
	return has_file(files, count, descriptor);
}

int naming_view_name(const char *file, bool whole, const char *suffix, char **name)
{
	size_t stem = whole ? strlen(file) : name_stem_length(file);
	size_t length = strlen(suffix);

	/* The suffix of its own format is not doubled. */
	if (whole && name_has_suffix(file, suffix)) {
		*name = strdup(file);
		return *name ? 0 : -ENOMEM;
	}
	if (stem + 1 + length > NAME_MAX)
		return -ENAMETOOLONG;
	*name = malloc(stem + 1 + length + 1);
	if (!*name)
		return -ENOMEM;
	memcpy(*name, file, stem);
	(*name)[stem] = '.';
	memcpy(*name + stem + 1, suffix, length + 1);
	return 0;
}

/* Does a directory have the name of one of the views? */
static int meets_directory(
	const char *file, const char *const *directories, size_t directory_count, bool *meets)
{
	*meets = false;
	for (const struct view_format *const *v = view_formats; *v; v++) {
		autofree char *name = NULL;
		int r = naming_view_name(file, false, (*v)->suffix, &name);

		if (r == -ENOMEM)
			return r;
		if (r == 0 && has_directory(directories, directory_count, name))
			*meets = true;
	}
	return 0;
}

static int compare_stem(const void *a, const void *b)
{
	const struct naming *x = *(struct naming *const *)a;
	const struct naming *y = *(struct naming *const *)b;
	size_t n = name_stem_length(x->file), m = name_stem_length(y->file);
	int r = memcmp(x->file, y->file, n < m ? n : m);

	if (r != 0)
		return r;
	return n < m ? -1 : n > m;
}

/* Files with one stem, a.qcow2 and a.vmdk, keep their whole names. */
static void part_equal_stems(struct naming **by_stem, size_t count)
{
	qsort(by_stem, count, sizeof(*by_stem), compare_stem);
	for (size_t i = 1; i < count; i++) {
		if (compare_stem(&by_stem[i - 1], &by_stem[i]) == 0)
			by_stem[i - 1]->whole = by_stem[i]->whole = true;
	}
}

int naming_decide(
	struct naming *files, size_t count, const char *const *directories, size_t directory_count)
{
	autofree struct naming **by_stem = calloc(count + 1, sizeof(struct naming *));
	size_t visible = 0;

	if (!by_stem)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct naming *n = &files[i];
		int r = meets_directory(n->file, directories, directory_count, &n->whole);

		if (r < 0)
			return r;
		n->hidden = n->file[0] == '.' || is_part_of_descriptor(files, count, n->file);
		if (!n->hidden)
			by_stem[visible++] = n;
	}
	part_equal_stems(by_stem, visible);
	return 0;
}
