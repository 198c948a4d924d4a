/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A qcow2 file made in memory, entry by entry, so that a test can make any of them wrong.
 *
 * Cluster 0 has the header, cluster 1 stands for the refcount table (readers never look at it),
 * then the L1 table, then whatever is asked for in that order.
 */
#ifndef IMGFS_TEST_QCOW2_IMAGE_H
#define IMGFS_TEST_QCOW2_IMAGE_H

#include <zlib.h>

#include "support.h"

#define QCOW2_COPIED     (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO       1ull

struct qcow2_image {
	uint32_t bits;
	uint64_t cluster;
	uint64_t entry_size; /* of L2 entries; 16 with extended L2 */
	uint64_t size;
	uint64_t l1_entries, l1;
	uint64_t extensions; /* where the next header extension goes */
	uint8_t *file;
	uint64_t length, room;
};

/* Appends so many zero bytes; returns where. */
static inline uint64_t qcow2_append(struct qcow2_image *q, uint64_t length)
{
	uint64_t at = q->length;

	if (q->length + length > q->room) {
		q->room = (q->length + length) * 2;
		q->file = realloc(q->file, q->room);
		assert_non_null(q->file);
	}
	memset(q->file + at, 0, length);
	q->length += length;
	return at;
}

/* The same, at the next border of a cluster. */
static inline uint64_t qcow2_append_cluster(struct qcow2_image *q, uint64_t length)
{
	if (q->length % q->cluster)
		qcow2_append(q, q->cluster - q->length % q->cluster);
	return qcow2_append(q, length);
}

static inline void qcow2_begin_with(
	struct qcow2_image *q, uint32_t bits, uint64_t size, bool extended)
{
	*q = (struct qcow2_image) {
		.bits = bits,
		.cluster = 1ull << bits,
		.entry_size = extended ? 16 : 8,
		.size = size,
		.extensions = 104,
	};
	q->l1_entries = div_ceil(size, q->cluster * (q->cluster / q->entry_size));
	qcow2_append(q, 2 * q->cluster);
	q->l1 = qcow2_append(q, round_up(max_u64(q->l1_entries, 1) * 8, q->cluster));
	memcpy(q->file, "QFI\xfb", 4);
	put_be32(q->file + 4, 3);
	put_be32(q->file + 20, bits);
	put_be64(q->file + 24, size);
	put_be32(q->file + 36, (uint32_t)q->l1_entries);
	put_be64(q->file + 40, q->l1);
	put_be64(q->file + 48, q->cluster);
	put_be32(q->file + 56, 1);
	put_be64(q->file + 72, extended ? 1u << 4 : 0);
	put_be32(q->file + 96, 4);
	put_be32(q->file + 100, 104);
}

static inline void qcow2_begin(struct qcow2_image *q, uint32_t bits, uint64_t size)
{
	qcow2_begin_with(q, bits, size, false);
}

/* Adds a header extension; the zeros behind the last one end them. */
static inline void qcow2_extension(
	struct qcow2_image *q, uint32_t type, const void *data, uint32_t length)
{
	assert_true(q->extensions + 8 + length <= q->cluster);
	put_be32(q->file + q->extensions, type);
	put_be32(q->file + q->extensions + 4, length);
	memcpy(q->file + q->extensions + 8, data, length);
	q->extensions += 8 + round_up(length, 8);
}

/* Names the backing file, behind the extensions, of which no more may follow. */
static inline void qcow2_backing(struct qcow2_image *q, const char *name, const char *format)
{
	uint64_t at;

	if (format)
		qcow2_extension(q, 0xe2792aca, format, (uint32_t)strlen(format));
	at = q->extensions + 8;
	assert_true(at + strlen(name) <= q->cluster);
	put_be64(q->file + 8, at);
	put_be32(q->file + 16, (uint32_t)strlen(name));
	memcpy(q->file + at, name, strlen(name));
}

/* Where the L2 entry of a guest offset is in the file; makes the table where there is none. */
static inline uint64_t qcow2_entry(struct qcow2_image *q, uint64_t guest)
{
	uint64_t entries = q->cluster / q->entry_size;
	uint64_t l1 = q->l1 + guest / q->cluster / entries * 8;
	uint64_t table = get_be64(q->file + l1) & ~QCOW2_COPIED;

	if (table == 0) {
		table = qcow2_append_cluster(q, q->cluster);
		put_be64(q->file + l1, table | QCOW2_COPIED);
	}
	return table + guest / q->cluster % entries * q->entry_size;
}

static inline void qcow2_set(struct qcow2_image *q, uint64_t guest, uint64_t word)
{
	uint64_t at = qcow2_entry(q, guest);

	put_be64(q->file + at, word);
}

/* With extended L2: both words. */
static inline void qcow2_set_extended(
	struct qcow2_image *q, uint64_t guest, uint64_t word, uint64_t bitmap)
{
	uint64_t at = qcow2_entry(q, guest);

	put_be64(q->file + at, word);
	put_be64(q->file + at + 8, bitmap);
}

/* A data cluster of these bytes; returns where it is. */
static inline uint64_t qcow2_data(struct qcow2_image *q, uint64_t guest, const uint8_t *bytes)
{
	uint64_t at;

	qcow2_entry(q, guest);
	at = qcow2_append_cluster(q, q->cluster);
	memcpy(q->file + at, bytes, q->cluster);
	qcow2_set(q, guest, at | QCOW2_COPIED);
	return at;
}

/* The L2 word of a compressed cluster whose stream lies there. */
static inline uint64_t qcow2_packed_word(uint32_t bits, uint64_t offset, uint64_t length)
{
	uint64_t last = offset + length - 1;
	uint64_t sectors = last / 512 - offset / 512;

	return QCOW2_COMPRESSED | sectors << (70 - bits) | offset;
}

/* Deflates one cluster; returns the length. */
static inline uint64_t qcow2_deflate(
	const uint8_t *bytes, uint64_t length, uint8_t *out, uint64_t room)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (Bytef *)(uintptr_t)bytes;
	z.avail_in = (uInt)length;
	z.next_out = out;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(deflateEnd(&z), Z_OK);
	return room - z.avail_out;
}

/* A compressed cluster of these bytes, right behind what is there, at any offset. */
static inline uint64_t qcow2_packed(struct qcow2_image *q, uint64_t guest, const uint8_t *bytes)
{
	uint64_t at, length;
	uint8_t *out = malloc(q->cluster * 2 + 64);

	assert_non_null(out);
	qcow2_entry(q, guest);
	length = qcow2_deflate(bytes, q->cluster, out, q->cluster * 2 + 64);
	at = qcow2_append(q, length);
	memcpy(q->file + at, out, length);
	free(out);
	qcow2_set(q, guest, qcow2_packed_word(q->bits, at, length));
	return at;
}

/* Writes the file, as long as it is now; qcow2_end() is still to be called. */
static inline void qcow2_write(const struct qcow2_image *q, const char *name)
{
	store_write(name, q->file, q->length);
}

static inline void qcow2_end(struct qcow2_image *q)
{
	free(q->file);
	q->file = NULL;
}

#endif
