/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A content that is unpacked: compressed files. What was found out about one is kept as long as
 * it stays as it is, for it may have taken a pass through all of it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "content.h"
#include "gate.h"
#include "imgfs/cache.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/compression.h"
#include "imgfs/log.h"
#include "imgfs/names.h"
#include "keeper.h"

struct index {
	struct finding finding;
	struct packed packed;
	const struct compression *compression;
	int error; /* it cannot be read, for the reason */
	char *reason;
};

/* ---- memory of all indexes ---- */

static atomic_size_t total_memory;

bool packed_charge(struct packed *packed, size_t bytes)
{
	if (bytes > PACKED_INDEX_MAX - packed->memory)
		return false;
	if (atomic_fetch_add(&total_memory, bytes) + bytes > PACKED_INDEXES_MAX) {
		atomic_fetch_sub(&total_memory, bytes);
		return false;
	}
	packed->memory += bytes;
	return true;
}

void packed_discharge(struct packed *packed, size_t bytes)
{
	packed->memory -= bytes;
	atomic_fetch_sub(&total_memory, bytes);
}

size_t packed_room(const struct packed *packed)
{
	size_t total = atomic_load(&total_memory);
	size_t left = total < PACKED_INDEXES_MAX ? PACKED_INDEXES_MAX - total : 0;

	return min_u64(left, PACKED_INDEX_MAX - packed->memory);
}

/* ---- for compressions ---- */

int packed_read_stored(const struct file *file, void *buffer, uint64_t length, uint64_t offset)
{
	if (!range_ok(offset, length, file->state.size))
		return -ERANGE;
	return descriptor_read(file->fd, buffer, length, offset);
}

bool packed_interrupted(const struct packed *packed)
{
	const struct datastore *ds = packed->datastore;

	return ds->interrupted && ds->interrupted();
}

/* ---- indexes ---- */

static void index_free(struct finding *finding)
{
	struct index *index = (struct index *)finding;

	if (index->packed.state)
		index->compression->close(&index->packed);
	packed_discharge(&index->packed, index->packed.memory);
	free(index->reason);
	free(index);
}

static const struct compression *compression_of(const char *suffix)
{
	for (const struct compression *const *c = compressions; *c; c++) {
		if (strcasecmp((*c)->suffix, suffix) == 0)
			return *c;
	}
	return NULL;
}

static int probe(const struct compression *compression, const struct file *file, struct why *why)
{
	uint8_t head[16];
	size_t length = min_u64(sizeof(head), file->state.size);
	int r = packed_read_stored(file, head, length, 0);

	if (r < 0)
		return why_set(why, r, "reading it: %s", strerror(-r));
	if (compression->probe(head, length))
		return 0;
	return why_set(why, -EINVAL, "it should be compressed with %s, but it does not begin so",
		compression->name);
}

static int open_index(struct index *index, const struct file *file, struct why *why)
{
	int r = probe(index->compression, file, why);
	int changed;

	if (r == 0)
		r = index->compression->open(file, &index->packed, why);
	changed = file_verify(file);
	if (changed < 0)
		return why_set(why, changed, "%s",
			changed == -ESTALE ? "it changes while it is read" : strerror(-changed));
	if (r == 0 && index->packed.size > INT64_MAX)
		return why_set(why, -EINVAL, "what is in it has more than 2^63 bytes");
	return r;
}

struct making {
	const struct datastore *datastore;
	const struct file *file;
	const struct compression *compression;
};

static int make_index(void *argument, struct finding **finding, struct why *why)
{
	const struct making *m = argument;
	struct index *index = calloc(1, sizeof(*index));
	struct why reason = { "" };
	int r;

	if (!index)
		return why_set(why, -ENOMEM, "out of memory");
	atomic_init(&index->finding.refs, 1);
	index->finding.free = index_free;
	index->compression = m->compression;
	index->packed.datastore = m->datastore;
	r = open_index(index, m->file, &reason);
	/* What follows from the bytes is as good to know as the index, and may have cost as much.
	 */
	if (r == -EINVAL || r == -ENOTSUP) {
		index->error = r;
		packed_discharge(&index->packed, index->packed.memory);
		index->reason = strdup(reason.text);
		r = index->reason ? 0 : -ENOMEM;
	}
	if (r < 0) {
		index_free(&index->finding);
		return why_set(why, r, "%s", *reason.text ? reason.text : strerror(-r));
	}
	index->finding.memory = sizeof(*index) + index->packed.memory;
	*finding = &index->finding;
	return 0;
}

static int get_index(const struct datastore *ds, const struct file *file, const char *suffix,
	struct index **index, struct why *why)
{
	struct making making = { ds, file, compression_of(suffix) };
	struct finding *finding;
	int r;

	if (!making.compression)
		return why_set(
			why, -ENOTSUP, "files compressed as .%s cannot be read in place", suffix);
	r = keeper_get(ds->keeper, file->path, &file->state, make_index, &making, &finding, why);
	if (r == -ENOMEM) {
		/* What nobody uses may be what fills the room. */
		keeper_forget(ds->keeper);
		r = keeper_get(
			ds->keeper, file->path, &file->state, make_index, &making, &finding, why);
	}
	if (r < 0)
		return r;
	*index = (struct index *)finding;
	r = (*index)->error;
	if (r < 0) {
		why_set(why, r, "%s", (*index)->reason);
		finding_unref(finding);
	}
	return r;
}

/* ---- reading ---- */

/*
 * As for the large units of images: those who need a large block take turns, so that memory does
 * not grow with the number of readers.
 */
#define LARGE_BLOCK (2u << 20)

static pthread_mutex_t large_blocks = PTHREAD_MUTEX_INITIALIZER;

struct unpacking {
	const struct file *file;
	const struct index *index;
	struct packed_block block;
};

static int unpack_block(void *buffer, size_t length, void *argument)
{
	const struct unpacking *u = argument;
	int r;

	(void)length;
	r = u->index->compression->unpack(&u->index->packed, u->file, &u->block, buffer);
	/* The index says that it is there, so the file has become shorter. */
	return r == -ERANGE ? -ESTALE : r;
}

/* Copies a part of a block, which the cache has or gets. */
static int read_block(
	struct unpacking *u, struct cache *cache, uint64_t skip, uint64_t length, uint8_t *to)
{
	struct cache_key key = {
		.serial = u->file->serial, .offset = u->block.start, .kind = UINT64_MAX
	};
	pthread_mutex_t *turn = u->block.length > LARGE_BLOCK ? &large_blocks : NULL;
	struct cache_entry *entry;
	int r;

	if (turn)
		pthread_mutex_lock(turn);
	r = cache_get(cache, &key, u->block.length, unpack_block, u, &entry);
	if (r == 0) {
		memcpy(to, cache_bytes(entry) + skip, length);
		cache_put(cache, entry);
	}
	if (turn)
		pthread_mutex_unlock(turn);
	if (r == -EIO)
		log_limited("%s: the compressed bytes of offset %llu are damaged",
			quote(u->file->path).text, (unsigned long long)u->block.start);
	return r;
}

static int packed_read(const struct file *file, void *buffer, uint64_t length, uint64_t offset)
{
	struct unpacking u = { .file = file, .index = file->content_state };
	struct cache *cache = u.index->packed.datastore->cache;
	uint8_t *to = buffer;
	int r = 0;

	while (r == 0 && length > 0) {
		uint64_t skip, part;

		u.index->compression->find(&u.index->packed, offset, &u.block);
		skip = offset - u.block.start;
		part = min_u64(u.block.length - skip, length);
		r = read_block(&u, cache, skip, part, to);
		to += part;
		offset += part;
		length -= part;
	}
	return r;
}

static void packed_close(struct file *file)
{
	struct index *index = file->content_state;

	cache_drop_file(index->packed.datastore->cache, file->serial);
	finding_unref(&index->finding);
}

static const struct content content_packed = {
	.read = packed_read,
	.close = packed_close,
};

int packed_set(const struct datastore *ds, struct file *file, const char *suffix, struct why *why)
{
	struct index *index = NULL;
	int r;

	if (!ds->cache)
		return why_set(why, -ENOTSUP, "there is no cache for what is unpacked");
	r = get_index(ds, file, suffix, &index, why);
	if (r < 0)
		return r;
	file->size = index->packed.size;
	file->blocks = div_ceil(file->size, 512);
	file->content = &content_packed;
	file->content_state = index;
	return 0;
}
