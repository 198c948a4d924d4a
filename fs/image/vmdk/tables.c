/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk that all sparse extents share: a directory of tables of grains.
 *
 *	guest offset / (grain * entries)            → entry of the directory → a table, or absent
 *	guest offset / grain, modulo entries        → entry of the table     → a grain, or absent
 *
 * The directory is settled at the open: it, and every table that it names, is inside the file.
 * Entries of tables are checked at each use. Nothing is allocated; tables come by the page.
 */
#include <errno.h>

#include "extent.h"
#include "imgfs/checked.h"
#include "imgfs/wire.h"
#include "imgfs/zero.h"

/* 256 TiB of usual grains: more than any product makes, and 32 MiB to check at the open. */
#define DIRECTORY_MAX (32u << 20)

/* Tables that are taken for one: those of usual grains that a page of the cache holds. */
#define ADJACENT_MAX 8u

/* The marker before a compressed grain: its first sector, then the bytes that follow. */
#define MARKER_LBA  0 /* u64 */
#define MARKER_SIZE 8 /* u32 */
#define MARKER      12

/* Guest bytes of a whole table: at most 2^30 * 2^12. */
static uint64_t reach(const struct vmdk_tables *t)
{
	return t->grain * t->entries;
}

static uint64_t read_entry(const struct vmdk_tables *t, const struct table_view *view, uint64_t i)
{
	const uint8_t *p = view->bytes + i * t->entry_size;

	return t->entry_size == 8 ? get_le64(p) : get_le32(p);
}

int vmdk_set_capacity(struct vmdk_extent *x, uint64_t sectors, struct why *why)
{
	uint64_t bytes;

	if (sectors == 0)
		return why_set(why, -EINVAL, "its header says that it has no capacity");
	if (!checked_mul(sectors, VMDK_SECTOR, &bytes) || bytes > INT64_MAX)
		return why_set(why, -EINVAL, "its header says %llu sectors, beyond 2^63 bytes",
			(unsigned long long)sectors);
	/* Whichever number were taken, a reader that takes the other sees another disk. */
	if (x->size != 0 && x->size != bytes)
		return why_set(why, -EINVAL,
			"its header says %llu sectors, but its descriptor says %llu",
			(unsigned long long)sectors, (unsigned long long)(x->size / VMDK_SECTOR));
	x->size = bytes;
	return 0;
}

/* ---- decoding, with the size of the file ---- */

static enum vmdk_entry find_table(const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	const struct vmdk_tables *t = &x->tables;
	enum vmdk_entry what = x->kind->table_at(x, entry, offset);

	if (what == VMDK_ENTRY_PLACED &&
		!range_ok(*offset, (uint64_t)t->entries * t->entry_size, x->file->size))
		return VMDK_ENTRY_NONSENSE;
	return what;
}

static enum extent_kind absent_kind(const struct vmdk_extent *x)
{
	return x->on_parent ? EXTENT_BACKING : EXTENT_ZERO;
}

/*
 * A grain must begin inside the file, and a compressed one must have room for its marker. Where
 * an uncompressed one is cut short by the end of the file is for cut_at_end().
 */
static enum extent_kind find_grain(
	const struct vmdk_extent *x, uint64_t entry, enum map_detail detail, uint64_t *offset)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t least = t->packed ? MARKER + 1 : 1;

	switch (x->kind->grain_at(x, entry, offset)) {
	case VMDK_ENTRY_ABSENT:
		return absent_kind(x);
	case VMDK_ENTRY_ZERO:
		return EXTENT_ZERO;
	case VMDK_ENTRY_PLACED:
		if (detail == MAP_KIND)
			return EXTENT_DATA;
		if (*offset >= t->first && range_ok(*offset, least, x->file->size))
			return t->packed ? EXTENT_PACKED : EXTENT_DATA;
		return EXTENT_DAMAGED;
	default:
		return detail == MAP_KIND ? EXTENT_DATA : EXTENT_DAMAGED;
	}
}

/* ---- open ---- */

/* Adds the number of tables that the entries name to *tables. */
static int check_entries(const struct vmdk_extent *x, const struct table_view *view, uint64_t first,
	uint64_t count, uint64_t *tables, struct why *why)
{
	uint64_t offset;

	for (uint64_t i = 0; i < count; i++) {
		uint64_t entry = read_entry(&x->tables, view, i);
		enum vmdk_entry what = find_table(x, entry, &offset);

		if (what == VMDK_ENTRY_NONSENSE)
			return why_set(why, -EINVAL,
				"entry %llu of its grain directory, 0x%llx, is not inside the file",
				(unsigned long long)(first + i), (unsigned long long)entry);
		*tables += what == VMDK_ENTRY_PLACED;
	}
	return 0;
}

int vmdk_tables_check(const struct layer *layer, const struct vmdk_extent *x, struct why *why)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t entries = div_ceil(x->size, reach(t));
	uint64_t count, tables = 0;
	struct table_view view;

	if (entries > DIRECTORY_MAX / t->entry_size)
		return why_set(why, -ENOTSUP, "its grain directory would be larger than 32 MiB");
	if (!range_ok(t->directory, entries * t->entry_size, x->file->size))
		return why_set(why, -EINVAL, "its grain directory is not inside the file");
	for (uint64_t i = 0; i < entries; i += count) {
		int r = table_get(
			layer, x->file, t->directory + i * t->entry_size, t->entry_size, &view);

		if (r < 0)
			return why_set(why, r, "its grain directory cannot be read");
		count = min_u64(view.length / t->entry_size, entries - i);
		r = check_entries(x, &view, i, count, &tables, why);
		table_put(layer, &view);
		if (r < 0)
			return r;
	}
	/* Else a small file could make every pass over the tables as long as it likes. */
	if (tables * t->entries * t->entry_size > x->file->size)
		return why_set(why, -EINVAL, "its grain tables overlap");
	return 0;
}

/* ---- map ---- */

static void set_extent(struct extent *e, enum extent_kind kind, uint64_t start, uint64_t end)
{
	*e = (struct extent) { .kind = kind, .start = start, .end = end };
}

/*
 * Cuts a run of data where the file ends. What is missing is damage, with one exception: a
 * writer may leave off the end of the last grain of the disk, and that reads as zeros.
 */
static void cut_at_end(const struct vmdk_extent *x, uint64_t offset, struct extent *e)
{
	uint64_t available = x->file->size - e->offset;
	uint64_t cut = e->start + available;

	if (e->end - e->start <= available)
		return;
	if (offset < cut)
		e->end = cut;
	else
		set_extent(e, x->last && e->end == x->size ? EXTENT_ZERO : EXTENT_DAMAGED, cut,
			e->end);
}

/* Reads the marker at e->offset, sector aligned as all grains are. */
static int read_marker(const struct layer *layer, const struct file *file, uint64_t offset,
	uint64_t *lba, uint32_t *size)
{
	struct table_view view;
	int r = table_get(layer, file, offset + MARKER_LBA, 8, &view);

	if (r < 0)
		return r;
	*lba = get_le64(view.bytes);
	table_put(layer, &view);
	r = table_get(layer, file, offset + MARKER_SIZE, 4, &view);
	if (r < 0)
		return r;
	*size = get_le32(view.bytes);
	table_put(layer, &view);
	return 0;
}

/* e is one grain whose marker is at e->offset, inside the file. */
static int map_packed(const struct layer *layer, const struct vmdk_extent *x, struct extent *e)
{
	uint64_t grain = x->tables.grain;
	uint64_t payload = e->offset + MARKER;
	uint64_t lba;
	uint32_t size;
	int r = read_marker(layer, x->file, e->offset, &lba, &size);

	if (r < 0)
		return r;
	if (lba != e->start / VMDK_SECTOR || size == 0 || size > 2 * grain ||
		!range_ok(payload, size, x->file->size)) {
		set_extent(e, EXTENT_DAMAGED, e->start, e->end);
		return 0;
	}
	e->offset = payload;
	e->packed_length = size;
	e->unit = (uint32_t)grain;
	/* Some writers end the last stream with the disk, others fill the grain with zeros. */
	e->need = (uint32_t)(e->end - e->start);
	e->codec = CODEC_ZLIB;
	return 0;
}

/*
 * How many entries, from the first one of the view on, are of its kind. A hostile directory makes
 * this loop see billions of entries, so those that are places are not decoded.
 */
static uint64_t count_kind(const struct vmdk_extent *x, const struct table_view *view,
	uint64_t count, enum extent_kind kind)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t i = 1, place;

	while (i < count) {
		uint64_t entry = read_entry(t, view, i);
		size_t at = i * t->entry_size;

		/* Most of a disk is not there, and 0 says so in all kinds: many at a time. */
		if (entry == 0 && at % ZERO_STEP == 0 && kind == absent_kind(x)) {
			size_t zeros = zero_steps(view->bytes + at, count * t->entry_size - at);

			i += zeros / t->entry_size;
			if (zeros > 0)
				continue;
		}
		if (entry >= t->least_place ? kind != EXTENT_DATA
					    : find_grain(x, entry, MAP_KIND, &place) != kind)
			break;
		i++;
	}
	return i;
}

/* How many follow each other in the file as well, up to as many as are wanted. */
static uint64_t count_places(const struct vmdk_extent *x, const struct table_view *view,
	uint64_t wanted, enum extent_kind kind, uint64_t place)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t i = 1, next;

	while (i < wanted && kind != EXTENT_PACKED &&
		find_grain(x, read_entry(t, view, i), MAP_PLACE, &next) == kind &&
		(kind != EXTENT_DATA || next == place + i * t->grain))
		i++;
	return i;
}

/*
 * The run of grains from the one that holds offset on, as far as the `count` entries of the view
 * show; its entry 0 is that grain's.
 */
static void find_run(const struct vmdk_extent *x, const struct table_view *view, uint64_t count,
	uint64_t offset, uint64_t length, enum map_detail detail, struct extent *e)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t start = offset - offset % t->grain;
	uint64_t wanted = min_u64(count, div_ceil(offset + length - start, t->grain));
	uint64_t place = 0;
	enum extent_kind kind = find_grain(x, read_entry(t, view, 0), detail, &place);

	if (detail == MAP_KIND)
		count = count_kind(x, view, count, kind);
	else
		count = count_places(x, view, wanted, kind, place);
	set_extent(e, kind, start, min_u64(start + count * t->grain, x->size));
	if (kind == EXTENT_DATA || kind == EXTENT_PACKED) {
		e->file = x->file;
		e->offset = place;
	}
}

/*
 * How many tables, from that of the first entry of the view on, follow each other in the file as
 * writers put them that allocate all at once? They are one long table then.
 */
static uint64_t adjacent_tables(
	const struct vmdk_extent *x, const struct table_view *view, uint64_t table)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t bytes = (uint64_t)t->entries * t->entry_size;
	uint64_t most = min_u64(view->length / t->entry_size, ADJACENT_MAX);
	uint64_t tables = 1, next;

	while (tables < most &&
		find_table(x, read_entry(t, view, tables), &next) == VMDK_ENTRY_PLACED &&
		next == table + tables * bytes)
		tables++;
	return tables;
}

/* Of one or more tables that follow each other. */
static int map_grains(const struct layer *layer, const struct vmdk_extent *x, uint64_t table,
	uint64_t tables, uint64_t offset, uint64_t length, enum map_detail detail, struct extent *e)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t first = offset % reach(t) / t->grain;
	struct table_view view;
	int r = table_get(layer, x->file, table + first * t->entry_size, t->entry_size, &view);

	if (r < 0)
		return r;
	find_run(x, &view, min_u64(view.length / t->entry_size, tables * t->entries - first),
		offset, length, detail, e);
	table_done(layer, &view, detail);
	if (detail == MAP_PLACE && e->kind == EXTENT_DATA)
		cut_at_end(x, offset, e);
	if (e->kind == EXTENT_PACKED)
		return map_packed(layer, x, e);
	return 0;
}

int vmdk_tables_map(const struct layer *layer, const struct vmdk_extent *x, uint64_t offset,
	uint64_t length, enum map_detail detail, struct extent *e)
{
	const struct vmdk_tables *t = &x->tables;
	uint64_t index = offset / reach(t);
	enum vmdk_entry what;
	struct table_view view;
	uint64_t table, other, run = 1, tables = 1;
	int r = table_get(
		layer, x->file, t->directory + index * t->entry_size, t->entry_size, &view);

	if (r < 0)
		return r;
	what = find_table(x, read_entry(t, &view, 0), &table);
	while (what == VMDK_ENTRY_ABSENT && run < view.length / t->entry_size &&
		(index + run) * reach(t) < x->size &&
		find_table(x, read_entry(t, &view, run), &other) == VMDK_ENTRY_ABSENT)
		run++;
	if (what == VMDK_ENTRY_PLACED && detail == MAP_KIND)
		tables = adjacent_tables(x, &view, table);
	table_put(layer, &view);
	if (what == VMDK_ENTRY_PLACED)
		return map_grains(layer, x, table, tables, offset, length, detail, e);
	/* The open has refused nonsense; if it is met now, the file has changed since. */
	set_extent(e, what == VMDK_ENTRY_ABSENT ? absent_kind(x) : EXTENT_DAMAGED, index * reach(t),
		min_u64((index + run) * reach(t), x->size));
	return 0;
}
