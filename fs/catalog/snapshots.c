/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of internal snapshots: that of the image's view with "@NAME" before the suffix. Which there
 * are is known once the image has been looked at, so they are no part of a folder's names: a
 * listing tells them after the view of their image, and a lookup tries what a name could mean.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

int snapshots_name(const struct catalog_parts *c, const struct folder *folder,
	const struct shown *shown, const struct item *snapshot, char **name)
{
	const struct choice *choice = &c->options.choices.list[shown->view];
	struct item *found;
	size_t view;
	int r = naming_view_name(item_name(snapshot), shown->whole, choice, name);

	if (r < 0)
		return r;
	/* Other files, and other images' snapshots, may be called like that too. */
	found = folder_has_directory(folder, *name) ? NULL
						    : snapshots_find(c, folder, *name, &view);
	item_unref(found);
	if (found == snapshot && view == shown->view)
		return 0;
	free(*name);
	*name = NULL;
	return -ENOENT;
}

/* The snapshot whose name is in [at, end) of name, of the image that is shown as the rest. */
static struct item *find_at(const struct catalog_parts *c, const struct folder *folder,
	const char *name, size_t at, size_t end, size_t *view)
{
	char image[NAME_MAX + 1];
	struct facts facts;
	struct item *item;

	if (strlen(name) > NAME_MAX)
		return NULL;
	memcpy(image, name, at);
	strcpy(image + at, name + end);
	if (!shown_find(folder, image, &item, view) || *view == SHOWN_DIRECTORY ||
		item_facts(c, item, NULL, &facts) < 0)
		return NULL;
	return item_snapshot_named(item, name + at + 1, end - at - 1);
}

struct item *snapshots_find(
	const struct catalog_parts *c, const struct folder *folder, const char *name, size_t *view)
{
	const struct choices *choices = &c->options.choices;
	struct item *unused;

	if (shown_find(folder, name, &unused, view))
		return NULL;
	for (const char *at = strchr(name, '@'); at; at = strchr(at + 1, '@')) {
		for (size_t i = 0; i < choices->count; i++) {
			size_t start = (size_t)(at - name), end;
			struct item *item = NULL;

			if (start > 0 && naming_ends_in(name, &choices->list[i], &end) &&
				end > start + 1)
				item = find_at(c, folder, name, start, end, view);
			if (item && *view == i)
				return item;
			item_unref(item);
		}
	}
	return NULL;
}
