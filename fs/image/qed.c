/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QED as a source. Follows docs/interop/qed_spec.txt of QEMU. Header, little-endian ("Header"):
 *
 *   OFFSET SIZE
 *        0    4  magic "QED\0"
 *        4    4  bytes of a cluster, 2^12 to 2^26
 *        8    4  clusters of a table, 1 to 16, L1 and L2 alike
 *       12    4  clusters of the header; regular ones follow
 *       16    8  features: 1 a backing file, 2 needs a check, 4 the backing file is raw
 *       24    8  compatible features
 *       32    8  autoclear features
 *       40    8  L1 table: offset
 *       48    8  virtual size in bytes, a multiple of 512
 *       56    4  backing file name: offset in the file, inside the header
 *       60    4  backing file name: bytes
 *
 * Both tables have 64-bit offsets of clusters ("Tables"). 0 is absent; 1, in an L2 table, is a
 * cluster of zeros.
 *
 * An image that needs a check was not closed. Its tables may have clusters that were never
 * written, but never wrong ones ("Consistency checking"), so that QEMU too opens it for reading
 * without one; every entry is checked here anyway.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/wire.h"
#include "levels.h"

#define QED_CLUSTER         4
#define QED_TABLE           8
#define QED_HEADER          12
#define QED_FEATURES        16
#define QED_L1              40
#define QED_SIZE            48
#define QED_BACKING_OFFSET  56
#define QED_BACKING_SIZE    60
#define QED_HEADER_BYTES    64

#define FEATURE_BACKING     1u
#define FEATURE_NEED_CHECK  2u
#define FEATURE_RAW_BACKING 4u
#define FEATURES_KNOWN      (FEATURE_BACKING | FEATURE_NEED_CHECK | FEATURE_RAW_BACKING)

#define CLUSTER_MIN         (1u << 12)
#define CLUSTER_MAX         (1u << 26)
#define TABLE_MAX           16u
#define SECTOR              512u
#define BACKING_NAME_MAX    1023u
#define ENTRY_ZERO          1u

/* The largest that a disk of less than 2^63 bytes can need. */
#define L1_MAX_BYTES (16u << 20)

struct qed {
	struct levels levels;
	uint64_t header; /* bytes before the first regular cluster */
};

static int qed_probe(const struct probe *probe)
{
	return probe->head_length >= 4 && memcmp(probe->head, "QED\0", 4) == 0 ? 100 : 0;
}

static struct level_place qed_place(const struct layer *layer, uint64_t entry)
{
	const struct qed *q = layer->state;
	struct level_place p = { .kind = EXTENT_DATA, .offset = entry };

	if (entry == ENTRY_ZERO)
		p.kind = EXTENT_ZERO;
	else if (entry % q->levels.cluster != 0 || entry < q->header || entry >= layer->file->size)
		p.kind = EXTENT_DAMAGED;
	return p;
}

/* ---- open ---- */

static int check_header(const uint8_t *p, struct why *why)
{
	uint32_t cluster = get_le32(p + QED_CLUSTER), table = get_le32(p + QED_TABLE);
	uint64_t size = get_le64(p + QED_SIZE);
	uint64_t unknown = get_le64(p + QED_FEATURES) & ~(uint64_t)FEATURES_KNOWN;

	if (memcmp(p, "QED\0", 4) != 0)
		return why_set(why, -EINVAL, "it does not begin like a QED");
	if (unknown)
		return why_set(why, -ENOTSUP, "it needs a feature that is unknown here (bit %d)",
			__builtin_ctzll(unknown));
	if (!is_power_of_two(cluster) || cluster < CLUSTER_MIN || cluster > CLUSTER_MAX)
		return why_set(why, -EINVAL, "its clusters have %u bytes", cluster);
	if (!is_power_of_two(table) || table > TABLE_MAX)
		return why_set(why, -EINVAL, "its tables have %u clusters", table);
	if (get_le32(p + QED_HEADER) == 0)
		return why_set(why, -EINVAL, "its header has no clusters");
	if (size > INT64_MAX)
		return why_set(why, -EINVAL, "its virtual size is beyond 2^63");
	if (size % SECTOR != 0)
		return why_set(why, -EINVAL, "its virtual size is no multiple of %u", SECTOR);
	return 0;
}

static int check_tables(
	const struct layer *layer, const struct qed *q, uint64_t table_bytes, struct why *why)
{
	const struct levels *l = &q->levels;

	if (l->l1 % l->cluster != 0 || l->l1 < q->header ||
		!range_ok(l->l1, table_bytes, layer->file->size))
		return why_set(why, -EINVAL, "its L1 table lies outside the file");
	if (div_ceil(layer->size, l->l2_entries * l->cluster) > l->l2_entries)
		return why_set(why, -EINVAL, "its L1 table is too small for its size");
	return levels_check(layer, l, L1_MAX_BYTES, why);
}

static int set_parent(struct layer *layer, const struct qed *q, const uint8_t *p, uint64_t features,
	struct why *why)
{
	uint64_t offset = get_le32(p + QED_BACKING_OFFSET);
	uint32_t length = get_le32(p + QED_BACKING_SIZE);
	char name[BACKING_NAME_MAX];
	int r;

	if (offset < QED_HEADER_BYTES || length == 0 || length > sizeof(name) ||
		!range_ok(offset, length, min_u64(q->header, layer->file->size)))
		return why_set(why, -EINVAL, "the name of its backing file is not in its header");
	r = file_read(layer->file, name, length, offset);
	if (r < 0)
		return why_set(why, r, "the name of its backing file cannot be read");
	return layer_set_parent(
		layer, name, length, features & FEATURE_RAW_BACKING ? "raw" : NULL, why);
}

static void qed_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

static int qed_open(struct layer *layer, struct why *why)
{
	autofree struct qed *q = calloc(1, sizeof(*q));
	uint64_t cluster, table_bytes, features;
	uint8_t p[QED_HEADER_BYTES];
	int r;

	if (!q)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(layer->file, p, sizeof(p), 0);
	if (r == -ERANGE)
		return why_set(why, -EINVAL, "its header is cut short");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	r = check_header(p, why);
	if (r < 0)
		return r;
	layer->size = get_le64(p + QED_SIZE);
	features = get_le64(p + QED_FEATURES);
	cluster = get_le32(p + QED_CLUSTER);
	table_bytes = cluster * get_le32(p + QED_TABLE);
	q->header = cluster * get_le32(p + QED_HEADER);
	q->levels = (struct levels) {
		.entry = get_le64,
		.place = qed_place,
		.l1 = get_le64(p + QED_L1),
		.l2_entries = table_bytes / 8,
		.cluster = cluster,
		.tables = q->header,
		.alignment = cluster,
	};
	r = check_tables(layer, q, table_bytes, why);
	if (r == 0 && (features & FEATURE_BACKING))
		r = set_parent(layer, q, p, features, why);
	if (r < 0)
		return r;
	layer->standalone = !(features & FEATURE_BACKING);
	layer->unit = cluster;
	layer->state = steal_ptr(q);
	return 0;
}

static int qed_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent)
{
	const struct qed *q = layer->state;

	return levels_map(layer, &q->levels, offset, length, detail, extent);
}

static const char *const qed_suffixes[] = { "qed", NULL };

const struct image_format image_format_qed = {
	.name = "qed",
	.suffixes = qed_suffixes,
	.probe = qed_probe,
	.open = qed_open,
	.map = qed_map,
	.close = qed_close,
};
