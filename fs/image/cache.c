/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One lock, one table, a list in order of use, and one of what was passed on the way through. The
 * lock is held for a lookup only, never while an entry is filled; entries in use or being filled
 * are not evicted, so the budget can be exceeded by what the running requests hold.
 */
#include "imgfs/cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#define uthash_fatal(message) abort()
#define HASH_NONFATAL_OOM     1
#include <uthash.h>

#include "imgfs/cleanup.h"

enum entry_state {
	ENTRY_FILLING,
	ENTRY_READY,
	ENTRY_FAILED, /* no longer in the table; the last who waited frees it */
};

/* The entries of one file, so that they can go when it is closed. */
struct cache_file {
	UT_hash_handle hh;
	uint64_t serial;
	struct cache_entry *entries;
};

struct cache_entry {
	UT_hash_handle hh;
	struct cache_key key;
	struct cache_file *file;
	struct cache_entry *next, *previous; /* of the file */
	struct cache_list *list;             /* when ready and used by nobody */
	struct cache_entry *newer, *older;   /* in it */
	bool passed;                         /* the last who used it will not come back */
	enum entry_state state;
	int error;
	unsigned users;
	size_t length;
	uint8_t *bytes;
};

/* In order of the last use. */
struct cache_list {
	struct cache_entry *newest, *oldest;
	size_t bytes;
};

struct cache {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct cache_entry *table;
	struct cache_file *files;
	struct cache_list recent, passed;
	size_t budget;
	size_t entries, entries_max;
	struct cache_stats stats;
};

/*
 * The budget is one of bytes that are cached. An entry takes some 300 bytes besides, which counts
 * where the clusters of an image are of 512: so there are not more entries than this makes.
 */
#define BYTES_PER_ENTRY 1024
#define ENTRIES_MIN     64

struct cache *cache_new(size_t budget)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	pthread_mutex_init(&cache->lock, NULL);
	pthread_cond_init(&cache->filled, NULL);
	cache->budget = budget;
	cache->entries_max = budget / BYTES_PER_ENTRY + ENTRIES_MIN;
	return cache;
}

static void list_remove(struct cache_entry *e)
{
	struct cache_list *list = e->list;

	*(e->newer ? &e->newer->older : &list->newest) = e->older;
	*(e->older ? &e->older->newer : &list->oldest) = e->newer;
	list->bytes -= e->length;
	e->newer = e->older = NULL;
	e->list = NULL;
}

static void list_push(struct cache_list *list, struct cache_entry *e)
{
	e->older = list->newest;
	e->newer = NULL;
	*(list->newest ? &list->newest->newer : &list->oldest) = e;
	list->newest = e;
	list->bytes += e->length;
	e->list = list;
}

/* The file's list; made where it is not there. NULL out of memory. */
static struct cache_file *file_of(struct cache *cache, uint64_t serial)
{
	struct cache_file *file;

	HASH_FIND(hh, cache->files, &serial, sizeof(serial), file);
	if (file)
		return file;
	file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->serial = serial;
	HASH_ADD(hh, cache->files, serial, sizeof(file->serial), file);
	if (!file->hh.tbl) { /* how uthash says that it had no memory */
		free(file);
		return NULL;
	}
	return file;
}

static void free_if_empty(struct cache *cache, struct cache_file *file)
{
	if (file->entries)
		return;
	HASH_DEL(cache->files, file);
	free(file);
}

/* Puts the entry into the table and its file's list. False: out of memory. */
static bool table_add(struct cache *cache, struct cache_entry *e)
{
	struct cache_file *file = file_of(cache, e->key.serial);

	if (!file)
		return false;
	HASH_ADD(hh, cache->table, key, sizeof(e->key), e);
	if (!e->hh.tbl) {
		free_if_empty(cache, file);
		return false;
	}
	e->file = file;
	e->next = file->entries;
	if (e->next)
		e->next->previous = e;
	file->entries = e;
	cache->stats.bytes += e->length;
	cache->entries++;
	return true;
}

static void table_remove(struct cache *cache, struct cache_entry *e)
{
	HASH_DEL(cache->table, e);
	*(e->previous ? &e->previous->next : &e->file->entries) = e->next;
	if (e->next)
		e->next->previous = e->previous;
	free_if_empty(cache, e->file);
	cache->stats.bytes -= e->length;
	cache->entries--;
}

static void entry_free(struct cache_entry *e)
{
	free(e->bytes);
	free(e);
}

static void drop(struct cache *cache, struct cache_entry *e)
{
	list_remove(e);
	table_remove(cache, e);
	entry_free(e);
}

/* Of what was passed so much stays, for whoever goes on from there. */
#define PASSED_MAX (1u << 20)

static struct cache_entry *least_wanted(const struct cache *cache)
{
	return cache->passed.oldest ? cache->passed.oldest : cache->recent.oldest;
}

/* Makes room until at most `keep` bytes are held, as far as entries are unused. */
static void shrink(struct cache *cache, size_t keep)
{
	struct cache_entry *e;

	while (cache->passed.bytes > PASSED_MAX)
		drop(cache, cache->passed.oldest);
	while ((e = least_wanted(cache)) &&
		(cache->stats.bytes > keep || cache->entries > cache->entries_max))
		drop(cache, e);
}

void cache_free(struct cache *cache)
{
	struct cache_entry *e;

	if (!cache)
		return;
	while ((e = least_wanted(cache)))
		drop(cache, e);
	assert(!cache->table);
	pthread_cond_destroy(&cache->filled);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

static void drop_user(struct cache *cache, struct cache_entry *e)
{
	assert(e->users > 0);
	if (--e->users > 0)
		return;
	if (e->state == ENTRY_FAILED) {
		entry_free(e);
		return;
	}
	list_push(e->passed ? &cache->passed : &cache->recent, e);
	shrink(cache, cache->budget);
}

/* Lock held. The entry is in the table: waits until it is ready. */
static int join(struct cache *cache, struct cache_entry *e, struct cache_entry **entry)
{
	int error;

	cache->stats.hits++;
	if (e->users++ == 0)
		list_remove(e);
	while (e->state == ENTRY_FILLING)
		pthread_cond_wait(&cache->filled, &cache->lock);
	if (e->state == ENTRY_READY) {
		*entry = e;
		return 0;
	}
	error = e->error;
	drop_user(cache, e);
	return error;
}

/* Lock held. A new entry that others find and wait for; NULL out of memory. */
static struct cache_entry *announce(struct cache *cache, const struct cache_key *key, size_t length)
{
	struct cache_entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->key = *key;
	e->users = 1;
	e->length = length;
	if (!table_add(cache, e)) {
		free(e);
		return NULL;
	}
	cache->stats.misses++;
	shrink(cache, cache->budget);
	return e;
}

/* Lock not held. */
static int fill_entry(struct cache *cache, struct cache_entry *e, cache_fill *fill, void *argument)
{
	e->bytes = malloc(e->length ? e->length : 1);
	if (!e->bytes) {
		/* A smaller cache is better than a failed read. */
		pthread_mutex_lock(&cache->lock);
		shrink(cache, 0);
		pthread_mutex_unlock(&cache->lock);
		e->bytes = malloc(e->length ? e->length : 1);
	}
	return e->bytes ? fill(e->bytes, e->length, argument) : -ENOMEM;
}

int cache_get(struct cache *cache, const struct cache_key *key, size_t length, cache_fill *fill,
	void *argument, struct cache_entry **entry)
{
	struct cache_entry *e;
	int r;

	pthread_mutex_lock(&cache->lock);
	HASH_FIND(hh, cache->table, key, sizeof(*key), e);
	if (e) {
		r = join(cache, e, entry);
		pthread_mutex_unlock(&cache->lock);
		return r;
	}
	e = announce(cache, key, length);
	pthread_mutex_unlock(&cache->lock);
	if (!e)
		return -ENOMEM;

	r = fill_entry(cache, e, fill, argument);

	pthread_mutex_lock(&cache->lock);
	if (r < 0) {
		e->state = ENTRY_FAILED;
		e->error = r;
		table_remove(cache, e);
		drop_user(cache, e);
	} else {
		e->state = ENTRY_READY;
		*entry = e;
	}
	pthread_cond_broadcast(&cache->filled);
	pthread_mutex_unlock(&cache->lock);
	return r;
}

const uint8_t *cache_bytes(const struct cache_entry *entry)
{
	return entry->bytes;
}

size_t cache_length(const struct cache_entry *entry)
{
	return entry->length;
}

static void put(struct cache *cache, struct cache_entry *entry, bool passed)
{
	pthread_mutex_lock(&cache->lock);
	entry->passed = passed;
	drop_user(cache, entry);
	pthread_mutex_unlock(&cache->lock);
}

void cache_put(struct cache *cache, struct cache_entry *entry)
{
	put(cache, entry, false);
}

void cache_pass(struct cache *cache, struct cache_entry *entry)
{
	put(cache, entry, true);
}

void cache_drop_file(struct cache *cache, uint64_t serial)
{
	struct cache_file *file;
	struct cache_entry *e, *next;
	LOCKED(&cache->lock);

	HASH_FIND(hh, cache->files, &serial, sizeof(serial), file);
	for (e = file ? file->entries : NULL; e; e = next) {
		next = e->next; /* the last removal frees the file's list */
		assert(e->state == ENTRY_READY && e->users == 0);
		drop(cache, e);
	}
}

void cache_get_stats(struct cache *cache, struct cache_stats *stats)
{
	pthread_mutex_lock(&cache->lock);
	*stats = cache->stats;
	pthread_mutex_unlock(&cache->lock);
}
