/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
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

static bool has_directory(const struct naming_rules *rules, const char *name)
{
	return rules->directory_count > 0 &&
	       bsearch(name, rules->directories, rules->directory_count,
		       sizeof(*rules->directories), compare_name) != NULL;
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

static int concatenate(const char *a, size_t length, const char *b, const char *c, char **whole)
{
	size_t room = length + strlen(b) + strlen(c) + 1;

	*whole = malloc(room);
	if (!*whole)
		return -ENOMEM;
	snprintf(*whole, room, "%.*s%s%s", (int)length, a, b, c);
	return 0;
}

int naming_base(const char *file, bool whole, char **base)
{
	const char *snapshot = strstr(file, SNAPSHOT_MARK);
	autofree char *name = path_of_file(file);
	size_t length;

	*base = NULL;
	if (!name)
		return -ENOMEM;
	length = whole ? strlen(name) : name_stem_length(name);
	if (!snapshot)
		return concatenate(name, length, "", "", base);
	return concatenate(name, length, "@", snapshot + strlen(SNAPSHOT_MARK), base);
}

int naming_view_name(const char *file, bool whole, const struct choice *choice, char **name)
{
	const char *dot = choice->suffix[0] == '-' ? "" : ".";
	autofree char *base = NULL;
	int r;

	/* The suffix of its own format is not doubled. */
	if (whole && choice->base == BASE_ANY && !strstr(file, SNAPSHOT_MARK) &&
		name_has_suffix(file, choice->suffix)) {
		*name = strdup(file);
		return *name ? 0 : -ENOMEM;
	}
	r = naming_base(file, whole, &base);
	if (r < 0)
		return r;
	if (strlen(base) + strlen(dot) + strlen(choice->suffix) > NAME_MAX)
		return -ENAMETOOLONG;
	return concatenate(base, strlen(base), dot, choice->suffix, name);
}

bool naming_ends_in(const char *name, const struct choice *choice, size_t *base)
{
	size_t dot = choice->suffix[0] != '-';
	size_t suffix = strlen(choice->suffix);
	size_t length = strlen(name);

	if (length <= suffix + dot || strcmp(name + length - suffix, choice->suffix) != 0)
		return false;
	*base = length - suffix - dot;
	return !dot || name[*base] == '.';
}

/* Does a directory have the name of one of the views, or of the folder of all of them? */
static int meets_directory(const struct naming_rules *rules, const char *file, bool *meets)
{
	autofree char *base = NULL;
	int r = naming_base(file, false, &base);

	if (r < 0)
		return r;
	*meets = rules->folders && has_directory(rules, base);
	for (size_t i = 0; !rules->folders && i < rules->choices->count; i++) {
		const struct choice *choice = &rules->choices->list[i];
		autofree char *name = NULL;

		if (choice->base == BASE_WHOLE)
			continue;
		r = naming_view_name(file, false, choice, &name);
		if (r == -ENOMEM)
			return r;
		if (r == 0 && has_directory(rules, name))
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

int naming_decide(struct naming *files, size_t count, const struct naming_rules *rules)
{
	autofree struct naming **by_stem = calloc(count + 1, sizeof(struct naming *));
	size_t visible = 0;

	if (!by_stem)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct naming *n = &files[i];
		int r = meets_directory(rules, n->file, &n->whole);

		if (r < 0)
			return r;
		n->hidden = n->file[0] == '.' || is_part_of_descriptor(files, count, n->file);
		n->archive = name_is_archive(n->file);
		if (!n->hidden && !n->archive)
			by_stem[visible++] = n;
	}
	part_equal_stems(by_stem, visible);
	return 0;
}
