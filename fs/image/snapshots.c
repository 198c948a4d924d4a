/* SPDX-License-Identifier: Apache-2.0 */
/* Internal snapshots: what they are called, and which one a path means. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* All of them as the image has them. */
struct seen {
	const struct layer *layer;
	struct snapshot_seen *list;
	size_t count;
};

static int collect(const struct snapshot_seen *snapshot, void *argument)
{
	struct seen *seen = argument;
	struct snapshot_seen *grown;

	if ((seen->count & (seen->count - 1)) == 0) {
		grown = reallocarray(seen->list, seen->count ? seen->count * 2 : 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		seen->list = grown;
	}
	seen->list[seen->count++] = *snapshot;
	return 0;
}

static bool can_be_in_path(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f || text[i] == '/')
			return false;
	}
	return length > 0;
}

static bool is_taken(const struct snapshots *s, const char *text, size_t length)
{
	for (size_t i = 0; i < s->count; i++) {
		if (strlen(s->list[i].name) == length && memcmp(s->list[i].name, text, length) == 0)
			return true;
	}
	return false;
}

static int compare_names(const void *a, const void *b)
{
	const struct snapshot_seen *x = *(const struct snapshot_seen *const *)a;
	const struct snapshot_seen *y = *(const struct snapshot_seen *const *)b;

	if (x->name_length != y->name_length)
		return x->name_length < y->name_length ? -1 : 1;
	return memcmp(x->name, y->name, x->name_length);
}

/* Names that several have, or that cannot be in a path, are no names. */
static int drop_names(struct seen *seen)
{
	autofree struct snapshot_seen **sorted = calloc(seen->count + 1, sizeof(*sorted));
	bool before = false;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < seen->count; i++) {
		sorted[i] = &seen->list[i];
		if (!can_be_in_path(sorted[i]->name, sorted[i]->name_length))
			sorted[i]->name_length = 0;
	}
	qsort(sorted, seen->count, sizeof(*sorted), compare_names);
	for (size_t i = 0; i < seen->count; i++) {
		bool after = i + 1 < seen->count && compare_names(&sorted[i], &sorted[i + 1]) == 0;

		if (before || after)
			sorted[i]->name_length = 0;
		before = after;
	}
	return 0;
}

static int add(
	struct snapshots *s, const struct snapshot_seen *one, const char *text, size_t length)
{
	char *name = strndup(text, length);

	if (!name)
		return -ENOMEM;
	s->list[s->count].name = name;
	s->list[s->count].number = one->number;
	s->list[s->count].size = one->size;
	s->count++;
	return 0;
}

static bool has_own_id(const struct seen *seen, const struct snapshot_seen *one)
{
	for (size_t i = 0; i < seen->count; i++) {
		const struct snapshot_seen *other = &seen->list[i];

		if (other != one && other->id_length == one->id_length &&
			memcmp(other->id, one->id, one->id_length) == 0)
			return false;
	}
	return true;
}

/* First those that have names of their own, so that no id takes one of these. */
static int name_them(const struct seen *seen, bool by_id, struct snapshots *s)
{
	for (size_t i = 0; i < seen->count; i++) {
		const struct snapshot_seen *one = &seen->list[i];
		bool named = one->name_length > 0;
		int r = 0;

		if (!by_id && named)
			r = add(s, one, one->name, one->name_length);
		else if (by_id && !named && can_be_in_path(one->id, one->id_length) &&
			 has_own_id(seen, one) && !is_taken(s, one->id, one->id_length))
			r = add(s, one, one->id, one->id_length);
		else if (by_id && !named)
			log_limited("%s: its snapshot number %u has no name that can be shown",
				quote(seen->layer->file->path).text, one->number);
		if (r < 0)
			return r;
	}
	return 0;
}

static int list_snapshots(const struct layer *layer, struct snapshots *s)
{
	struct seen seen = { .layer = layer };
	int r = 0;

	*s = (struct snapshots) { 0 };
	if (layer->format->snapshots)
		r = layer->format->snapshots(layer, collect, &seen);
	if (r == -EINVAL) {
		log_limited("%s: its table of snapshots cannot be read: %s",
			quote(layer->file->path).text, strerror(-r));
		r = 0;
	}
	if (r == 0)
		r = drop_names(&seen);
	if (r == 0) {
		s->list = calloc(seen.count + 1, sizeof(*s->list));
		r = s->list ? name_them(&seen, false, s) : -ENOMEM;
	}
	if (r == 0)
		r = name_them(&seen, true, s);
	free(seen.list);
	if (r < 0)
		snapshots_free(s);
	return r;
}

int image_snapshots(const struct image *image, struct snapshots *snapshots)
{
	return list_snapshots(&image->layers[0], snapshots);
}

void snapshots_free(struct snapshots *snapshots)
{
	for (size_t i = 0; i < snapshots->count; i++)
		free(snapshots->list[i].name);
	free(snapshots->list);
	*snapshots = (struct snapshots) { 0 };
}

int snapshot_use(struct layer *layer, const char *name, struct why *why)
{
	struct snapshots s;
	int r = list_snapshots(layer, &s);

	if (r < 0)
		return why_set(why, r, "its snapshots cannot be read: %s", strerror(-r));
	r = why_set(why, -ENOENT, "it has no snapshot %s", quote(name).text);
	for (size_t i = 0; i < s.count; i++) {
		if (strcmp(s.list[i].name, name) == 0)
			r = layer->format->use_snapshot(layer, s.list[i].number, why);
	}
	snapshots_free(&s);
	return r;
}
