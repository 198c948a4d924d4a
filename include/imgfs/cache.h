/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of bytes that cost something to get: unpacked clusters and pages of tables.
 *
 * It has a byte budget, one getter at work per key (others wait for it), and least-recently-used
 * eviction. A key names a range of a file that cannot change (a changed file has another serial).
 */
#ifndef IMGFS_CACHE_H
#define IMGFS_CACHE_H

#include <stddef.h>
#include <stdint.h>

struct cache;
struct cache_entry;

struct cache_key {
	uint64_t serial; /* struct file */
	uint64_t offset; /* of the packed bytes or the table page, in the file */
	uint64_t kind;   /* 0 a table page, else what makes two readings of one place differ */
	uint64_t need;   /* and more of that: how much of a unit there must be at least */
};

/* Fills buffer with length bytes. 0 or -errno; an error is not remembered. */
typedef int cache_fill(void *buffer, size_t length, void *argument);

struct cache *cache_new(size_t budget); /* bytes; NULL out of memory */
void cache_free(struct cache *cache);   /* nothing may be held */

/*
 * The value of key: cached, or made with fill. *entry is held until cache_put(). All who ask for
 * one key while it is being filled get that one's outcome. -ENOMEM, or what fill returned.
 */
int cache_get(struct cache *cache, const struct cache_key *key, size_t length, cache_fill *fill,
	void *argument, struct cache_entry **entry);
const uint8_t *cache_bytes(const struct cache_entry *entry);
size_t cache_length(const struct cache_entry *entry);
void cache_put(struct cache *cache, struct cache_entry *entry);

/*
 * The same by someone on the way through all of a table, who will not come back: it makes room for
 * what comes next on that way, and nothing that others use has to.
 */
void cache_pass(struct cache *cache, struct cache_entry *entry);

/* Forgets all that was read of a file that is about to be closed; none of it may be held. */
void cache_drop_file(struct cache *cache, uint64_t serial);

struct cache_stats {
	uint64_t hits, misses, bytes;
};
void cache_get_stats(struct cache *cache, struct cache_stats *stats);

#endif
