/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Internal snapshots of a qcow2. Follows docs/interop/qcow2.txt of QEMU, "Snapshots".
 *
 * The table is a row of entries, each aligned to 8 bytes, big-endian:
 *
 *   OFFSET SIZE
 *        0    8  L1 table: offset
 *        8    4  L1 table: entries
 *       12    2  bytes of the id
 *       14    2  bytes of the name
 *       36    4  bytes of extra data
 *       40       extra data: 8 (state of the virtual machine), 8 disk size, …; then id and name
 *
 * The disk is as large as it was then, which old images do not record: then as it is now. Behind
 * its end the tables hold the state of the virtual machine, which nobody sees here. Bit 63 of the
 * entries ("used once") is not kept up in snapshots, and map.c does not go by it.
 */
#include "qcow2.h"

#include <errno.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/log.h"
#include "imgfs/wire.h"

enum {
	L1_OFFSET = 0,
	L1_SIZE = 8,
	ID_SIZE = 12,
	NAME_SIZE = 14,
	EXTRA_SIZE = 36,
	ENTRY_BYTES = 40,
	EXTRA_DISK_SIZE = 8,
	EXTRA_BYTES = 16, /* of it that are read */
};

#define EXTRA_MAX 1024u /* as QEMU */

/* A stretch of the table at a time: entries are small, and there may be many. */
struct window {
	const struct file *file;
	uint64_t start;
	size_t length;
	uint8_t bytes[16384];
};

/* length is less than half a window. -EINVAL outside the file, or what reading says. */
static int take(struct window *w, void *out, uint64_t length, uint64_t offset)
{
	int r;

	if (!range_ok(offset, length, w->file->size))
		return -EINVAL;
	if (offset < w->start || offset + length > w->start + w->length) {
		w->start = offset;
		w->length = min_u64(sizeof(w->bytes), w->file->size - offset);
		r = file_read(w->file, w->bytes, w->length, offset);
		if (r < 0) {
			w->length = 0;
			return r;
		}
	}
	memcpy(out, w->bytes + (offset - w->start), length);
	return 0;
}

struct entry {
	uint64_t l1_offset, l1_entries;
	uint64_t size; /* of the disk, bytes */
	uint64_t id;   /* offset in the file */
	uint32_t id_size, name_size;
	uint64_t end; /* offset of the next entry */
};

/* 0, -EINVAL where there cannot be an entry, or what reading says. */
static int read_entry(const struct layer *layer, struct window *w, uint64_t at, struct entry *e)
{
	uint8_t bytes[ENTRY_BYTES + EXTRA_BYTES] = { 0 };
	uint32_t extra;
	int r = take(w, bytes, ENTRY_BYTES, at);

	if (r < 0)
		return r;
	extra = get_be32(bytes + EXTRA_SIZE);
	if (extra > EXTRA_MAX)
		return -EINVAL;
	r = take(w, bytes + ENTRY_BYTES, min_u64(extra, EXTRA_BYTES), at + ENTRY_BYTES);
	*e = (struct entry) {
		.l1_offset = get_be64(bytes + L1_OFFSET),
		.l1_entries = get_be32(bytes + L1_SIZE),
		.size = extra >= EXTRA_BYTES ? get_be64(bytes + ENTRY_BYTES + EXTRA_DISK_SIZE)
					     : layer->size,
		.id = at + ENTRY_BYTES + extra,
		.id_size = get_be16(bytes + ID_SIZE),
		.name_size = get_be16(bytes + NAME_SIZE),
	};
	e->end = round_up(e->id + e->id_size + e->name_size, 8);
	return r;
}

/* Calls with id and name, as much of them as a path can have. */
static int tell(struct window *w, const struct entry *e, uint32_t number, snapshot_found *found,
	void *argument)
{
	struct snapshot_seen seen = { .number = number, .size = e->size };
	int r = 0;

	if (e->id_size <= SNAPSHOT_NAME_MAX) {
		seen.id_length = e->id_size;
		r = take(w, seen.id, e->id_size, e->id);
	}
	if (r == 0 && e->name_size <= SNAPSHOT_NAME_MAX) {
		seen.name_length = e->name_size;
		r = take(w, seen.name, e->name_size, e->id + e->id_size);
	}
	return r < 0 ? r : found(&seen, argument);
}

int qcow2_snapshots(const struct layer *layer, snapshot_found *found, void *argument)
{
	const struct qcow2 *q = layer->state;
	struct window w = { .file = layer->file };
	struct entry e = { .end = q->snapshots_offset };
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < min_u64(q->snapshots, SNAPSHOTS_MAX); i++) {
		r = read_entry(layer, &w, e.end, &e);
		if (r == 0)
			r = tell(&w, &e, i, found, argument);
	}
	return r;
}

int qcow2_use_snapshot(struct layer *layer, uint32_t number, struct why *why)
{
	const struct qcow2 *q = layer->state;
	struct window w = { .file = layer->file };
	struct entry e = { .end = q->snapshots_offset };
	int r = 0;

	if (q->data)
		return why_set(why, -EINVAL, "with a data file there can be no snapshots");
	for (uint32_t i = 0; r == 0 && i <= number; i++)
		r = read_entry(layer, &w, e.end, &e);
	if (r < 0)
		return why_set(why, r, "its table of snapshots is damaged");
	if (e.size > INT64_MAX)
		return why_set(why, -EINVAL, "the snapshot's virtual size is beyond 2^63");
	layer->size = e.size;
	layer->standalone = false;
	return qcow2_use_l1(layer, e.l1_offset, e.l1_entries, why);
}
