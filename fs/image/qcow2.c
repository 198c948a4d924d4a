/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2, versions 2 and 3, as a source. Follows docs/interop/qcow2.txt of QEMU.
 *
 * Header, big-endian ("Header", "Additional fields (version 3 and higher)"):
 *
 *   OFFSET SIZE
 *        0    4  magic "QFI\xfb"
 *        4    4  version
 *        8    8  backing file name: offset in the file, 0 for none
 *       16    4  backing file name: bytes
 *       20    4  cluster_bits
 *       24    8  virtual size in bytes
 *       32    4  encryption method, 0 for none
 *       36    4  L1 table: entries
 *       40    8  L1 table: offset
 *       48    8  refcount table: offset      (readers never need refcounts)
 *       56    4  refcount table: clusters
 *       60    4  snapshots: count
 *       64    8  snapshots: offset
 *       72    8  incompatible features       (from here: version 3)
 *       80    8  compatible features
 *       88    8  autoclear features
 *       96    4  refcount order
 *      100    4  header length
 *      104    1  compression type            (where the header is longer than 104)
 *
 * Header extensions follow: be32 type, be32 length, data padded to 8 bytes.
 *
 * The tables are in fs/image/qcow2/map.c, the snapshots in snapshots.c beside it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/log.h"
#include "imgfs/wire.h"
#include "qcow2/qcow2.h"

enum {
	MAGIC = 0,
	VERSION = 4,
	BACKING_OFFSET = 8,
	BACKING_SIZE = 16,
	CLUSTER_BITS = 20,
	SIZE = 24,
	CRYPT_METHOD = 32,
	L1_SIZE = 36,
	L1_OFFSET = 40,
	REFCOUNT_TABLE_OFFSET = 48,
	REFCOUNT_TABLE_CLUSTERS = 56,
	SNAPSHOTS = 60,
	SNAPSHOTS_OFFSET = 64,
	INCOMPATIBLE = 72,
	AUTOCLEAR = 88,
	REFCOUNT_ORDER = 96,
	HEADER_LENGTH = 100,
	COMPRESSION_TYPE = 104,
	V2_HEADER_BYTES = 72,
	V3_HEADER_BYTES = 104,
};

enum {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_DATA_FILE = 0x44415441,
};

#define INCOMPATIBLE_DIRTY       (1ull << 0) /* refcounts are stale; L1 and L2 are not */
#define INCOMPATIBLE_CORRUPT     (1ull << 1) /* some writer complained; every use is checked here */
#define INCOMPATIBLE_DATA_FILE   (1ull << 2)
#define INCOMPATIBLE_COMPRESSION (1ull << 3)
#define INCOMPATIBLE_EXTENDED_L2 (1ull << 4)
#define INCOMPATIBLE_KNOWN       (INCOMPATIBLE_EXTENDED_L2 * 2 - 1)
#define AUTOCLEAR_RAW_DATA       (1ull << 1)

#define BACKING_NAME_MAX         1023u
#define HEADER_ROOM              4096u

/* The header cluster as it is parsed; its numbers are still what the image says. */
struct header {
	uint8_t *bytes;
	uint64_t length;     /* of bytes: a cluster, or the file where that is shorter */
	uint64_t extensions; /* offset of the first extension */
	uint64_t extensions_end;
	bool ended; /* the extensions end inside what was read */
	uint64_t backing_offset;
	uint32_t backing_size;
	uint64_t incompatible, autoclear;
	char backing_format[16];
	const uint8_t *data_file;
	uint32_t data_file_length;
};

static int qcow2_probe(const struct probe *probe)
{
	if (probe->head_length < 8 || memcmp(probe->head, "QFI\xfb", 4) != 0)
		return 0;
	return get_be32(probe->head + VERSION) >= 2 ? 100 : 0;
}

/* ---- open ---- */

/* Of the header cluster the first `room` bytes are read. */
static int read_header(
	struct layer *layer, struct qcow2 *q, uint64_t room, struct header *h, struct why *why)
{
	uint8_t fixed[V2_HEADER_BYTES];
	uint32_t version;
	int r = file_read(layer->file, fixed, sizeof(fixed), 0);

	if (r == -ERANGE)
		return why_set(why, -EINVAL, "its header is cut short");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	version = get_be32(fixed + VERSION);
	if (version != 2 && version != 3)
		return why_set(why, -ENOTSUP, "qcow2 version %u is not supported", version);
	q->version2 = version == 2;
	q->cluster_bits = get_be32(fixed + CLUSTER_BITS);
	if (q->cluster_bits < 9 || q->cluster_bits > 21)
		return why_set(why, -EINVAL, "cluster_bits %u is outside 9..21", q->cluster_bits);
	q->cluster = 1ull << q->cluster_bits;

	h->length = min_u64(min_u64(q->cluster, room), layer->file->size);
	h->bytes = calloc(1, max_u64(h->length, V3_HEADER_BYTES));
	if (!h->bytes)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(layer->file, h->bytes, h->length, 0);
	return r < 0 ? why_set(why, r, "its header cannot be read") : 0;
}

static int parse_features(struct qcow2 *q, struct header *h, struct why *why)
{
	uint32_t length = get_be32(h->bytes + HEADER_LENGTH);
	uint8_t compression = 0;
	uint64_t unknown;

	if (length < V3_HEADER_BYTES || length > h->length)
		return why_set(why, -EINVAL, "its header length %u is impossible", length);
	h->extensions = length;
	h->incompatible = get_be64(h->bytes + INCOMPATIBLE);
	h->autoclear = get_be64(h->bytes + AUTOCLEAR);
	unknown = h->incompatible & ~INCOMPATIBLE_KNOWN;
	if (unknown)
		return why_set(why, -ENOTSUP, "it needs a feature that is unknown here (bit %d)",
			__builtin_ctzll(unknown));
	if (get_be32(h->bytes + REFCOUNT_ORDER) > 6)
		return why_set(why, -EINVAL, "its refcount order is beyond 6");

	if (length > COMPRESSION_TYPE)
		compression = h->bytes[COMPRESSION_TYPE];
	if (compression > 1)
		return why_set(why, -ENOTSUP, "compression type %u is unknown", compression);
	if ((compression != 0) != ((h->incompatible & INCOMPATIBLE_COMPRESSION) != 0))
		return why_set(why, -EINVAL, "its compression type contradicts its feature bits");
	q->codec = compression ? CODEC_ZSTD : CODEC_DEFLATE;
	if (!codec_supported(q->codec))
		return why_set(why, -ENOTSUP, "this build cannot unpack zstd");
	return 0;
}

static int parse_header(struct layer *layer, struct qcow2 *q, struct header *h, struct why *why)
{
	static const char *const ciphers[] = { "", "AES", "LUKS" };
	uint32_t crypt = get_be32(h->bytes + CRYPT_METHOD);
	int r;

	if (crypt != 0)
		return why_set(why, -ENOTSUP, "it is encrypted%s%s", crypt <= 2 ? " with " : "",
			crypt <= 2 ? ciphers[crypt] : "");
	h->extensions = V2_HEADER_BYTES;
	if (!q->version2) {
		r = parse_features(q, h, why);
		if (r < 0)
			return r;
	}
	q->extended = h->incompatible & INCOMPATIBLE_EXTENDED_L2;
	if (q->extended && q->cluster_bits < 14)
		return why_set(why, -EINVAL, "extended L2 entries need clusters of 16 KiB or more");
	if ((h->autoclear & AUTOCLEAR_RAW_DATA) && !(h->incompatible & INCOMPATIBLE_DATA_FILE))
		return why_set(why, -EINVAL, "it has the raw data bit without a data file");
	if (get_be32(h->bytes + REFCOUNT_TABLE_CLUSTERS) == 0 ||
		get_be64(h->bytes + REFCOUNT_TABLE_OFFSET) % q->cluster != 0)
		return why_set(why, -EINVAL, "it has no refcount table");

	q->snapshots = get_be32(h->bytes + SNAPSHOTS);
	q->snapshots_offset = get_be64(h->bytes + SNAPSHOTS_OFFSET);
	q->entry_size = q->extended ? 16 : 8;
	q->l2_span = q->cluster * (q->cluster / q->entry_size);
	layer->size = get_be64(h->bytes + SIZE);
	if (layer->size > INT64_MAX)
		return why_set(why, -EINVAL, "its virtual size is beyond 2^63");
	h->backing_offset = get_be64(h->bytes + BACKING_OFFSET);
	h->backing_size = get_be32(h->bytes + BACKING_SIZE);
	h->extensions_end = h->backing_offset ? h->backing_offset : h->length;
	if (h->backing_offset && (h->backing_offset < h->extensions || h->backing_size == 0 ||
					 h->backing_size > BACKING_NAME_MAX ||
					 !range_ok(h->backing_offset, h->backing_size, h->length)))
		return why_set(why, -EINVAL, "the name of its backing file is not in its header");
	return 0;
}

static int parse_extension(
	struct header *h, uint32_t type, const uint8_t *data, uint32_t length, struct why *why)
{
	switch (type) {
	case EXT_BACKING_FORMAT:
		if (length >= sizeof(h->backing_format))
			return why_set(why, -EINVAL, "the name of its backing format is too long");
		memcpy(h->backing_format, data, length);
		h->backing_format[length] = '\0';
		return 0;
	case EXT_DATA_FILE:
		h->data_file = data;
		h->data_file_length = length;
		return 0;
	default:
		return 0; /* feature names, bitmaps, and what is not known yet */
	}
}

static int parse_extensions(struct header *h, struct why *why)
{
	uint64_t at = h->extensions;

	/* Entries are aligned to 8 bytes although a header length need not be. */
	while (range_ok(at, 8, h->extensions_end)) {
		uint32_t type = get_be32(h->bytes + at);
		uint32_t length = get_be32(h->bytes + at + 4);
		int r;

		if (type == EXT_END) {
			h->ended = true;
			return 0;
		}
		at += 8;
		if (!range_ok(at, length, h->extensions_end))
			return why_set(
				why, -EINVAL, "a header extension (0x%08x) is cut short", type);
		r = parse_extension(h, type, h->bytes + at, length, why);
		if (r < 0)
			return r;
		at += round_up(length, 8);
	}
	h->ended = h->backing_offset != 0;
	return 0;
}

static int check_l1_entry(
	const struct layer *layer, const struct qcow2 *q, uint64_t entry, struct why *why)
{
	uint64_t offset = entry & QCOW2_OFFSET_MASK;

	if (offset % q->cluster != 0 || !range_ok(offset, q->cluster, layer->file->size))
		return why_set(why, -EINVAL, "an L2 table lies outside the file (0x%llx)",
			(unsigned long long)offset);
	return 0;
}

static int check_l1(struct layer *layer, const struct qcow2 *q, struct why *why)
{
	uint64_t entries = div_ceil(layer->size, q->l2_span);
	uint64_t end = q->l1_offset + entries * 8;
	uint64_t tables = 0;
	struct table_view t;
	int r = 0;

	for (uint64_t at = q->l1_offset; at < end && r == 0;) {
		uint64_t done;

		r = table_get(layer, layer->file, at, 8, &t);
		if (r < 0)
			return why_set(why, r, "its L1 table cannot be read");
		for (done = 0; done + 8 <= t.length && at + done < end && r == 0; done += 8) {
			uint64_t entry = get_be64(t.bytes + done);

			if ((entry & QCOW2_OFFSET_MASK) == 0)
				continue;
			tables++;
			r = check_l1_entry(layer, q, entry, why);
		}
		table_put(layer, &t);
		at += done;
	}
	/* Every table has a cluster of its own; otherwise a tiny file could map an endless disk. */
	if (r == 0 && tables > layer->file->size / q->cluster)
		return why_set(why, -EINVAL, "it has more L2 tables than clusters");
	return r;
}

int qcow2_use_l1(struct layer *layer, uint64_t offset, uint64_t entries, struct why *why)
{
	struct qcow2 *q = layer->state;
	uint64_t needed = div_ceil(layer->size, q->l2_span);

	if (entries < needed)
		return why_set(why, -EINVAL, "its L1 table is too small for its size");
	if (entries * 8 > QCOW2_L1_MAX_BYTES)
		return why_set(why, -EINVAL, "its L1 table is larger than 32 MiB");
	if (offset % q->cluster != 0 || !range_ok(offset, needed * 8, layer->file->size))
		return why_set(why, -EINVAL, "its L1 table lies outside the file");
	q->l1_offset = offset;
	return check_l1(layer, q, why);
}

static int open_data_file(
	struct layer *layer, struct qcow2 *q, const struct header *h, struct why *why)
{
	struct file *file;
	int r;

	if (!(h->incompatible & INCOMPATIBLE_DATA_FILE))
		return 0;
	if (!h->data_file)
		return why_set(why, -EINVAL, "it does not record the name of its data file");
	r = layer_open_file(layer, (const char *)h->data_file, h->data_file_length, &file, why);
	if (r == 0)
		q->data = file;
	return r;
}

static int parse_room(
	struct layer *layer, struct qcow2 *q, uint64_t room, struct header *h, struct why *why)
{
	int r;

	free(h->bytes);
	*h = (struct header) { 0 };
	r = read_header(layer, q, room, h, why);
	if (r == 0)
		r = parse_header(layer, q, h, why);
	if (r == 0)
		r = parse_extensions(h, why);
	return r;
}

/* Few headers need more than a page of their cluster, and listings read many. */
static int parse(struct layer *layer, struct qcow2 *q, struct header *h, struct why *why)
{
	int r = parse_room(layer, q, HEADER_ROOM, h, why);

	if ((r < 0 || !h->ended) && q->cluster > HEADER_ROOM)
		r = parse_room(layer, q, q->cluster, h, why);
	return r;
}

static int open_with(struct layer *layer, struct qcow2 *q, struct header *h, struct why *why)
{
	int r = parse(layer, q, h, why);

	if (r == 0)
		r = qcow2_use_l1(
			layer, get_be64(h->bytes + L1_OFFSET), get_be32(h->bytes + L1_SIZE), why);
	if (r == 0)
		r = open_data_file(layer, q, h, why);
	if (r == 0 && h->backing_offset)
		r = layer_set_parent(layer, (const char *)h->bytes + h->backing_offset,
			h->backing_size, h->backing_format, why);
	layer->standalone = !q->data && !h->backing_offset;
	layer->unit = q->cluster;
	return r;
}

static void qcow2_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

static int qcow2_open(struct layer *layer, struct why *why)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	struct header h = { 0 };
	int r;

	if (!q)
		return why_set(why, -ENOMEM, "out of memory");
	layer->state = q;
	r = open_with(layer, q, &h, why);
	free(h.bytes);
	if (r < 0)
		qcow2_close(layer);
	return r;
}

static const char *const qcow2_suffixes[] = { "qcow2", "qcow", NULL };

const struct image_format image_format_qcow2 = {
	.name = "qcow2",
	.suffixes = qcow2_suffixes,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.map = qcow2_map,
	.close = qcow2_close,
	.snapshots = qcow2_snapshots,
	.use_snapshot = qcow2_use_snapshot,
};
