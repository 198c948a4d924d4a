/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMGFS_KEEPER_H
#define IMGFS_KEEPER_H

#include <stdatomic.h>
#include <stddef.h>

#include "imgfs/datastore.h"

/*
 * What was found out about files at some cost: what is in an archive, where the blocks of a
 * compressed file are. It is kept, for as long as the file stays as it is and there is room.
 */
struct keeper;

/* The first member of what is kept. */
struct finding {
	atomic_uint refs;
	size_t memory; /* bytes, all in all; may not grow */
	void (*free)(struct finding *finding);
};

struct finding *finding_ref(struct finding *finding);
void finding_unref(struct finding *finding);

struct keeper *keeper_new(size_t memory); /* bytes; NULL out of memory */
void keeper_free(struct keeper *keeper);

/* Drops what is kept and not in use. */
void keeper_forget(struct keeper *keeper);

/* Finds it out: *finding has one reference. 0, or -errno with the reason. */
typedef int keeper_make(void *argument, struct finding **finding, struct why *why);

/*
 * What is known of the file at path in that state; made where nothing is, by one thread for all
 * who ask. *finding is referenced for the caller. 0 or what `make` says, which is not kept.
 */
int keeper_get(struct keeper *keeper, const char *path, const struct file_state *state,
	keeper_make *make, void *argument, struct finding **finding, struct why *why);

/* The same where it is known; else NULL. */
struct finding *keeper_look(
	struct keeper *keeper, const char *path, const struct file_state *state);

#endif
