/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd (RFC 8878): frames. Where they are and how much is in each is said by a seek table at the
 * end (the seekable format of zstd's contrib directory), or found by going from frame to frame,
 * and from block to block in them.
 *
 * A frame, all numbers little-endian:
 *
 *     0  4  magic
 *     4  1  descriptor: 7-6 size of the content size, 5 one segment, 3 reserved, 2 checksum,
 *           1-0 size of the dictionary's number
 *     5  1  window; not where there is one segment
 *        .  number of the dictionary, content size, then blocks
 *
 * A block has a header of 3 bytes: bit 0 it is the last, 1-2 its type (0 plain, 1 one byte again
 * and again, 2 compressed), and from bit 3 its size. A frame may end in a checksum of 4 bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/compression.h"
#include "imgfs/wire.h"

#define MAGIC            0xfd2fb528u
#define MAGIC_SKIPPABLE  0x184d2a50u /* to …5f */
#define MAGIC_SEEK_TABLE 0x184d2a5eu
#define SEEK_MAGIC       0x8f92eab1u

#define HEADER_MAX       18u
#define SKIPPABLE        8u
#define SEEK_FOOTER      9u
#define SEEK_DESCRIPTOR  4u /* in the footer: 7 checksums, 6-2 reserved */
#define BLOCK_HEADER     3u

/* Frames and blocks that are looked at one by one, at most: a second or two. */
#define STEPS_MAX 4000000u

/* A frame of so much content is not larger than this, even where nothing of it shrinks. */
#define FRAME_MAX (PACKED_BLOCK_MAX + (PACKED_BLOCK_MAX >> 8) + 1024u)

struct frame {
	uint64_t start;  /* of its content */
	uint64_t offset; /* of the frame */
	uint32_t length; /* of the frame */
};

struct frames {
	size_t count, capacity; /* none is empty */
	struct frame *v;
};

static bool zstd_probe(const uint8_t *head, size_t length)
{
	return length >= 4 &&
	       (get_le32(head) == MAGIC || (get_le32(head) & ~15u) == MAGIC_SKIPPABLE);
}

static int read_bytes(
	const struct file *file, uint8_t *bytes, uint64_t length, uint64_t at, struct why *why)
{
	int r = packed_read_stored(file, bytes, length, at);

	return r < 0 ? why_set(why, r, "reading it: %s", strerror(-r)) : 0;
}

static int damaged(struct why *why)
{
	return why_set(why, -EINVAL, "its zstd frames are damaged");
}

static int too_large(uint64_t bytes, struct why *why)
{
	return why_set(why, -ENOTSUP,
		"it has a zstd frame of %llu MiB, and what is in a frame cannot be read without "
		"all "
		"of it; pzstd and tools for seekable zstd make smaller ones",
		(unsigned long long)bytes >> 20);
}

/* ---- the list ---- */

static int add_frame(struct packed *packed, struct frames *frames, uint64_t offset, uint64_t length,
	uint64_t content, struct why *why)
{
	if (content > PACKED_BLOCK_MAX)
		return too_large(content, why);
	if (length > FRAME_MAX)
		return damaged(why);
	if (content == 0)
		return 0;
	if (frames->count == frames->capacity) {
		size_t more = frames->capacity ? frames->capacity : 16;
		struct frame *grown;

		if (!packed_charge(packed, more * sizeof(*grown)))
			return why_set(why, -ENOMEM,
				"the indexes of compressed files take too much memory");
		grown = reallocarray(frames->v, frames->capacity + more, sizeof(*grown));
		if (!grown)
			return why_set(why, -ENOMEM, "out of memory");
		frames->v = grown;
		frames->capacity += more;
	}
	frames->v[frames->count++] = (struct frame) { packed->size, offset, (uint32_t)length };
	packed->size += content;
	return 0;
}

/* ---- by a seek table ---- */

/* The table's place and the size of its entries. 1 there is one, 0 there is none, or -errno. */
static int find_table(
	const struct file *file, uint64_t *at, uint64_t *count, uint32_t *entry, struct why *why)
{
	uint64_t size = file->state.size;
	uint8_t footer[SEEK_FOOTER], header[SKIPPABLE];
	int r;

	if (size < SKIPPABLE + SEEK_FOOTER)
		return 0;
	r = read_bytes(file, footer, SEEK_FOOTER, size - SEEK_FOOTER, why);
	if (r < 0)
		return r;
	if (get_le32(footer + 5) != SEEK_MAGIC || (footer[SEEK_DESCRIPTOR] & 0x7c))
		return 0;
	*count = get_le32(footer);
	*entry = footer[SEEK_DESCRIPTOR] & 0x80 ? 12 : 8;
	if (*count * *entry > size - SKIPPABLE - SEEK_FOOTER)
		return 0;
	*at = size - SEEK_FOOTER - *count * *entry;
	r = read_bytes(file, header, SKIPPABLE, *at - SKIPPABLE, why);
	if (r < 0)
		return r;
	return get_le32(header) == MAGIC_SEEK_TABLE &&
	       get_le32(header + 4) == *count * *entry + SEEK_FOOTER;
}

#define ENTRIES 512u

/* 1: the frames are those of the table, which end where it begins. */
static int read_table(
	const struct file *file, struct packed *packed, struct frames *frames, struct why *why)
{
	uint8_t bytes[ENTRIES * 12];
	uint64_t at, count, offset = 0, left;
	uint32_t entry;
	int r = find_table(file, &at, &count, &entry, why);

	if (r <= 0)
		return r;
	left = at - SKIPPABLE;
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *e = bytes + i % ENTRIES * entry;

		if (i % ENTRIES == 0) {
			r = read_bytes(file, bytes, min_u64(ENTRIES, count - i) * entry,
				at + i * entry, why);
			if (r < 0)
				return r;
		}
		if (get_le32(e) > left - offset)
			return 0;
		r = add_frame(packed, frames, offset, get_le32(e), get_le32(e + 4), why);
		if (r < 0)
			return r;
		offset += get_le32(e);
	}
	return offset == left;
}

/* ---- by going through ---- */

struct walk {
	const struct file *file;
	struct packed *packed;
	struct frames frames;
	uint64_t at;
	uint32_t steps;
	uint8_t *scratch; /* for frames whose content has to be counted */
};

struct header {
	uint32_t length;
	bool sized, checksum;
	uint64_t content;
};

/* *length bytes at the place of the walk, or as many as there are. */
static int look(const struct walk *w, uint8_t *bytes, uint32_t *length, struct why *why)
{
	*length = (uint32_t)min_u64(*length, w->file->state.size - w->at);
	return read_bytes(w->file, bytes, *length, w->at, why);
}

static uint64_t get_number(const uint8_t *bytes, uint32_t length)
{
	uint64_t number = 0;

	for (uint32_t i = length; i > 0; i--)
		number = number << 8 | bytes[i - 1];
	return number;
}

static int parse_header(
	const uint8_t *bytes, uint32_t length, struct header *header, struct why *why)
{
	static const uint8_t dictionary_sizes[] = { 0, 1, 2, 4 };
	static const uint8_t content_sizes[] = { 0, 2, 4, 8 };
	uint8_t descriptor = length > 4 ? bytes[4] : 0xff;
	bool single = descriptor >> 5 & 1;
	uint32_t dictionary = dictionary_sizes[descriptor & 3];
	uint32_t size = content_sizes[descriptor >> 6];
	uint32_t at = 5 + !single;

	if (size == 0 && single)
		size = 1;
	if ((descriptor & 8) || at + dictionary + size > length)
		return damaged(why);
	if (get_number(bytes + at, dictionary) != 0)
		return why_set(why, -ENOTSUP, "it needs a zstd dictionary");
	at += dictionary;
	*header = (struct header) {
		.length = at + size,
		.sized = size > 0,
		.checksum = descriptor >> 2 & 1,
		.content = get_number(bytes + at, size) + (size == 2 ? 256 : 0),
	};
	return 0;
}

static int step(struct walk *w, struct why *why)
{
	if (++w->steps <= STEPS_MAX)
		return 0;
	return why_set(
		why, -ENOTSUP, "its zstd frames are too many to go through without a seek table");
}

/* Goes on behind the blocks of a frame, which began at `start`. */
static int skip_blocks(struct walk *w, uint64_t start, struct why *why)
{
	for (;;) {
		uint8_t bytes[BLOCK_HEADER];
		uint32_t length = BLOCK_HEADER, word;
		int r = look(w, bytes, &length, why);

		if (r < 0)
			return r;
		if (length < BLOCK_HEADER)
			return damaged(why);
		r = step(w, why);
		if (r < 0)
			return r;
		word = (uint32_t)get_number(bytes, BLOCK_HEADER);
		w->at += BLOCK_HEADER + ((word >> 1 & 3) == 1 ? 1 : word >> 3);
		if ((word >> 1 & 3) == 3 || w->at > w->file->state.size)
			return damaged(why);
		if (w->at - start > FRAME_MAX)
			return too_large(w->at - start, why);
		if (word & 1)
			return 0;
	}
}

/* How much is in a frame that does not say so? It has to be unpacked to know. */
static int count_content(
	struct walk *w, uint64_t offset, uint64_t length, uint64_t *content, struct why *why)
{
	autofree uint8_t *stored = NULL;
	size_t result;
	int r;

	if (!w->packed->datastore->scan_gzip)
		return why_set(why, -ENOTSUP,
			"its zstd frames do not say how much is in them, so all of it has to be "
			"read to know (-o scan_gzip allows that)");
	if (packed_interrupted(w->packed))
		return why_set(why, -EINTR, "interrupted");
	stored = malloc(length);
	if (!w->scratch)
		w->scratch = malloc(PACKED_BLOCK_MAX);
	if (!stored || !w->scratch)
		return why_set(why, -ENOMEM, "out of memory");
	r = read_bytes(w->file, stored, length, offset, why);
	if (r < 0)
		return r;
	result = ZSTD_decompress(w->scratch, PACKED_BLOCK_MAX, stored, length);
	if (ZSTD_isError(result))
		return why_set(why, -EINVAL,
			"a zstd frame of it is damaged, or has more than %u MiB in it",
			PACKED_BLOCK_MAX >> 20);
	*content = result;
	return 0;
}

static int walk_frame(struct walk *w, const uint8_t *bytes, uint32_t length, struct why *why)
{
	uint64_t offset = w->at;
	struct header header = { 0 };
	int r = parse_header(bytes, length, &header, why);

	if (r < 0)
		return r;
	if (header.sized && header.content > PACKED_BLOCK_MAX)
		return too_large(header.content, why);
	w->at += header.length;
	r = skip_blocks(w, offset, why);
	if (r < 0)
		return r;
	w->at += header.checksum ? 4 : 0;
	if (w->at > w->file->state.size)
		return damaged(why);
	if (!header.sized)
		r = count_content(w, offset, w->at - offset, &header.content, why);
	if (r < 0)
		return r;
	return add_frame(w->packed, &w->frames, offset, w->at - offset, header.content, why);
}

static int walk_frames(struct walk *w, struct why *why)
{
	int r = 0;

	while (r == 0 && w->at < w->file->state.size) {
		uint8_t bytes[HEADER_MAX];
		uint32_t length = HEADER_MAX;

		r = look(w, bytes, &length, why);
		if (r == 0)
			r = step(w, why);
		if (r < 0)
			return r;
		if (length < SKIPPABLE || !zstd_probe(bytes, length))
			return damaged(why);
		if (get_le32(bytes) == MAGIC)
			r = walk_frame(w, bytes, length, why);
		else if (!checked_add(w->at, SKIPPABLE + (uint64_t)get_le32(bytes + 4), &w->at) ||
			 w->at > w->file->state.size)
			return damaged(why);
	}
	return r;
}

/* ---- */

static int zstd_open(const struct file *file, struct packed *packed, struct why *why)
{
	struct frames *frames = calloc(1, sizeof(*frames));
	struct walk w = { .file = file, .packed = packed };
	int r;

	if (!frames)
		return why_set(why, -ENOMEM, "out of memory");
	r = read_table(file, packed, &w.frames, why);
	if (r == 0) {
		packed->size = 0;
		w.frames.count = 0;
		r = walk_frames(&w, why);
	}
	free(w.scratch);
	if (r < 0) {
		free(w.frames.v);
		free(frames);
		return r;
	}
	*frames = w.frames;
	packed->state = frames;
	return 0;
}

static void zstd_close(struct packed *packed)
{
	struct frames *frames = packed->state;

	free(frames->v);
	free(frames);
}

/* The last frame whose content does not begin after offset. */
static size_t locate(const struct frames *frames, uint64_t offset)
{
	size_t low = 0, high = frames->count - 1;

	while (low < high) {
		size_t middle = high - (high - low) / 2;

		if (frames->v[middle].start <= offset)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

static void zstd_find(const struct packed *packed, uint64_t offset, struct packed_block *block)
{
	const struct frames *frames = packed->state;
	size_t i = locate(frames, offset);
	uint64_t end = i + 1 < frames->count ? frames->v[i + 1].start : packed->size;

	block->start = frames->v[i].start;
	block->length = end - block->start;
}

static int zstd_unpack(const struct packed *packed, const struct file *file,
	const struct packed_block *block, uint8_t *bytes)
{
	const struct frames *frames = packed->state;
	const struct frame *frame = &frames->v[locate(frames, block->start)];
	autofree uint8_t *stored = malloc(frame->length);
	size_t result;
	int r;

	if (!stored)
		return -ENOMEM;
	r = packed_read_stored(file, stored, frame->length, frame->offset);
	if (r < 0)
		return r;
	/* Of frames that have a checksum it is verified; more or less content is an error too. */
	result = ZSTD_decompress(bytes, block->length, stored, frame->length);
	return result == block->length ? 0 : -EIO;
}

const struct compression compression_zstd = {
	.name = "zstd",
	.suffix = "zst",
	.probe = zstd_probe,
	.open = zstd_open,
	.find = zstd_find,
	.unpack = zstd_unpack,
	.close = zstd_close,
};
