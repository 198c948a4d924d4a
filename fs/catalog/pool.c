/* SPDX-License-Identifier: Apache-2.0 */
/* Images stay open for a while after their last use, with their views; their occupancy for longer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Without memory an element is not added, and its hh.tbl is NULL. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

#define MAX_IDLE 32

/* Of images that are no longer open, what was learned of where they have data. */
#define MAX_KEPT 4096

struct kept {
	UT_hash_handle hh; /* by path, in the order in which they were closed */
	uint64_t generation;
	struct learned *learned;
	char path[];
};

struct pooled {
	UT_hash_handle hh; /* in the table of the pool, in order of last use, unless detached */
	bool detached;     /* not found: its source has changed, or memory was short */
	unsigned users;    /* under the pool's lock */
	struct image *image;
	const struct choices *choices;
	int64_t age;          /* of the last change of its sources when it was opened */
	pthread_mutex_t lock; /* of views */
	struct view *views[CHOICES_MAX];
};

struct pool {
	const struct image_context *images;
	const struct choices *choices;
	pthread_mutex_t lock;
	struct pooled *table; /* by path */
	unsigned idle;
	struct kept *kept;
};

struct pool *pool_new(const struct image_context *images, const struct choices *choices)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->images = images;
	pool->choices = choices;
	pthread_mutex_init(&pool->lock, NULL);
	return pool;
}

static void close_views(struct pooled *p)
{
	for (size_t i = 0; i < CHOICES_MAX; i++) {
		view_close(p->views[i]);
		p->views[i] = NULL;
	}
}

static void pooled_free(struct pooled *p)
{
	close_views(p);
	image_unref(p->image);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* ---- what is kept of an image that is closed ---- */

static void drop_kept(struct pool *pool, struct kept *kept)
{
	HASH_DEL(pool->kept, kept);
	learned_free(kept->learned);
	free(kept);
}

/* Lock held. False: there is none. */
static bool drop_oldest_kept(struct pool *pool)
{
	if (!pool->kept)
		return false;
	drop_kept(pool, pool->kept);
	return true;
}

static struct kept *kept_new(const struct image *image, struct learned *learned)
{
	const char *path = image_path(image);
	struct kept *kept = calloc(1, sizeof(*kept) + strlen(path) + 1);

	if (!kept)
		return NULL;
	kept->generation = image_generation(image);
	kept->learned = learned;
	strcpy(kept->path, path);
	return kept;
}

/* Takes over what the image has learned. Nobody uses it any more. */
static void keep(struct pool *pool, struct image *image)
{
	struct learned *learned = image_forget(image);
	struct kept *kept = learned ? kept_new(image, learned) : NULL;
	struct kept *before;
	LOCKED(&pool->lock);

	if (!kept) {
		learned_free(learned);
		return;
	}
	HASH_FIND_STR(pool->kept, kept->path, before);
	if (before)
		drop_kept(pool, before);
	if (HASH_COUNT(pool->kept) >= MAX_KEPT)
		drop_oldest_kept(pool);
	HASH_ADD_STR(pool->kept, path, kept);
	if (!kept->hh.tbl) {
		learned_free(learned);
		free(kept);
	}
}

/* Lock held. Gives it what another opening of it had learned; nobody else knows the image yet. */
static void give(struct pool *pool, struct image *image)
{
	struct kept *kept;

	HASH_FIND_STR(pool->kept, image_path(image), kept);
	if (!kept)
		return;
	if (kept->generation == image_generation(image)) {
		image_remember(image, kept->learned);
		kept->learned = NULL;
	}
	drop_kept(pool, kept);
}

/* Its time is over. What was learned long enough after a change is true until the next one. */
static void retire(struct pool *pool, struct pooled *p)
{
	close_views(p);
	if (age_is_old(p->age) && image_verify(p->image) == 0)
		keep(pool, p->image);
	pooled_free(p);
}

/* ---- images that nobody uses ---- */

/* Lock held. Takes what nobody uses out of the table, oldest first, until `keep` are left. */
static struct pooled *take_idle(struct pool *pool, unsigned keep)
{
	struct pooled *p, *next;

	if (pool->idle <= keep)
		return NULL;
	HASH_ITER (hh, pool->table, p, next) {
		if (p->users > 0)
			continue;
		HASH_DEL(pool->table, p);
		pool->idle--;
		return p;
	}
	return NULL;
}

static struct pooled *take_one(struct pool *pool, unsigned keep)
{
	LOCKED(&pool->lock);

	return take_idle(pool, keep);
}

/* Nothing is left of what nobody uses. */
static void drop_all(struct pool *pool)
{
	struct pooled *p;

	while ((p = take_one(pool, 0)))
		pooled_free(p);
	LOCKED(&pool->lock);
	while (drop_oldest_kept(pool))
		;
}

static void retire_idle(struct pool *pool)
{
	struct pooled *p;

	while ((p = take_one(pool, MAX_IDLE)))
		retire(pool, p);
}

/* What was used longest ago goes first: what is kept, then images. False: there is nothing. */
static bool drop_one(struct pool *pool)
{
	struct pooled *p;
	bool dropped;

	pthread_mutex_lock(&pool->lock);
	dropped = drop_oldest_kept(pool);
	p = dropped ? NULL : take_idle(pool, 0);
	pthread_mutex_unlock(&pool->lock);
	if (p)
		pooled_free(p);
	return dropped || p;
}

/* Half of the memory that maps may take is for the images in use. */
static void drop_large(struct pool *pool)
{
	while (occupancy_total_memory() > OCCUPANCY_TOTAL_MEMORY / 2 && drop_one(pool))
		;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	drop_all(pool);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

static void add_to_table(struct pool *pool, struct pooled *p)
{
	const char *path = image_path(p->image);

	HASH_ADD_KEYPTR(hh, pool->table, path, strlen(path), p);
	if (!p->hh.tbl)
		p->detached = true;
}

/* The entry of the path, with one more user and last in the order; NULL for none. */
static struct pooled *find(struct pool *pool, const char *path)
{
	struct pooled *p;
	LOCKED(&pool->lock);

	HASH_FIND_STR(pool->table, path, p);
	if (!p)
		return NULL;
	if (p->users++ == 0)
		pool->idle--;
	HASH_DEL(pool->table, p);
	add_to_table(pool, p);
	return p;
}

/* Nobody finds it from now on. */
static void detach(struct pool *pool, struct pooled *p)
{
	LOCKED(&pool->lock);

	if (!p->detached) {
		HASH_DEL(pool->table, p);
		p->detached = true;
	}
}

static bool may_be_kept(const struct pooled *p)
{
	return age_lets_keep(p->age, image_ctime(p->image));
}

static bool is_current(const struct pool *pool, const struct pooled *p)
{
	return may_be_kept(p) &&
	       datastore_unchanged(pool->images->datastore, image_file(p->image, 0)->path,
		       &image_file(p->image, 0)->state) &&
	       image_verify(p->image) == 0;
}

/* Puts a new image into the table, or finds that another thread was faster. */
static struct pooled *insert(struct pool *pool, struct pooled *fresh)
{
	struct pooled *p;
	LOCKED(&pool->lock);

	HASH_FIND_STR(pool->table, image_path(fresh->image), p);
	if (!p) {
		give(pool, fresh->image);
		add_to_table(pool, fresh);
		return fresh;
	}
	if (image_generation(p->image) != image_generation(fresh->image) || !may_be_kept(p)) {
		fresh->detached = true;
		return fresh;
	}
	if (p->users++ == 0)
		pool->idle--;
	return p;
}

static int open_pooled(struct pool *pool, const char *path, struct pooled **pooled, struct why *why)
{
	struct pooled *p = calloc(1, sizeof(*p));
	struct timespec start = age_clock();
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	p->users = 1;
	p->choices = pool->choices;
	pthread_mutex_init(&p->lock, NULL);
	r = image_open(pool->images, path, &p->image, why);
	if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) {
		drop_all(pool); /* idle images hold what is lacking */
		r = image_open(pool->images, path, &p->image, why);
	}
	if (r < 0) {
		pooled_free(p);
		return r;
	}
	p->age = age_at(start, image_ctime(p->image));
	*pooled = insert(pool, p);
	if (*pooled != p)
		pooled_free(p);
	return 0;
}

int pool_get(struct pool *pool, const char *path, struct pooled **pooled, struct why *why)
{
	struct pooled *p = find(pool, path);

	if (p && is_current(pool, p)) {
		*pooled = p;
		return 0;
	}
	if (p) {
		detach(pool, p);
		pool_put(pool, p);
	}
	return open_pooled(pool, path, pooled, why);
}

int pool_get_again(struct pool *pool, const char *path, struct pooled **pooled, struct why *why)
{
	int r = pool_get(pool, path, pooled, why);

	switch (r) {
	case 0:
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
	case -EIO:
	case -EACCES:
		return r;
	default:
		return -ESTALE;
	}
}

/* One user less. True: it is in no table, so whoever was last frees it. */
static bool drop_user(struct pool *pool, struct pooled *p)
{
	LOCKED(&pool->lock);

	if (--p->users > 0)
		return false;
	if (!p->detached)
		pool->idle++;
	return p->detached;
}

void pool_put(struct pool *pool, struct pooled *pooled)
{
	if (drop_user(pool, pooled))
		pooled_free(pooled);
	else
		retire_idle(pool);
	drop_large(pool);
}

struct image *pooled_image(const struct pooled *pooled)
{
	return pooled->image;
}

int64_t pooled_age(const struct pooled *pooled)
{
	return pooled->age;
}

/* Of two threads that lay it out, the second finds that the first was faster. */
static const struct view *install(struct pooled *pooled, size_t index, struct view *view)
{
	LOCKED(&pooled->lock);

	if (pooled->views[index])
		view_close(view);
	else
		pooled->views[index] = view;
	return pooled->views[index];
}

static const struct view *known_view(struct pooled *pooled, size_t index)
{
	LOCKED(&pooled->lock);

	return pooled->views[index];
}

/* The name that the choice is shown by, where its bytes depend on that. */
static int name_of(const struct image *image, const struct choice *choice, char **name)
{
	*name = NULL;
	if (choice->base == BASE_ANY)
		return 0;
	return naming_view_name(
		path_name(image_path(image)), choice->base == BASE_WHOLE, choice, name);
}

int pooled_view(struct pooled *pooled, size_t index, const struct view **view, struct why *why)
{
	const struct choice *choice = &pooled->choices->list[index];
	autofree char *name = NULL;
	struct view *fresh;
	int r;

	*view = known_view(pooled, index);
	if (*view)
		return 0;
	/* Without the lock: one view may take long while another does not. */
	r = name_of(pooled->image, choice, &name);
	if (r == 0)
		r = view_open_as(pooled->image, choice->format, name, &pooled->choices->options,
			&fresh, why);
	if (r == 0)
		*view = install(pooled, index, fresh);
	return r;
}
