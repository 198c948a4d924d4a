/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source file of the datastore, and what was learned when its image was last opened. That is
 * remembered for as long as every file of the image stays as it was, so that a listing costs a
 * stat per file and no open.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_private.h"
#include "imgfs/archive.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* A refused image is tried again after so long: what it lacked may have come. */
#define REFUSAL_TIME 2000000000ll /* nanoseconds */

enum status {
	STATUS_UNKNOWN,
	STATUS_SERVED,
	STATUS_NO_IMAGE,
	STATUS_REFUSED,
};

struct source {
	char *path;
	struct file_state state;
};

struct item {
	atomic_uint refs;
	char *path;
	const char *name; /* in path */
	char *file;       /* what is looked at in the datastore: path without a snapshot's name */
	size_t view_count;

	pthread_mutex_t lock; /* of all that follows */
	enum status status;
	struct file_state state; /* of the file itself, when status was found */
	int64_t age;             /* of its last change, then */
	int64_t checked;         /* age_steady() when it was last found to be served */
	struct facts facts;
	struct source *sources; /* but the file itself */
	size_t source_count;
	struct item **snapshots;
	size_t snapshot_count;
	int64_t refused; /* age_steady() */
	char *reason;    /* of the last refusal that was logged */
	struct {
		int error; /* 0 known, 1 not known yet, else -errno */
		struct view_facts facts;
	} views[]; /* as many as there are choices */
};

static struct item *new_item(const struct catalog_parts *c, const char *path)
{
	size_t views = c->options.choices.count;
	struct item *item = calloc(1, sizeof(*item) + views * sizeof(item->views[0]));

	if (!item)
		return NULL;
	atomic_init(&item->refs, 1);
	pthread_mutex_init(&item->lock, NULL);
	item->view_count = views;
	item->path = strdup(path);
	item->file = item->path ? path_of_file(item->path) : NULL;
	if (!item->file) {
		item_unref(item);
		return NULL;
	}
	item->name = path_name(item->path);
	return item;
}

struct item *item_new(const struct catalog_parts *c, const char *directory, const char *name)
{
	autofree char *path = path_join(directory, name);

	return path ? new_item(c, path) : NULL;
}

struct item *item_ref(struct item *item)
{
	atomic_fetch_add(&item->refs, 1);
	return item;
}

/* All that there are of snapshots. */
static atomic_uint known_snapshots;

static void forget_snapshots(struct item **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		item_unref(list[i]);
	free(list);
	atomic_fetch_sub(&known_snapshots, (unsigned)count);
}

static void forget_sources(struct item *item)
{
	for (size_t i = 0; i < item->source_count; i++)
		free(item->sources[i].path);
	free(item->sources);
	item->sources = NULL;
	item->source_count = 0;
	item->status = STATUS_UNKNOWN;
}

void item_unref(struct item *item)
{
	if (!item || atomic_fetch_sub(&item->refs, 1) != 1)
		return;
	forget_sources(item);
	forget_snapshots(item->snapshots, item->snapshot_count);
	pthread_mutex_destroy(&item->lock);
	free(item->reason);
	free(item->file);
	free(item->path);
	free(item);
}

const char *item_name(const struct item *item)
{
	return item->name;
}

const char *item_path(const struct item *item)
{
	return item->path;
}

/* Does what is known still hold? *now is the state of the file itself. */
static bool is_current(
	const struct item *item, const struct datastore *datastore, const struct file_state *now)
{
	if (item->status == STATUS_UNKNOWN || !file_state_equal(now, &item->state))
		return false;
	if (item->status == STATUS_NO_IMAGE)
		return age_lets_keep(item->age, item->state.ctime);
	if (item->status == STATUS_REFUSED)
		return age_steady() - item->refused < REFUSAL_TIME;
	if (!age_lets_keep(item->age, item->facts.ctime))
		return false;
	for (size_t i = 0; i < item->source_count; i++) {
		if (!datastore_unchanged(datastore, item->sources[i].path, &item->sources[i].state))
			return false;
	}
	return true;
}

/* Most images are one file, and need nothing. */
static int remember_sources(struct item *item, const struct image *image)
{
	size_t count = image_file_count(image);

	if (count == 1)
		return 0;
	item->sources = calloc(count - 1, sizeof(*item->sources));
	if (!item->sources)
		return -ENOMEM;
	for (size_t i = 1; i < count; i++) {
		struct source *source = &item->sources[item->source_count];
		const struct file *file = image_file(image, i);

		source->path = strdup(file->path);
		source->state = file->state;
		if (!source->path)
			return -ENOMEM;
		item->source_count++;
	}
	return 0;
}

static void learn(struct item *item, const struct image *image)
{
	const struct file *first = image_file(image, 0);

	item->facts = (struct facts) {
		.generation = image_generation(image),
		.virtual_size = image_size(image),
		.mode = 0444,
		.uid = first->uid,
		.gid = first->gid,
		.mtime = image_mtime(image),
		.ctime = image_ctime(image),
	};
	for (size_t i = 0; i < image_file_count(image); i++)
		item->facts.mode &= image_file(image, i)->mode;
	for (size_t i = 0; i < item->view_count; i++)
		item->views[i].error = 1;
	item->state = first->state;
	item->status = STATUS_SERVED;
	free(item->reason);
	item->reason = NULL;
}

/* Finds it in the list, or makes it. Takes a reference. */
static struct item *make_snapshot(const struct catalog_parts *c, const struct item *item,
	struct item **known, size_t count, const char *name)
{
	size_t length = strlen(item->path);
	autofree char *path = malloc(length + strlen(SNAPSHOT_MARK) + strlen(name) + 1);

	if (!path)
		return NULL;
	strcpy(path, item->path);
	strcpy(stpcpy(path + length, SNAPSHOT_MARK), name);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(known[i]->path, path) == 0)
			return item_ref(known[i]);
	}
	return new_item(c, path);
}

static int make_snapshots(
	const struct catalog_parts *c, struct item *item, const struct snapshots *seen)
{
	size_t count = item->snapshot_count, made = 0;
	struct item **known = item->snapshots;
	struct item **list = calloc(seen->count + 1, sizeof(struct item *));

	if (!list)
		return -ENOMEM;
	if (atomic_fetch_add(&known_snapshots, (unsigned)seen->count) + seen->count >
		SNAPSHOTS_KNOWN) {
		atomic_fetch_sub(&known_snapshots, (unsigned)seen->count);
		log_limited("%s: its snapshots are not shown: there are too many in all",
			quote(item->path).text);
		free(list);
		return 0;
	}
	while (made < seen->count) {
		list[made] = make_snapshot(c, item, known, count, seen->list[made].name);
		if (!list[made])
			break;
		made++;
	}
	if (made < seen->count) {
		atomic_fetch_sub(&known_snapshots, (unsigned)(seen->count - made));
		forget_snapshots(list, made);
		return -ENOMEM;
	}
	item->snapshots = list;
	item->snapshot_count = made;
	forget_snapshots(known, count);
	return 0;
}

static int learn_snapshots(
	const struct catalog_parts *c, struct item *item, const struct image *image)
{
	struct snapshots seen;
	int r;

	if (!c->options.snapshots || strstr(item->path, SNAPSHOT_MARK))
		return 0;
	r = image_snapshots(image, &seen);
	if (r == 0)
		r = make_snapshots(c, item, &seen);
	snapshots_free(&seen);
	return r;
}

struct item *item_snapshot(struct item *item, size_t number)
{
	LOCKED(&item->lock);

	return number < item->snapshot_count ? item_ref(item->snapshots[number]) : NULL;
}

struct item *item_snapshot_named(struct item *item, const char *name, size_t length)
{
	LOCKED(&item->lock);

	for (size_t i = 0; i < item->snapshot_count; i++) {
		const char *own =
			strstr(item->snapshots[i]->path, SNAPSHOT_MARK) + strlen(SNAPSHOT_MARK);

		if (strlen(own) == length && memcmp(own, name, length) == 0)
			return item_ref(item->snapshots[i]);
	}
	return NULL;
}

/* Said once for as long as the file and the reason stay the same. */
static void refuse(struct item *item, const struct file_state *state, const char *reason)
{
	bool said = item->reason && strcmp(item->reason, reason) == 0 &&
		    file_state_equal(&item->state, state);

	item->status = STATUS_REFUSED;
	item->refused = age_steady();
	item->state = *state;
	if (said)
		return;
	log_warning("%s is not shown: %s", quote(item->path).text, reason);
	free(item->reason);
	item->reason = strdup(reason);
}

/* What came of a look at it that failed. */
static int refused(struct item *item, const struct file_state *state, int r, const char *reason)
{
	if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) {
		log_limited("%s cannot be opened now: %s", quote(item->path).text, reason);
		return r; /* nothing about the image */
	}
	refuse(item, state, reason);
	return -ENOENT;
}

/* Of an archive nothing else is known than that it can be read. */
static int examine_archive(
	const struct catalog_parts *c, struct item *item, const struct file_state *state)
{
	struct timespec start = age_clock();
	const struct archived *archived;
	struct why why = { "" };
	int r;

	forget_sources(item);
	r = datastore_archive(c->images->datastore, item->path, &archived, &why);
	if (r < 0)
		return refused(item, state, r, why.text);
	archived_put(archived);
	item->facts = (struct facts) { .mtime = state->mtime, .ctime = state->ctime };
	item->state = *state;
	item->age = age_at(start, state->ctime);
	item->status = STATUS_SERVED;
	return 0;
}

/* Opens the image to see what it is. */
static int examine(const struct catalog_parts *c, struct item *item, const struct file_state *state)
{
	struct timespec start = age_clock();
	struct pooled *pooled;
	struct why why = { "" };
	int r;

	if (name_is_archive(item->name))
		return examine_archive(c, item, state);
	forget_sources(item);
	r = pool_get(c->pool, item->path, &pooled, &why);
	if (r == 0) {
		r = remember_sources(item, pooled_image(pooled));
		if (r == 0)
			r = learn_snapshots(c, item, pooled_image(pooled));
		if (r == 0)
			learn(item, pooled_image(pooled));
		item->age = pooled_age(pooled);
		pool_put(c->pool, pooled);
		return r < 0 ? refused(item, state, r, "its snapshots cannot be read") : 0;
	}
	if (r != -ENOMEDIUM)
		return refused(item, state, r, why.text);
	item->status = STATUS_NO_IMAGE;
	item->state = *state;
	item->age = age_at(start, state->ctime);
	return -ENOENT;
}

static int stat_item(const struct item *item, const struct datastore *datastore,
	const struct open_directory *directory, struct stat *st)
{
	if (directory)
		return datastore_stat_in(datastore, directory, item->file, item->name, st);
	return datastore_stat(datastore, item->file, st);
}

int item_facts(const struct catalog_parts *c, struct item *item,
	const struct open_directory *directory, struct facts *facts)
{
	const struct datastore *datastore = c->images->datastore;
	LOCKED(&item->lock);
	int64_t start = age_steady();
	struct file_state now;
	struct stat st;
	int r = stat_item(item, datastore, directory, &st);

	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	file_state_from_stat(&now, &st);
	if (!is_current(item, datastore, &now)) {
		r = examine(c, item, &now);
		if (r < 0)
			return r;
	}
	if (item->status != STATUS_SERVED)
		return -ENOENT;
	item->checked = start;
	*facts = item->facts;
	return 0;
}

bool item_is_known(struct item *item)
{
	LOCKED(&item->lock);

	return item->status != STATUS_UNKNOWN;
}

int item_facts_since(struct item *item, int64_t since, struct facts *facts)
{
	LOCKED(&item->lock);

	if (item->status != STATUS_SERVED || item->checked < since)
		return -EAGAIN;
	*facts = item->facts;
	return 0;
}

/* No lock held: with detect_zeroes it may take long, and the image is listed meanwhile. */
static int measure(const struct catalog_parts *c, struct item *item, size_t index,
	uint64_t generation, struct view_facts *facts)
{
	const char *format = c->options.choices.list[index].format->name;
	const struct view *view;
	struct pooled *pooled;
	struct why why = { "" };
	int r = pool_get_again(c->pool, item->path, &pooled, &why);

	if (r < 0)
		return r;
	if (image_generation(pooled_image(pooled)) != generation)
		r = -ESTALE;
	if (r == 0)
		r = pooled_view(pooled, index, &view, &why);
	if (r == 0) {
		facts->size = view->size;
		r = view_blocks(view, &facts->blocks);
	}
	pool_put(c->pool, pooled);
	if (r == -EFBIG)
		log_warning("%s has no %s view: %s", quote(item->path).text, format, why.text);
	else if (r < 0 && r != -ESTALE && r != -EINTR)
		log_limited("%s: its %s view cannot be laid out: %s", quote(item->path).text,
			format, *why.text ? why.text : strerror(-r));
	return r;
}

/* Is anything known of it in this state? *r is 1 where that is not how its view looks. */
static bool recall(
	struct item *item, size_t view, uint64_t generation, int *r, struct view_facts *view_facts)
{
	LOCKED(&item->lock);

	if (item->status != STATUS_SERVED || item->facts.generation != generation)
		return false;
	*r = item->views[view].error;
	*view_facts = item->views[view].facts;
	return true;
}

static void note(struct item *item, size_t view, uint64_t generation, int r,
	const struct view_facts *view_facts)
{
	LOCKED(&item->lock);

	if (item->status != STATUS_SERVED || item->facts.generation != generation)
		return;
	item->views[view].error = r;
	item->views[view].facts = *view_facts;
}

int item_view_facts(const struct catalog_parts *c, struct item *item, size_t view,
	const struct facts *facts, struct view_facts *view_facts)
{
	int r;

	if (!recall(item, view, facts->generation, &r, view_facts))
		return -ESTALE;
	if (r != 1)
		return r;
	r = measure(c, item, view, facts->generation, view_facts);
	/* Only what follows from the image itself stays true. */
	if (r == 0 || r == -EFBIG)
		note(item, view, facts->generation, r, view_facts);
	return r;
}

bool item_has_view(
	const struct catalog_parts *c, struct item *item, size_t view, const struct facts *facts)
{
	struct view_facts unused;

	if (c->options.choices.list[view].format->surely_fits(facts->virtual_size))
		return true;
	return item_view_facts(c, item, view, facts, &unused) != -EFBIG;
}
