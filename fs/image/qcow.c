/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow, version 1 of what became qcow2, as a source. There is no specification; the layout is that
 * of QEMU (block/qcow.c), which made it. Big-endian:
 *
 *   OFFSET SIZE
 *        0    4  magic "QFI\xfb"
 *        4    4  version, 1
 *        8    8  backing file name: offset in the file, 0 for none
 *       16    4  backing file name: bytes
 *       20    4  time of modification, of the backing file or of none; nobody looks at it
 *       24    8  virtual size in bytes
 *       32    1  cluster_bits
 *       33    1  l2_bits: an L2 table has 2^l2_bits entries
 *       34    2
 *       36    4  encryption method, 0 for none
 *       40    8  L1 table: offset; it follows the name, so it is at any multiple of 8
 *
 * An entry is an offset in bytes. A cluster is at a multiple of 512. Bit 63 of an L2 entry: the
 * cluster is raw deflate, its offset (of any byte) in the lowest 63 - cluster_bits bits, its
 * length in bytes in those between. There are no refcounts and no zero clusters, and the format
 * of the backing file is not recorded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/image.h"
#include "imgfs/wire.h"
#include "levels.h"

#define QCOW_VERSION        4
#define QCOW_BACKING_OFFSET 8
#define QCOW_BACKING_SIZE   16
#define QCOW_SIZE           24
#define QCOW_CLUSTER_BITS   32
#define QCOW_L2_BITS        33
#define QCOW_CRYPT_METHOD   36
#define QCOW_L1             40
#define QCOW_HEADER         48 /* bytes in all */

#define SECTOR              512u
#define COMPRESSED          (1ull << 63)
#define BACKING_NAME_MAX    1023u

/* As QEMU makes its images that is 32 TiB. */
#define L1_MAX_BYTES (128u << 20)

struct qcow {
	struct levels levels;
	unsigned cluster_bits;
};

static int qcow_probe(const struct probe *probe)
{
	if (probe->head_length < 8 || memcmp(probe->head, "QFI\xfb", 4) != 0)
		return 0;
	return get_be32(probe->head + QCOW_VERSION) == 1 ? 100 : 0;
}

static struct level_place qcow_place(const struct layer *layer, uint64_t entry)
{
	const struct qcow *q = layer->state;
	struct level_place p = { .kind = EXTENT_DATA, .offset = entry };

	if (entry & COMPRESSED) {
		unsigned offset_bits = 63 - q->cluster_bits;

		p.kind = EXTENT_PACKED;
		p.offset = entry & ((1ull << offset_bits) - 1);
		p.packed_length = (uint32_t)((entry & ~COMPRESSED) >> offset_bits);
		if (p.packed_length == 0 || !range_ok(p.offset, p.packed_length, layer->file->size))
			p.kind = EXTENT_DAMAGED;
	} else if (entry % SECTOR != 0 || entry >= layer->file->size) {
		p.kind = EXTENT_DAMAGED;
	}
	return p;
}

/* ---- open ---- */

static int check_header(const uint8_t *p, struct why *why)
{
	uint32_t crypt = get_be32(p + QCOW_CRYPT_METHOD);
	unsigned cluster_bits = p[QCOW_CLUSTER_BITS], l2_bits = p[QCOW_L2_BITS];

	if (memcmp(p, "QFI\xfb", 4) != 0 || get_be32(p + QCOW_VERSION) != 1)
		return why_set(why, -EINVAL, "it does not begin like a qcow of version 1");
	if (crypt != 0)
		return why_set(why, -ENOTSUP, "it is encrypted%s", crypt == 1 ? " with AES" : "");
	if (cluster_bits < 9 || cluster_bits > 16)
		return why_set(why, -EINVAL, "cluster_bits %u is outside 9..16", cluster_bits);
	if (l2_bits < 6 || l2_bits > 13)
		return why_set(why, -EINVAL, "l2_bits %u is outside 6..13", l2_bits);
	if (get_be64(p + QCOW_SIZE) > INT64_MAX)
		return why_set(why, -EINVAL, "its virtual size is beyond 2^63");
	if (get_be64(p + QCOW_L1) < QCOW_HEADER)
		return why_set(why, -EINVAL, "its L1 table lies in its header");
	return 0;
}

static int set_parent(struct layer *layer, const uint8_t *p, struct why *why)
{
	uint64_t offset = get_be64(p + QCOW_BACKING_OFFSET);
	uint32_t length = get_be32(p + QCOW_BACKING_SIZE);
	char name[BACKING_NAME_MAX];
	int r;

	if (offset < QCOW_HEADER || length == 0 || length > sizeof(name) ||
		!range_ok(offset, length, layer->file->size))
		return why_set(why, -EINVAL, "the name of its backing file is not in the file");
	r = file_read(layer->file, name, length, offset);
	if (r < 0)
		return why_set(why, r, "the name of its backing file cannot be read");
	return layer_set_parent(layer, name, length, NULL, why);
}

static void qcow_close(struct layer *layer)
{
	free(layer->state);
	layer->state = NULL;
}

static int qcow_open(struct layer *layer, struct why *why)
{
	autofree struct qcow *q = calloc(1, sizeof(*q));
	uint8_t p[QCOW_HEADER];
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
	layer->size = get_be64(p + QCOW_SIZE);
	*q = (struct qcow) {
		.cluster_bits = p[QCOW_CLUSTER_BITS],
		.levels = { .entry = get_be64,
			.place = qcow_place,
			.l1 = get_be64(p + QCOW_L1),
			.l2_entries = 1ull << p[QCOW_L2_BITS],
			.cluster = 1ull << p[QCOW_CLUSTER_BITS],
			.tables = QCOW_HEADER,
			.alignment = 8 },
	};
	r = levels_check(layer, &q->levels, L1_MAX_BYTES, why);
	if (r == 0 && get_be64(p + QCOW_BACKING_OFFSET) != 0)
		r = set_parent(layer, p, why);
	if (r < 0)
		return r;
	layer->standalone = get_be64(p + QCOW_BACKING_OFFSET) == 0;
	layer->unit = q->levels.cluster;
	layer->state = steal_ptr(q);
	return 0;
}

static int qcow_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent)
{
	const struct qcow *q = layer->state;

	return levels_map(layer, &q->levels, offset, length, detail, extent);
}

/* qcow2 has it as well: which of the two a file is, its version says. */
static const char *const qcow_suffixes[] = { "qcow", NULL };

const struct image_format image_format_qcow = {
	.name = "qcow",
	.suffixes = qcow_suffixes,
	.probe = qcow_probe,
	.open = qcow_open,
	.map = qcow_map,
	.close = qcow_close,
};
