/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory as it is read: the names are those of one moment, and each image is looked at when
 * its names are told. So the first names come at once however many images there are, and who
 * wants attributes gets them while the image is still open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/crew.h"
#include "imgfs/names.h"

int listing_new(const struct catalog_parts *parts, struct folder *folder, struct listing **listing)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->parts = parts;
	l->folder = folder_ref(folder);
	*listing = l;
	return 0;
}

void listing_destroy(struct listing *listing)
{
	folder_unref(listing->folder);
	free(listing);
}

/* ---- a stretch of it ---- */

void listing_read_begin(struct listing_reader *reader, const struct listing *listing,
	uint64_t position, bool attributes)
{
	*reader = (struct listing_reader) {
		.listing = listing,
		.position = position,
		.attributes = attributes,
		.since = age_steady(),
	};
	/* Without it everything is found all the same. */
	if (datastore_open_directory(listing->parts->images->datastore, listing->folder->path,
		    &reader->directory) < 0)
		reader->directory.fd = -1;
}

void listing_read_end(struct listing_reader *reader)
{
	if (reader->directory.fd >= 0)
		close(reader->directory.fd);
}

/* ---- positions ---- */

/*
 * A position is the number of a name, and in its lower bits that of a snapshot, from 1, whose view
 * follows that of its image.
 */
#define SNAPSHOT_BITS 11
#define LAST_SNAPSHOT ((1u << SNAPSHOT_BITS) - 1)

_Static_assert(SNAPSHOTS_MAX < 1 << SNAPSHOT_BITS, "each snapshot has a position");

static uint64_t index_at(const struct listing_reader *reader)
{
	return reader->position >> SNAPSHOT_BITS;
}

static size_t snapshot_at(const struct listing_reader *reader)
{
	return reader->position & LAST_SNAPSHOT;
}

static const struct shown *shown_at(const struct listing_reader *reader)
{
	const struct folder *folder = reader->listing->folder;

	return &folder->shown[index_at(reader) - folder->directory_count];
}

/* The snapshot at the position, or the image itself; NULL: there is none. Takes a reference. */
static struct item *item_at(const struct listing_reader *reader)
{
	const struct shown *shown = shown_at(reader);
	size_t snapshot = snapshot_at(reader);

	if (snapshot == 0)
		return item_ref(shown->item);
	return shown->view == SHOWN_DIRECTORY ? NULL : item_snapshot(shown->item, snapshot - 1);
}

/* ---- entries ---- */

static int read_directory(struct listing_reader *reader, struct listing_entry *entry)
{
	const struct folder *folder = reader->listing->folder;
	const char *name = folder->directories[index_at(reader)];
	autofree char *path = path_join(folder->path, name);

	if (!path)
		return -ENOMEM;
	*entry = (struct listing_entry) {
		.name = name,
		.directory = true,
		.id = nodes_directory_id(path),
	};
	return 1;
}

/* Names of one image nearly always follow each other, and it is looked at once for all of them. */
static int item_now(struct listing_reader *reader, struct item *item, struct facts *facts)
{
	if (item_facts_since(item, reader->since, facts) == 0)
		return 0;
	return item_facts(reader->listing->parts, item,
		reader->directory.fd >= 0 ? &reader->directory : NULL, facts);
}

/*
 * Images that nobody has asked for before have to be opened, and that is work for all processors:
 * the next ones of the listing, so many at a time.
 */
#define NEW_AT_ONCE 16

struct newcomers {
	struct listing_reader *reader;
	struct item *items[NEW_AT_ONCE];
	bool attributes; /* of their views, too */
	size_t count;
};

static void meet(void *argument, size_t index)
{
	const struct newcomers *new = argument;
	const struct catalog_parts *c = new->reader->listing->parts;
	struct item *item = new->items[index];
	struct view_facts unused;
	struct facts facts;
	int r = item_now(new->reader, item, &facts);

	for (size_t i = 0; r == 0 && new->attributes &&i < c->options.choices.count; i++)
		item_view_facts(c, item, i, &facts, &unused);
}

/* Begins with what is at the reader's position. */
static void meet_newcomers(struct listing_reader *reader, const struct shown *s)
{
	const struct folder *folder = reader->listing->folder;
	struct newcomers new = {
		.reader = reader,
		.attributes = reader->attributes && s->view != SHOWN_DIRECTORY,
	};

	for (; s < folder->shown + folder->shown_count && new.count < NEW_AT_ONCE; s++) {
		if (item_is_known(s->item))
			break;
		if (new.count == 0 || new.items[new.count - 1] != s->item)
			new.items[new.count++] = s->item;
	}
	crew_run(reader->listing->parts->images->crew, new.count, meet, &new);
}

/*
 * An image that cannot be opened is left out, whatever the reason; but that this process has no
 * memory says nothing of images, and whoever mirrors a directory deletes what is not listed.
 */
static int read_view(
	struct listing_reader *reader, const struct shown *s, struct listing_entry *entry)
{
	const struct catalog_parts *c = reader->listing->parts;
	struct facts facts;
	int r;

	if (!item_is_known(s->item) && snapshot_at(reader) == 0)
		meet_newcomers(reader, s);
	r = item_now(reader, s->item, &facts);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return 0;
	*entry = (struct listing_entry) { .name = s->name };
	if (s->view == SHOWN_DIRECTORY) {
		entry->directory = true;
		entry->id = nodes_directory_id(item_path(s->item));
		return 1;
	}
	entry->id = nodes_view_id(
		item_path(s->item), &c->options.choices.list[s->view], facts.generation);
	return item_has_view(c, s->item, s->view, &facts);
}

static int read_snapshot(
	struct listing_reader *reader, struct item *snapshot, struct listing_entry *entry)
{
	const struct catalog_parts *c = reader->listing->parts;
	const struct folder *folder = reader->listing->folder;
	struct shown shown = *shown_at(reader);
	autofree char *name = NULL;
	int r = snapshots_name(c, folder, &shown, snapshot, &name);

	if (r < 0)
		return r == -ENOMEM ? r : 0;
	snprintf(reader->name, sizeof(reader->name), "%s", name);
	shown.name = reader->name;
	shown.item = snapshot;
	return read_view(reader, &shown, entry);
}

static int read_shown(struct listing_reader *reader, struct listing_entry *entry)
{
	struct item *item = item_at(reader);
	int r;

	if (!item) {
		reader->position |= LAST_SNAPSHOT;
		return 0;
	}
	if (snapshot_at(reader) == 0)
		r = read_view(reader, shown_at(reader), entry);
	else
		r = read_snapshot(reader, item, entry);
	item_unref(item);
	return r;
}

int listing_read_next(struct listing_reader *reader, struct listing_entry *entry)
{
	const struct folder *folder = reader->listing->folder;
	int r = 0;

	for (; r == 0; reader->position++) {
		if (index_at(reader) >= folder->directory_count + folder->shown_count)
			return 0;
		if (index_at(reader) >= folder->directory_count)
			r = read_shown(reader, entry);
		else if (snapshot_at(reader) == 0)
			r = read_directory(reader, entry);
		else
			reader->position |= LAST_SNAPSHOT;
		if (r != 0)
			return r;
	}
	return r;
}

int listing_read_attributes(struct listing_reader *reader, struct stat *st)
{
	const struct catalog_parts *c = reader->listing->parts;
	const struct folder *folder = reader->listing->folder;
	struct view_facts view_facts;
	struct facts facts;
	struct item *item;
	size_t view;
	int r;

	if (index_at(reader) < folder->directory_count)
		return entry_enter_directory(
			c, folder->path, folder->directories[index_at(reader)], st);
	item = item_at(reader);
	if (!item)
		return -ENOENT;
	view = shown_at(reader)->view;
	r = item_now(reader, item, &facts);
	if (view == SHOWN_DIRECTORY) {
		r = entry_enter_item(c, item, st);
	} else if (r == 0) {
		r = item_view_facts(c, item, view, &facts, &view_facts);
		if (r == 0)
			r = entry_enter_view(c, item, view, &facts, &view_facts, st);
	}
	item_unref(item);
	return r;
}
