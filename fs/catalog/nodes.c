/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xxhash.h>

/* Without memory an element is not added, and its hh.tbl is NULL. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"

/* For so long after the first open of an old state, opens still drop the kernel's pages. */
#define FLUSH_SECONDS 2

struct entry {
	UT_hash_handle hh;
	struct node node;
	uint64_t lookups;
};

struct nodes {
	pthread_mutex_t lock;
	struct entry *table; /* in order of the last lookup, but for directories */
	size_t views;
};

struct nodes *nodes_new(void)
{
	struct nodes *nodes = calloc(1, sizeof(*nodes));

	if (nodes)
		pthread_mutex_init(&nodes->lock, NULL);
	return nodes;
}

static void entry_free(struct entry *e)
{
	node_release(&e->node);
	free(e);
}

void nodes_free(struct nodes *nodes)
{
	struct entry *e, *next;

	if (!nodes)
		return;
	HASH_ITER (hh, nodes->table, e, next) {
		HASH_DEL(nodes->table, e);
		entry_free(e);
	}
	pthread_mutex_destroy(&nodes->lock);
	free(nodes);
}

/* 0 is nothing and 1 is the root. */
static uint64_t usable(uint64_t hash)
{
	return hash <= CATALOG_ROOT ? hash + CATALOG_ROOT + 1 : hash;
}

uint64_t nodes_directory_id(const char *path)
{
	if (*path == '\0')
		return CATALOG_ROOT;
	return usable(XXH3_64bits(path, strlen(path)));
}

uint64_t nodes_view_id(const char *item_path, const struct choice *choice, uint64_t generation)
{
	uint64_t seed = XXH3_64bits_withSeed(&choice->seed, sizeof(choice->seed), generation);

	return usable(XXH3_64bits_withSeed(item_path, strlen(item_path), seed));
}

void node_release(struct node *node)
{
	free(node->path);
	item_unref(node->item);
	*node = (struct node) { 0 };
}

static int node_copy(struct node *to, const struct node *from)
{
	*to = *from;
	if (from->path) {
		to->path = strdup(from->path);
		if (!to->path)
			return -ENOMEM;
	}
	if (to->item)
		item_ref(to->item);
	return 0;
}

/* Puts it last in the order. Without memory it is freed. */
static int add_entry(struct nodes *nodes, struct entry *e)
{
	HASH_ADD(hh, nodes->table, node.id, sizeof(e->node.id), e);
	if (!e->hh.tbl) {
		entry_free(e);
		return -ENOMEM;
	}
	nodes->views += e->node.item != NULL;
	return 0;
}

static void take_entry(struct nodes *nodes, struct entry *e)
{
	HASH_DEL(nodes->table, e);
	nodes->views -= e->node.item != NULL;
}

/* Directories stay: what is open beneath one could not be found again without it. */
static void forget_oldest_view(struct nodes *nodes)
{
	struct entry *e;

	while ((e = nodes->table) != NULL) {
		take_entry(nodes, e);
		if (e->node.item) {
			entry_free(e);
			return;
		}
		add_entry(nodes, e);
	}
}

static int make_entry(struct nodes *nodes, const struct node *node)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e || node_copy(&e->node, node) < 0) {
		free(e);
		return -ENOMEM;
	}
	e->lookups = 1;
	if (node->item && nodes->views >= NODES_MAX_VIEWS)
		forget_oldest_view(nodes);
	return add_entry(nodes, e);
}

int nodes_enter(struct nodes *nodes, const struct node *node)
{
	struct entry *e;
	LOCKED(&nodes->lock);

	HASH_FIND(hh, nodes->table, &node->id, sizeof(node->id), e);
	if (!e)
		return make_entry(nodes, node);
	e->lookups++;
	if (!node->item)
		return 0;
	/* The folder may have been read anew and have another item for the same file. */
	item_ref(node->item);
	item_unref(e->node.item);
	e->node.item = node->item;
	take_entry(nodes, e);
	return add_entry(nodes, e);
}

void nodes_forget(struct nodes *nodes, uint64_t id, uint64_t count)
{
	struct entry *e;
	LOCKED(&nodes->lock);

	HASH_FIND(hh, nodes->table, &id, sizeof(id), e);
	if (!e)
		return;
	if (e->lookups > count) {
		e->lookups -= count;
		return;
	}
	take_entry(nodes, e);
	entry_free(e);
}

bool nodes_open_old(struct nodes *nodes, uint64_t id)
{
	struct timespec now;
	struct entry *e;
	LOCKED(&nodes->lock);

	HASH_FIND(hh, nodes->table, &id, sizeof(id), e);
	if (!e)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (e->node.old == 0)
		e->node.old = now.tv_sec;
	return now.tv_sec - e->node.old >= FLUSH_SECONDS;
}

int nodes_get(struct nodes *nodes, uint64_t id, struct node *node)
{
	static const struct node root = { .id = CATALOG_ROOT, .path = (char *)"" };
	struct entry *e;
	LOCKED(&nodes->lock);

	if (id == CATALOG_ROOT)
		return node_copy(node, &root);
	HASH_FIND(hh, nodes->table, &id, sizeof(id), e);
	return e ? node_copy(node, &e->node) : -ESTALE;
}
