/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where guest bytes of a qcow2 are: L1 entry, L2 entry, subcluster. Follows docs/interop/qcow2.txt
 * of QEMU, "Cluster mapping".
 *
 * L1 entry: bits 9-55 the offset of an L2 table of one cluster; 0 none.
 * L2 entry: bit 62 compressed, else bits 9-55 the offset of the cluster, bit 0 "reads as zeros".
 * With extended L2 entries a second word holds 32 subcluster bits "allocated" and 32 "zero".
 */
#include "qcow2.h"

#include "imgfs/checked.h"
#include "imgfs/wire.h"
#include "imgfs/zero.h"

#define L2_COMPRESSED (1ull << 62)
#define L2_COPIED     (1ull << 63)
#define L2_ZERO       (1ull << 0)

#define SUBCLUSTERS   32u

/* What one cluster or subcluster is. */
struct place {
	enum extent_kind kind;
	uint64_t offset; /* DATA: of the (sub)cluster in the data file */
	uint64_t valid;  /* DATA: bytes that are there; fewer only at the end of the disk */
};

static const struct file *data_file(const struct layer *layer)
{
	const struct qcow2 *q = layer->state;

	return q->data ? q->data : layer->file;
}

/*
 * DATA at offset, `length` bytes of guest at `guest`: a cluster or a subcluster. A cluster that the
 * end of the file cuts is legal only where the disk ends in it; the missing bytes are zeros then.
 */
static struct place data_place(
	const struct layer *layer, uint64_t guest, uint64_t offset, uint64_t length)
{
	const struct qcow2 *q = layer->state;
	uint64_t size = data_file(layer)->size;
	struct place p = { .kind = EXTENT_DATA, .offset = offset, .valid = length };

	if (q->data && offset != guest)
		return (struct place) { .kind = EXTENT_DAMAGED };
	if (range_ok(offset, length, size))
		return p;
	if (offset - guest % q->cluster >= size ||
		guest / q->cluster != (layer->size - 1) / q->cluster)
		return (struct place) { .kind = EXTENT_DAMAGED };
	if (offset >= size)
		return (struct place) { .kind = EXTENT_ZERO };
	p.valid = size - offset;
	return p;
}

static struct place standard_place(const struct layer *layer, uint64_t guest, uint64_t entry)
{
	const struct qcow2 *q = layer->state;
	uint64_t offset = entry & QCOW2_OFFSET_MASK;

	if (entry & L2_ZERO)
		return (struct place) { .kind = q->version2 ? EXTENT_DAMAGED : EXTENT_ZERO };
	if (offset == 0 && !(q->data && (entry & L2_COPIED)))
		return (struct place) { .kind = EXTENT_BACKING };
	if (offset % q->cluster != 0)
		return (struct place) { .kind = EXTENT_DAMAGED };
	return data_place(layer, guest, offset, q->cluster);
}

static struct place subcluster_place(
	const struct layer *layer, uint64_t guest, const uint8_t *entry, unsigned sub)
{
	const struct qcow2 *q = layer->state;
	uint64_t word = get_be64(entry);
	uint64_t bitmap = get_be64(entry + 8);
	bool allocated = bitmap >> sub & 1;
	bool zero = bitmap >> (SUBCLUSTERS + sub) & 1;
	uint64_t offset = word & QCOW2_OFFSET_MASK;
	uint64_t size = q->cluster / SUBCLUSTERS;

	if ((word & L2_ZERO) || (allocated && zero))
		return (struct place) { .kind = EXTENT_DAMAGED };
	if (zero)
		return (struct place) { .kind = EXTENT_ZERO };
	if (!allocated)
		return (struct place) { .kind = EXTENT_BACKING };
	if (offset % q->cluster != 0 || (offset == 0 && !(q->data && (word & L2_COPIED))))
		return (struct place) { .kind = EXTENT_DAMAGED };
	return data_place(layer, guest + sub * size, offset + sub * size, size);
}

/* A compressed cluster ("Compressed Clusters Descriptor"); its payload is bounded by sectors. */
static void packed_extent(
	const struct layer *layer, uint64_t guest, const uint8_t *entry, struct extent *e)
{
	const struct qcow2 *q = layer->state;
	unsigned offset_bits = 70 - q->cluster_bits;
	uint64_t word = get_be64(entry);
	uint64_t offset = word & ((1ull << offset_bits) - 1);
	uint64_t sectors = (word & (L2_COMPRESSED - 1)) >> offset_bits;

	*e = (struct extent) {
		.start = guest,
		.end = min_u64(guest + q->cluster, layer->size),
		.kind = EXTENT_PACKED,
		.file = layer->file,
		.offset = offset,
		.packed_length = (uint32_t)((sectors + 1) * 512 - offset % 512),
		.unit = (uint32_t)q->cluster,
		.need = (uint32_t)q->cluster,
		.codec = q->codec,
	};
	if (q->data || offset >= layer->file->size || (q->extended && get_be64(entry + 8) != 0))
		*e = (struct extent) { .start = guest, .end = e->end, .kind = EXTENT_DAMAGED };
}

/* Walks (sub)clusters of one page of an L2 table. */
struct walk {
	const struct layer *layer;
	enum map_detail detail;
	uint64_t wanted; /* no need to look past this guest offset */
	uint64_t guest;  /* of the cluster that the next entry maps */
	const uint8_t *entry, *end;
};

/* Adds the place, `length` bytes of guest at `guest`, to e. False: it does not continue e. */
static bool extend(
	struct extent *e, const struct walk *w, uint64_t guest, uint64_t length, struct place p)
{
	if (w->detail == MAP_KIND && (p.kind == EXTENT_DAMAGED || p.kind == EXTENT_DATA))
		p = (struct place) { .kind = EXTENT_DATA,
			.offset = e->offset + (guest - e->start),
			.valid = length };
	if (e->end == e->start)
		*e = (struct extent) { .start = guest,
			.end = guest,
			.kind = p.kind,
			.file = p.kind == EXTENT_DATA ? data_file(w->layer) : NULL,
			.offset = p.offset };
	else if (p.kind != e->kind)
		return false;
	else if (p.kind == EXTENT_DATA && p.offset != e->offset + (guest - e->start))
		return false;
	e->end = guest + (p.kind == EXTENT_DATA ? p.valid : length);
	return p.kind != EXTENT_DATA || p.valid == length;
}

static bool extend_compressed(struct extent *e, const struct walk *w)
{
	const struct qcow2 *q = w->layer->state;

	if (w->detail == MAP_KIND)
		return extend(e, w, w->guest, q->cluster, (struct place) { .kind = EXTENT_DATA });
	if (e->end == e->start)
		packed_extent(w->layer, w->guest, w->entry, e);
	return false;
}

/* One cluster, from its subcluster `first` on. False: e ends here. */
static bool extend_cluster(struct extent *e, const struct walk *w, unsigned first)
{
	const struct qcow2 *q = w->layer->state;
	uint64_t word = get_be64(w->entry);
	uint64_t size = q->cluster / SUBCLUSTERS;

	if (word & L2_COMPRESSED)
		return extend_compressed(e, w);
	if (!q->extended)
		return extend(e, w, w->guest, q->cluster, standard_place(w->layer, w->guest, word));
	for (unsigned sub = first; sub < SUBCLUSTERS; sub++) {
		if (!extend(e, w, w->guest + sub * size, size,
			    subcluster_place(w->layer, w->guest, w->entry, sub)))
			return false;
	}
	return true;
}

/*
 * The file ends inside the last cluster of the disk, and the offset is in what is missing: the
 * walk then gave the part that is there, which ends at or before the offset.
 */
static void past_cut(struct extent *e, const struct layer *layer, uint64_t offset)
{
	const struct qcow2 *q = layer->state;
	uint64_t step = q->extended ? q->cluster / SUBCLUSTERS : q->cluster;

	if (e->kind == EXTENT_DATA && e->end <= offset)
		*e = (struct extent) {
			.start = e->end,
			.end = round_up(e->end, step),
			.kind = EXTENT_ZERO,
		};
}

/* Most of a disk is not there, and entries of 0 say so: many of them at a time. */
static void skip_absent(struct extent *e, struct walk *w, const uint8_t *page)
{
	const struct qcow2 *q = w->layer->state;
	uint64_t room =
		min_u64((uint64_t)(w->end - w->entry), (w->wanted - w->guest) / q->cluster * 8);
	uint64_t entries;

	if (q->extended || e->kind != EXTENT_BACKING || (w->entry - page) % ZERO_STEP != 0)
		return;
	entries = zero_steps(w->entry, room) / 8;
	w->entry += entries * 8;
	w->guest += entries * q->cluster;
	e->end = w->guest;
}

static int map_l2(struct walk *w, uint64_t table, uint64_t offset, struct extent *e)
{
	const struct qcow2 *q = w->layer->state;
	uint64_t index = offset % q->l2_span / q->cluster;
	uint64_t left = (q->cluster / q->entry_size - index) * q->entry_size;
	unsigned sub = 0;
	struct table_view t;
	int r = table_get(w->layer, w->layer->file, table + index * q->entry_size,
		(uint32_t)q->entry_size, &t);

	if (r < 0)
		return r;
	w->guest = offset - offset % q->cluster;
	w->entry = t.bytes;
	w->end = t.bytes + min_u64(t.length - t.length % q->entry_size, left);
	if (q->extended)
		sub = (unsigned)(offset % q->cluster / (q->cluster / SUBCLUSTERS));
	*e = (struct extent) { 0 };
	while (w->entry < w->end && w->guest < w->wanted && extend_cluster(e, w, sub)) {
		w->entry += q->entry_size;
		w->guest += q->cluster;
		sub = 0;
		if (w->guest < w->wanted)
			skip_absent(e, w, t.bytes);
	}
	table_done(w->layer, &t, w->detail);
	past_cut(e, w->layer, offset);
	return 0;
}

/* No L2 table: the run goes on over the L1 entries that follow in the page and are empty too. */
static uint64_t empty_l1_end(const struct layer *layer, uint64_t index, const struct table_view *t)
{
	const struct qcow2 *q = layer->state;
	uint64_t last = div_ceil(layer->size, q->l2_span);
	uint64_t at = 0;

	while (at + 8 <= t->length && index < last &&
		(get_be64(t->bytes + at) & QCOW2_OFFSET_MASK) == 0) {
		index++;
		at += 8;
	}
	return index >= last ? layer->size : index * q->l2_span;
}

/*
 * Who wants to know of the whole disk reads one L2 table after the other, and they lie far apart:
 * so those that follow are asked for at once. Small tables are not worth a system call.
 */
#define TABLES_AHEAD     8u
#define TABLE_WORTH_HINT 65536u

static void ask_ahead(const struct layer *layer, const struct table_view *l1)
{
	const struct qcow2 *q = layer->state;
	uint64_t at = TABLES_AHEAD * 8;
	uint64_t table;

	if (q->cluster < TABLE_WORTH_HINT || at + 8 > l1->length)
		return;
	table = get_be64(l1->bytes + at) & QCOW2_OFFSET_MASK;
	if (table != 0)
		table_will_need(layer->file, table, q->cluster);
}

int qcow2_map(const struct layer *layer, uint64_t offset, uint64_t length, enum map_detail detail,
	struct extent *extent)
{
	const struct qcow2 *q = layer->state;
	uint64_t index = offset / q->l2_span;
	struct walk w = { .layer = layer, .detail = detail };
	struct table_view t;
	uint64_t table;
	int r;

	w.wanted = detail == MAP_KIND ? layer->size : offset + length;
	r = table_get(layer, layer->file, q->l1_offset + index * 8, 8, &t);
	if (r < 0)
		return r;
	table = get_be64(t.bytes) & QCOW2_OFFSET_MASK;
	if (table == 0)
		*extent = (struct extent) {
			.start = index * q->l2_span,
			.end = empty_l1_end(layer, index, &t),
			.kind = EXTENT_BACKING,
		};
	if (table != 0 && detail == MAP_KIND && offset % q->l2_span == 0)
		ask_ahead(layer, &t);
	table_put(layer, &t);
	return table == 0 ? 0 : map_l2(&w, table, offset, extent);
}
