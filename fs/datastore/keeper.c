/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One lock and one table, in which the order of adding is the order of use: what is used goes to
 * the end, and what is not goes first. Nothing is made while the lock is held.
 */
#include "keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Without memory an element is not added, and its hh.tbl is NULL. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "imgfs/age.h"
#include "imgfs/cleanup.h"

struct kept {
	UT_hash_handle hh; /* by path */
	char *path;
	struct file_state state;
	int64_t age; /* of the last change of the file, when it was looked at */
	struct finding *finding;
	bool making; /* a thread is at it, and the entry is that one's */
};

struct keeper {
	pthread_mutex_t lock;
	pthread_cond_t made;
	struct kept *table;
	size_t memory, memory_max;
};

struct finding *finding_ref(struct finding *finding)
{
	atomic_fetch_add(&finding->refs, 1);
	return finding;
}

void finding_unref(struct finding *finding)
{
	if (finding && atomic_fetch_sub(&finding->refs, 1) == 1)
		finding->free(finding);
}

struct keeper *keeper_new(size_t memory)
{
	struct keeper *keeper = calloc(1, sizeof(*keeper));

	if (!keeper)
		return NULL;
	pthread_mutex_init(&keeper->lock, NULL);
	pthread_cond_init(&keeper->made, NULL);
	keeper->memory_max = memory;
	return keeper;
}

/* What an entry takes: the table's own part is counted too, for there may be many small ones. */
static size_t memory_of(const struct kept *kept)
{
	return sizeof(*kept) + strlen(kept->path) + 64 +
	       (kept->finding ? kept->finding->memory : 0);
}

/* It is not in the table. */
static void release(struct keeper *keeper, struct kept *kept)
{
	keeper->memory -= memory_of(kept);
	finding_unref(kept->finding);
	free(kept->path);
	free(kept);
}

static void drop(struct keeper *keeper, struct kept *kept)
{
	HASH_DEL(keeper->table, kept);
	release(keeper, kept);
}

void keeper_forget(struct keeper *keeper)
{
	struct kept *kept, *next;
	LOCKED(&keeper->lock);

	HASH_ITER (hh, keeper->table, kept, next) {
		if (!kept->making)
			drop(keeper, kept);
	}
}

void keeper_free(struct keeper *keeper)
{
	if (!keeper)
		return;
	keeper_forget(keeper);
	pthread_cond_destroy(&keeper->made);
	pthread_mutex_destroy(&keeper->lock);
	free(keeper);
}

/* Puts the entry at the end of the table. False: out of memory, and it is not in it. */
static bool append(struct keeper *keeper, struct kept *kept)
{
	HASH_ADD_KEYPTR(hh, keeper->table, kept->path, strlen(kept->path), kept);
	return kept->hh.tbl != NULL;
}

static void shrink(struct keeper *keeper)
{
	struct kept *kept, *next;

	HASH_ITER (hh, keeper->table, kept, next) {
		if (keeper->memory <= keeper->memory_max)
			break;
		if (!kept->making)
			drop(keeper, kept);
	}
}

static bool is_current(const struct kept *kept, const struct file_state *state)
{
	return file_state_equal(&kept->state, state) && age_lets_keep(kept->age, state->ctime);
}

/* Lock held. What is known and may be used, with a reference; what has become old is dropped. */
static struct finding *look(struct keeper *keeper, const char *path, const struct file_state *state)
{
	struct finding *finding = NULL;
	struct kept *kept;

	HASH_FIND_STR(keeper->table, path, kept);
	if (!kept || kept->making)
		return NULL;
	if (is_current(kept, state)) {
		finding = finding_ref(kept->finding);
		HASH_DEL(keeper->table, kept);
		if (!append(keeper, kept))
			release(keeper, kept);
		return finding;
	}
	drop(keeper, kept);
	return NULL;
}

struct finding *keeper_look(struct keeper *keeper, const char *path, const struct file_state *state)
{
	LOCKED(&keeper->lock);

	return look(keeper, path, state);
}

/* Lock held. Tells the others that this thread is at it; NULL out of memory. */
static struct kept *announce(
	struct keeper *keeper, const char *path, const struct file_state *state)
{
	struct kept *kept = calloc(1, sizeof(*kept));

	if (!kept)
		return NULL;
	kept->path = strdup(path);
	kept->state = *state;
	kept->age = age_at(age_clock(), state->ctime);
	kept->making = true;
	if (!kept->path || !append(keeper, kept)) {
		free(kept->path);
		free(kept);
		return NULL;
	}
	keeper->memory += memory_of(kept);
	return kept;
}

/* Lock held. Waits until nobody is at it. What is known then, or NULL. */
static struct finding *wait_for(
	struct keeper *keeper, const char *path, const struct file_state *state)
{
	struct kept *kept;

	for (;;) {
		HASH_FIND_STR(keeper->table, path, kept);
		if (!kept || !kept->making)
			return look(keeper, path, state);
		pthread_cond_wait(&keeper->made, &keeper->lock);
	}
}

/* Lock held. */
static void settle(struct keeper *keeper, struct kept *kept, struct finding *finding)
{
	kept->making = false;
	if (finding && age_lets_keep(kept->age, kept->state.ctime)) {
		kept->finding = finding_ref(finding);
		keeper->memory += finding->memory;
		shrink(keeper);
	} else {
		drop(keeper, kept);
	}
	pthread_cond_broadcast(&keeper->made);
}

int keeper_get(struct keeper *keeper, const char *path, const struct file_state *state,
	keeper_make *make, void *argument, struct finding **finding, struct why *why)
{
	struct kept *kept = NULL;
	int r;

	pthread_mutex_lock(&keeper->lock);
	*finding = wait_for(keeper, path, state);
	if (!*finding)
		kept = announce(keeper, path, state);
	pthread_mutex_unlock(&keeper->lock);
	if (*finding)
		return 0;
	if (!kept)
		return why_set(why, -ENOMEM, "out of memory");

	r = make(argument, finding, why);

	pthread_mutex_lock(&keeper->lock);
	settle(keeper, kept, r == 0 ? *finding : NULL);
	pthread_mutex_unlock(&keeper->lock);
	return r;
}
