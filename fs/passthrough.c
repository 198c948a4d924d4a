/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Without memory an element is not added, and its hh.tbl is NULL. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "process/backing.h"

struct opened {
	UT_hash_handle hh; /* by node */
	uint64_t node;
	unsigned handles;
	int id; /* of its backing file; 0: ordinary */
};

struct passthrough {
	const struct companion *companion;
	int connection;
	pthread_mutex_t lock; /* of what follows, and one order to the companion at a time */
	struct opened *table;
	bool told; /* that it does not work */
};

struct passthrough *passthrough_new(const struct companion *companion, int connection)
{
	struct passthrough *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->companion = companion;
	p->connection = connection;
	pthread_mutex_init(&p->lock, NULL);
	return p;
}

void passthrough_free(struct passthrough *passthrough)
{
	struct opened *o, *next;

	if (!passthrough)
		return;
	/* The ids end with the connection. */
	HASH_ITER (hh, passthrough->table, o, next) {
		HASH_DEL(passthrough->table, o);
		free(o);
	}
	pthread_mutex_destroy(&passthrough->lock);
	free(passthrough);
}

/* Lock held. */
static int register_file(struct passthrough *p, int file)
{
	int r = p->companion->orders >= 0 ? companion_backing_open(p->companion, file)
					  : backing_open(p->connection, file);

	if (r > 0)
		return r;
	if (!p->told)
		log_info("zero_copy without passthrough: %s",
			r == -EPERM   ? "the kernel lets only its own root have it"
			: r == -ELOOP ? "the datastore's file system stands on another one"
				      : strerror(-r));
	p->told = true;
	return 0;
}

static void unregister(struct passthrough *p, int id)
{
	int r = p->companion->orders >= 0 ? companion_backing_close(p->companion, id)
					  : backing_close(p->connection, id);

	if (r < 0)
		log_debug("backing file %d: %s", id, strerror(-r));
}

/* Lock held. */
static struct opened *add(struct passthrough *p, uint64_t node)
{
	struct opened *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->node = node;
	HASH_ADD(hh, p->table, node, sizeof(o->node), o);
	if (o->hh.tbl)
		return o;
	free(o);
	return NULL;
}

int passthrough_open(struct passthrough *passthrough, uint64_t node, int file)
{
	struct opened *o;
	LOCKED(&passthrough->lock);

	HASH_FIND(hh, passthrough->table, &node, sizeof(node), o);
	if (!o) {
		o = add(passthrough, node);
		if (!o)
			return -ENOMEM;
		if (file >= 0)
			o->id = register_file(passthrough, file);
	} else if (o->id > 0 && file < 0) {
		/* It was its source and is not any more, without having got another number. */
		return -ESTALE;
	}
	o->handles++;
	return o->id;
}

void passthrough_close(struct passthrough *passthrough, uint64_t node)
{
	struct opened *o;
	LOCKED(&passthrough->lock);

	HASH_FIND(hh, passthrough->table, &node, sizeof(node), o);
	if (!o || --o->handles > 0)
		return;
	if (o->id > 0)
		unregister(passthrough, o->id);
	HASH_DEL(passthrough->table, o);
	free(o);
}
