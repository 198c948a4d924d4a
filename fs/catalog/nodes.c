/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include <uthash.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"

struct entry {
	UT_hash_handle hh;
	struct node node;
	uint64_t lookups;
};

struct nodes {
	pthread_mutex_t lock;
	struct entry *table;
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

uint64_t nodes_view_id(const char *item_path, size_t view, uint64_t generation)
{
	const char *format = view_formats[view]->name;
	uint64_t seed = XXH3_64bits_withSeed(format, strlen(format), generation);

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

int nodes_enter(struct nodes *nodes, const struct node *node)
{
	struct entry *e;
	LOCKED(&nodes->lock);

	HASH_FIND(hh, nodes->table, &node->id, sizeof(node->id), e);
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e || node_copy(&e->node, node) < 0) {
			free(e);
			return -ENOMEM;
		}
		HASH_ADD(hh, nodes->table, node.id, sizeof(e->node.id), e);
	} else if (node->item && e->node.item != node->item) {
		/* The folder was read anew and has another item for the same file. */
		item_unref(e->node.item);
		e->node.item = item_ref(node->item);
	}
	e->lookups++;
	return 0;
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
	HASH_DEL(nodes->table, e);
	entry_free(e);
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
