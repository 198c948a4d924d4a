/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a folder: a view of an image each, or a directory that an image or archive is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Takes over the name. */
static void add(struct folder *folder, char *name, struct item *item, size_t view, bool whole)
{
	if (folder_has_directory(folder, name)) {
		free(name);
		return;
	}
	folder->shown[folder->shown_count++] = (struct shown) { name, item, view, whole };
}

static int add_directory(struct folder *folder, struct item *item, bool whole)
{
	char *name;
	int r = naming_base(item_name(item), whole, &name);

	if (r == 0)
		add(folder, name, item, SHOWN_DIRECTORY, whole);
	return r;
}

static int add_views(struct folder *folder, struct item *item, bool whole)
{
	for (size_t i = 0; i < folder->choices->count; i++) {
		const struct choice *choice = &folder->choices->list[i];
		char *name;
		int r;

		if (choice->base == (whole ? BASE_STEM : BASE_WHOLE))
			continue;
		r = naming_view_name(item_name(item), whole, choice, &name);
		if (r == 0)
			add(folder, name, item, i, whole);
		else if (r != -ENAMETOOLONG)
			return r;
	}
	return 0;
}

/* By name; where two have one name, the source file of just that name first. */
static int compare_shown(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;
	int r = strcmp(x->name, y->name);
	bool x_is_file, y_is_file;

	if (r != 0)
		return r;
	x_is_file = strcmp(x->name, item_name(x->item)) == 0;
	y_is_file = strcmp(y->name, item_name(y->item)) == 0;
	if (x_is_file != y_is_file)
		return x_is_file ? -1 : 1;
	return strcmp(item_name(x->item), item_name(y->item));
}

static void drop_duplicates(struct folder *folder)
{
	size_t kept = 0;

	for (size_t i = 0; i < folder->shown_count; i++) {
		struct shown *s = &folder->shown[i];

		if (kept > 0 && strcmp(folder->shown[kept - 1].name, s->name) == 0) {
			log_debug("%s: its view %s is hidden by another file",
				quote(item_path(s->item)).text, quote(s->name).text);
			free(s->name);
			continue;
		}
		folder->shown[kept++] = *s;
	}
	folder->shown_count = kept;
}

static void sort(struct folder *folder)
{
	qsort(folder->shown, folder->shown_count, sizeof(*folder->shown), compare_shown);
	drop_duplicates(folder);
}

static int make_room(struct folder *folder)
{
	folder->shown =
		calloc(folder->item_count * folder->choices->count + 1, sizeof(*folder->shown));
	return folder->shown ? 0 : -ENOMEM;
}

int shown_fill(struct folder *folder, const struct naming *files)
{
	int r = make_room(folder);

	for (size_t i = 0; r == 0 && i < folder->item_count; i++) {
		struct item *item = folder->items[i];

		if (files[i].archive || folder->folders)
			r = add_directory(folder, item, files[i].archive || files[i].whole);
		else
			r = add_views(folder, item, files[i].whole);
	}
	if (r == 0)
		sort(folder);
	return r;
}

int shown_fill_views(struct folder *folder)
{
	int r = make_room(folder);

	if (r == 0)
		r = add_views(folder, folder->items[0], false);
	if (r == 0)
		sort(folder);
	return r;
}

static int compare_shown_name(const void *key, const void *element)
{
	return strcmp(key, ((const struct shown *)element)->name);
}

static const struct shown *find_shown(const struct folder *folder, const char *name)
{
	if (folder->shown_count == 0)
		return NULL;
	return bsearch(name, folder->shown, folder->shown_count, sizeof(*folder->shown),
		compare_shown_name);
}

/* The item whose name is the first `length` bytes of name. */
static struct item *find_item(const struct folder *folder, const char *name, size_t length)
{
	autofree char *file = strndup(name, length);

	return file ? folder_item(folder, file) : NULL;
}

/* "a.qcow2.raw" is the raw view of a.qcow2 whether the listing says so or not. */
static bool find_whole_name(
	const struct folder *folder, const char *name, struct item **item, size_t *view)
{
	for (size_t i = 0; i < folder->choices->count; i++) {
		const struct choice *choice = &folder->choices->list[i];
		size_t base;

		if (choice->base == BASE_STEM)
			continue;
		*view = i;
		*item = NULL;
		if (naming_ends_in(name, choice, &base))
			*item = find_item(folder, name, base);
		if (!*item && choice->base == BASE_ANY && name_has_suffix(name, choice->suffix))
			*item = folder_item(folder, name);
		if (*item && !name_is_archive(item_name(*item)))
			return true;
	}
	return false;
}

bool shown_find(const struct folder *folder, const char *name, struct item **item, size_t *view)
{
	const struct shown *shown = find_shown(folder, name);

	if (!shown && folder->folders) {
		*item = folder_item(folder, name);
		*view = SHOWN_DIRECTORY;
		return *item != NULL;
	}
	if (!shown)
		return find_whole_name(folder, name, item, view);
	*item = shown->item;
	*view = shown->view;
	return true;
}
