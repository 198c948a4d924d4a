/* SPDX-License-Identifier: Apache-2.0 */
#include "levels.h"

#include <errno.h>

#include "cut.h"
#include "imgfs/checked.h"

static uint64_t span_of(const struct levels *l)
{
	return l->l2_entries * l->cluster;
}

/* ---- open ---- */

static int check_l1_entry(
	const struct layer *layer, const struct levels *l, uint64_t entry, struct why *why)
{
	if (entry >= l->tables && entry % l->alignment == 0 &&
		range_ok(entry, l->l2_entries * 8, layer->file->size))
		return 0;
	return why_set(why, -EINVAL,
		"an L2 table lies outside the file or where none can be (0x%llx)",
		(unsigned long long)entry);
}

static int check_l1(
	const struct layer *layer, const struct levels *l, uint64_t end, struct why *why)
{
	uint64_t tables = 0;
	struct table_view t;
	int r = 0;

	for (uint64_t at = l->l1; at < end && r == 0;) {
		uint64_t done;

		r = table_get(layer, layer->file, at, 8, &t);
		if (r < 0)
			return why_set(why, r, "its L1 table cannot be read");
		for (done = 0; done + 8 <= t.length && at + done < end && r == 0; done += 8) {
			uint64_t entry = l->entry(t.bytes + done);

			if (entry == 0)
				continue;
			tables++;
			r = check_l1_entry(layer, l, entry, why);
		}
		table_put(layer, &t);
		at += done;
	}
	/* Every table has a place of its own; otherwise a tiny file could map an endless disk. */
	if (r == 0 && tables > layer->file->size / (l->l2_entries * 8))
		return why_set(why, -EINVAL, "it has more L2 tables than there is room for");
	return r;
}

int levels_check(const struct layer *layer, const struct levels *levels, uint64_t l1_bytes_max,
	struct why *why)
{
	uint64_t bytes = div_ceil(layer->size, span_of(levels)) * 8;

	if (bytes > l1_bytes_max)
		return why_set(why, -EINVAL, "its L1 table would need %llu bytes for its size",
			(unsigned long long)bytes);
	if (levels->l1 % 8 != 0 || !range_ok(levels->l1, bytes, layer->file->size))
		return why_set(why, -EINVAL, "its L1 table lies outside the file");
	return check_l1(layer, levels, levels->l1 + bytes, why);
}

/* ---- map ---- */

static struct level_place place_of(
	const struct layer *layer, const struct levels *l, uint64_t entry, enum map_detail detail)
{
	struct level_place p = { .kind = EXTENT_BACKING };

	if (entry != 0)
		p = l->place(layer, entry);
	if (detail == MAP_KIND && (p.kind == EXTENT_PACKED || p.kind == EXTENT_DAMAGED))
		p.kind = EXTENT_DATA;
	return p;
}

/* How many entries, from the first of the view on, continue what that one says. */
static uint64_t count_entries(const struct layer *layer, const struct levels *l,
	const struct table_view *t, uint64_t most, enum map_detail detail)
{
	struct level_place first = place_of(layer, l, l->entry(t->bytes), detail);
	uint64_t i = 1;

	if (first.kind == EXTENT_PACKED)
		return 1;
	most = min_u64(most, t->length / 8);
	for (; i < most; i++) {
		struct level_place p = place_of(layer, l, l->entry(t->bytes + i * 8), detail);

		if (p.kind != first.kind)
			break;
		if (p.kind == EXTENT_DATA && detail == MAP_PLACE &&
			p.offset != first.offset + i * l->cluster)
			break;
	}
	return i;
}

static int map_l2(const struct layer *layer, const struct levels *l, uint64_t table,
	uint64_t offset, uint64_t length, enum map_detail detail, struct extent *e)
{
	uint64_t slot = offset % span_of(l) / l->cluster;
	uint64_t start = offset - offset % l->cluster;
	uint64_t most = l->l2_entries - slot;
	struct level_place p;
	struct table_view t;
	uint64_t run;
	int r = table_get(layer, layer->file, table + slot * 8, 8, &t);

	if (r < 0)
		return r;
	if (detail == MAP_PLACE)
		most = min_u64(most, div_ceil(offset - start + length, l->cluster));
	p = place_of(layer, l, l->entry(t.bytes), detail);
	run = count_entries(layer, l, &t, most, detail);
	table_done(layer, &t, detail);
	*e = (struct extent) {
		.start = start,
		.end = min_u64(start + run * l->cluster, layer->size),
		.kind = p.kind,
	};
	if (p.kind == EXTENT_DATA || p.kind == EXTENT_PACKED) {
		e->file = layer->file;
		e->offset = p.offset;
	}
	if (p.kind == EXTENT_PACKED) {
		e->packed_length = p.packed_length;
		e->unit = e->need = (uint32_t)l->cluster;
		e->codec = CODEC_DEFLATE;
	}
	if (p.kind == EXTENT_DATA && detail == MAP_PLACE)
		extent_cut(e, offset, layer->file->size);
	return 0;
}

/* No L2 table: the run goes on over the L1 entries that follow in the page and are 0 too. */
static uint64_t absent_end(const struct layer *layer, const struct levels *l, uint64_t index,
	const struct table_view *t)
{
	uint64_t last = div_ceil(layer->size, span_of(l));
	uint64_t at = 0;

	while (at + 8 <= t->length && index < last && l->entry(t->bytes + at) == 0) {
		index++;
		at += 8;
	}
	return index >= last ? layer->size : index * span_of(l);
}

int levels_map(const struct layer *layer, const struct levels *levels, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *extent)
{
	uint64_t index = offset / span_of(levels);
	struct table_view t;
	uint64_t table;
	int r = table_get(layer, layer->file, levels->l1 + index * 8, 8, &t);

	if (r < 0)
		return r;
	table = levels->entry(t.bytes);
	if (table == 0)
		*extent = (struct extent) {
			.start = index * span_of(levels),
			.end = absent_end(layer, levels, index, &t),
			.kind = EXTENT_BACKING,
		};
	table_put(layer, &t);
	return table == 0 ? 0 : map_l2(layer, levels, table, offset, length, detail, extent);
}
