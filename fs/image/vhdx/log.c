/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log (2.3): a ring of 4 KiB sectors with entries, each of them a number of 4 KiB pages that
 * are to be written to the file. Where it is not empty, the file is what it would be with the
 * newest sequence of entries written.
 *
 *   ENTRY       0 "loge", 4 CRC-32C of the entry, 8 length, 12 tail, 16 sequence number,
 *               24 descriptors, 32 log GUID, 48 flushed file offset, 56 last file offset
 *               descriptors of 32 bytes from 64 on, then, from the next sector on, data sectors
 *   DESCRIPTOR  "zero": 8 length, 16 offset, 24 sequence number
 *               "desc": 4 the last 4 bytes, 8 the first 8, 16 offset, 24 sequence number
 *   DATA        0 "data", 4 sequence number (high), 8 bytes 8 to 4091, 4092 the same (low)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/crc32c.h"
#include "imgfs/wire.h"
#include "vhdx.h"

enum {
	CHECKSUM = 4,
	LENGTH = 8,
	TAIL = 12,
	ENTRY_SEQUENCE = 16,
	DESCRIPTORS = 24,
	LOG_GUID = 32,
	FLUSHED = 48,
	LAST = 56,
	HEADER_BYTES = 64,

	ZERO_LENGTH = 8,
	FILE_OFFSET = 16,
	SEQUENCE = 24,
	DESCRIPTOR_BYTES = 32,

	SEQUENCE_HIGH = 4,
	SEQUENCE_LOW = 4092,
};

/*
 * An entry is looked at again where the ring wraps, and where a newer one has overwritten it in
 * part: so often that a log of entries one inside the other gets nowhere.
 */
#define PASSES_MAX 4

struct log {
	const struct file *file;
	uint64_t start, length;
	const uint8_t *guid;
	uint64_t work; /* bytes of entries that may still be looked at */
};

/* An entry; places are offsets from the start of the ring. */
struct entry {
	uint64_t at, length, tail, sequence;
	uint64_t flushed, last;
	uint64_t descriptors;        /* how many */
	uint64_t descriptor_sectors; /* bytes of the sectors that hold them, and the header */
};

/* Entries that follow each other. */
struct sequence {
	size_t count;
	uint64_t length; /* bytes, of all entries */
	struct entry head;
};

static int read_sector(const struct log *log, uint64_t at, uint8_t *sector)
{
	return file_read(log->file, sector, VHDX_PAGE, log->start + at % log->length);
}

/* ---- one entry ---- */

static bool parse_header(const struct log *log, uint64_t at, const uint8_t *sector, struct entry *e)
{
	*e = (struct entry) {
		.at = at,
		.length = get_le32(sector + LENGTH),
		.tail = get_le32(sector + TAIL),
		.sequence = get_le64(sector + ENTRY_SEQUENCE),
		.flushed = get_le64(sector + FLUSHED),
		.last = get_le64(sector + LAST),
		.descriptors = get_le32(sector + DESCRIPTORS),
	};
	e->descriptor_sectors =
		round_up(HEADER_BYTES + e->descriptors * DESCRIPTOR_BYTES, VHDX_PAGE);
	return memcmp(sector, "loge", 4) == 0 && uuid_equal(sector + LOG_GUID, log->guid) &&
	       e->sequence > 0 && e->length % VHDX_PAGE == 0 && e->length <= log->length &&
	       e->descriptor_sectors <= e->length && e->tail % VHDX_PAGE == 0 &&
	       e->tail < log->length;
}

static bool check_descriptor(const struct entry *e, const uint8_t *d, uint64_t *data_sectors)
{
	uint64_t offset = get_le64(d + FILE_OFFSET);
	uint64_t length = VHDX_PAGE;

	if (get_le64(d + SEQUENCE) != e->sequence)
		return false;
	if (memcmp(d, "zero", 4) == 0)
		length = get_le64(d + ZERO_LENGTH);
	else if (memcmp(d, "desc", 4) == 0)
		++*data_sectors;
	else
		return false;
	return offset % VHDX_PAGE == 0 && length % VHDX_PAGE == 0 &&
	       range_ok(offset, length, VHDX_FILE_MAX);
}

static bool check_data_sector(const struct entry *e, const uint8_t *sector)
{
	uint64_t sequence =
		(uint64_t)get_le32(sector + SEQUENCE_HIGH) << 32 | get_le32(sector + SEQUENCE_LOW);

	return memcmp(sector, "data", 4) == 0 && sequence == e->sequence;
}

/* The descriptors of the sector at `at` of the entry. */
static bool check_descriptors(
	const struct entry *e, uint64_t at, const uint8_t *sector, uint64_t *data_sectors)
{
	uint64_t end = min_u64(at + VHDX_PAGE, HEADER_BYTES + e->descriptors * DESCRIPTOR_BYTES);

	for (uint64_t i = at == 0 ? HEADER_BYTES : at; i < end; i += DESCRIPTOR_BYTES) {
		if (!check_descriptor(e, sector + (i - at), data_sectors))
			return false;
	}
	return true;
}

/*
 * Is there a valid entry at `at`? 0 no, 1 yes, -EFBIG where enough has been looked at, -errno.
 * Sectors behind the last data sector are padding.
 */
static int check_entry(struct log *log, uint64_t at, struct entry *e)
{
	uint8_t sector[VHDX_PAGE];
	uint64_t data_end;
	uint32_t expected, sum = 0;
	int r = read_sector(log, at, sector);

	if (r < 0 || !parse_header(log, at, sector, e))
		return r;
	if (log->work < e->length)
		return -EFBIG;
	log->work -= e->length;
	expected = get_le32(sector + CHECKSUM);
	put_le32(sector + CHECKSUM, 0);
	data_end = e->descriptor_sectors;
	for (uint64_t i = 0; i < e->length; i += VHDX_PAGE) {
		uint64_t data_sectors = 0;

		if (i > 0)
			r = read_sector(log, at + i, sector);
		if (r < 0)
			return r;
		sum = crc32c(sum, sector, VHDX_PAGE);
		if (i < e->descriptor_sectors && !check_descriptors(e, i, sector, &data_sectors))
			return 0;
		if (i >= e->descriptor_sectors && i < data_end && !check_data_sector(e, sector))
			return 0;
		data_end += data_sectors * VHDX_PAGE;
	}
	return sum == expected && data_end <= e->length;
}

/* ---- the active sequence (2.3.3) ---- */

/*
 * The entries that follow each other from `at` on; starts[] is where each of them is. Together
 * they are never longer than the ring.
 */
static int follow(struct log *log, uint64_t at, uint64_t *starts, struct sequence *s)
{
	struct entry e;
	int r;

	*s = (struct sequence) { 0 };
	while (s->length < log->length) {
		r = check_entry(log, (at + s->length) % log->length, &e);
		if (r < 0)
			return r;
		if (r == 0 || e.length > log->length - s->length ||
			(s->count > 0 && e.sequence != s->head.sequence + 1))
			break;
		starts[s->count++] = e.at;
		s->length += e.length;
		s->head = e;
	}
	return 0;
}

static bool is_complete(const uint64_t *starts, const struct sequence *s)
{
	for (size_t i = 0; i < s->count; i++) {
		if (starts[i] == s->head.tail)
			return true;
	}
	return false;
}

static int find_active(struct log *log, struct sequence *active)
{
	autofree uint64_t *starts = calloc(log->length / VHDX_PAGE, sizeof(*starts));
	uint64_t at = 0;

	if (!starts)
		return -ENOMEM;
	*active = (struct sequence) { 0 };
	while (at < log->length) {
		struct sequence s;
		int r = follow(log, at, starts, &s);

		if (r < 0)
			return r;
		if (is_complete(starts, &s)) {
			if (s.head.sequence > active->head.sequence)
				*active = s;
			at += s.length;
		} else {
			at += VHDX_PAGE;
		}
	}
	return 0;
}

/* ---- replay ---- */

static int replay_descriptor(const struct log *log, struct vhdx *v, uint64_t at, uint64_t *sector)
{
	struct vhdx_patch patch = { .descriptor = log->start + at % log->length };
	uint8_t d[DESCRIPTOR_BYTES];
	uint64_t length = VHDX_PAGE;
	int r = file_read(log->file, d, sizeof(d), patch.descriptor);

	if (r < 0)
		return r;
	if (memcmp(d, "zero", 4) == 0) {
		length = get_le64(d + ZERO_LENGTH);
	} else {
		patch.sector = log->start + *sector % log->length;
		*sector += VHDX_PAGE;
	}
	patch.start = get_le64(d + FILE_OFFSET);
	/* It was all right a moment ago, but the file may have changed. */
	if (patch.start % VHDX_PAGE || length % VHDX_PAGE ||
		!range_ok(patch.start, length, VHDX_FILE_MAX))
		return -ESTALE;
	if (length == 0)
		return 0;
	patch.end = patch.start + length;
	v->end = max_u64(v->end, patch.end);
	return vhdx_add_patch(v, patch);
}

static int replay_entry(const struct log *log, struct vhdx *v, const struct entry *e)
{
	uint64_t sector = e->at + e->descriptor_sectors;
	int r = 0;

	for (uint64_t i = 0; i < e->descriptors && r == 0; i++)
		r = replay_descriptor(log, v, e->at + HEADER_BYTES + i * DESCRIPTOR_BYTES, &sector);
	return r;
}

/* From the tail on, for what is before it has been written. */
static int replay(const struct log *log, struct vhdx *v, const struct sequence *active)
{
	uint64_t at = active->head.tail;
	uint64_t done = 0;
	struct entry e = { 0 };

	do {
		uint8_t header[VHDX_PAGE];
		int r = read_sector(log, at, header);

		if (r == 0 && !parse_header(log, at, header, &e))
			r = -ESTALE;
		if (r == 0)
			r = replay_entry(log, v, &e);
		if (r < 0)
			return r;
		at = (at + e.length) % log->length;
		done += e.length;
	} while (e.sequence != active->head.sequence && done <= log->length);
	return 0;
}

static int check_active(
	const struct layer *layer, struct vhdx *v, const struct entry *head, struct why *why)
{
	if (head->sequence == 0)
		return why_set(
			why, -EINVAL, "its log should hold something, but has no valid entries");
	if (head->flushed > layer->file->size)
		return why_set(why, -EINVAL,
			"it has been cut short: its log says that it had %llu bytes",
			(unsigned long long)head->flushed);
	if (head->last > VHDX_FILE_MAX)
		return why_set(why, -EINVAL, "its log says that it has more than 128 TiB");
	v->end = max_u64(v->end, head->last);
	return 0;
}

int vhdx_replay(struct layer *layer, struct vhdx *v, struct why *why)
{
	struct log log = {
		.file = layer->file,
		.start = v->regions[VHDX_LOG].start,
		.length = v->regions[VHDX_LOG].length,
		.guid = v->log_guid,
		.work = v->regions[VHDX_LOG].length * PASSES_MAX,
	};
	struct sequence active;
	int r;

	if (v->log_empty)
		return 0;
	if (log.length > VHDX_LOG_MAX)
		return why_set(why, -ENOTSUP, "its log is not empty, and larger than %u MiB",
			VHDX_LOG_MAX >> 20);
	r = find_active(&log, &active);
	if (r == -EFBIG)
		return why_set(why, -EINVAL, "the entries of its log overlap");
	if (r < 0)
		return why_set(why, r, "its log cannot be read");
	r = check_active(layer, v, &active.head, why);
	if (r < 0)
		return r;
	r = replay(&log, v, &active);
	if (r == -EFBIG)
		return why_set(why, -ENOTSUP, "its log is not empty, and has more than %u pages",
			VHDX_LOG_PATCHES);
	return r < 0 ? why_set(why, r, "its log cannot be read") : 0;
}
