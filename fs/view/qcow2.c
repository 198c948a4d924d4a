/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The qcow2 view: version 3, clusters of 64 KiB, refcounts of 16 bits, no backing file, laid out
 * as qemu-img convert does it for a disk whose map needs one L2 table. Follows
 * docs/interop/qcow2.txt of QEMU; fs/image/qcow2.c has the header's bytes.
 *
 *   CLUSTERS  REGION
 *          1  header of 104 bytes; the zeros behind it end the header extensions
 *         rt  refcount table: where each refcount block is
 *         rb  refcount blocks: 1 for every cluster of the file
 *        L1c  L1: an entry per 512 MiB of guest
 *          m  L2 tables: one for every 512 MiB that hold anything
 *          n  data: the occupied units in their order
 *
 * A page of the occupancy is what one L2 table maps, so table r belongs to page r.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/view.h"
#include "imgfs/wire.h"

#define CLUSTER_BITS             16
#define CLUSTER                  (1u << CLUSTER_BITS)
#define HEADER_LENGTH            104
#define HEADER_BYTES             4096 /* what is kept in memory of the header cluster */
#define REFCOUNTS_PER_BLOCK      (CLUSTER / 2)
#define L2_ENTRIES               (CLUSTER / 8)
#define COPIED                   (1ull << 63) /* refcount is exactly one */

#define L1_MAX_BYTES             (32u << 20) /* what QEMU accepts */
#define REFCOUNT_TABLE_MAX_BYTES (8u << 20)

_Static_assert(CLUSTER == OCCUPANCY_UNIT, "a cluster is a unit of the occupancy");
_Static_assert(L2_ENTRIES == OCCUPANCY_PAGE_UNITS, "an L2 table is a page of the occupancy");

/* Counts and positions in clusters. */
struct qcow2_layout {
	uint64_t l1_entries;
	uint64_t refcount_table; /* clusters of the table */
	uint64_t refcount_blocks;
	uint64_t l1, l2, data; /* first cluster of each region */
	uint64_t total;        /* clusters of the file */
};

/*
 * The refcount structures count themselves. Each round can only add, and a block covers 32768
 * clusters, so this settles after a few.
 */
static void count_refcounts(struct qcow2_layout *p, uint64_t others)
{
	uint64_t blocks = 0, table = 1;

	do {
		p->refcount_blocks = blocks;
		p->refcount_table = table;
		blocks = div_ceil(others + blocks + table, REFCOUNTS_PER_BLOCK);
		table = max_u64(1, div_ceil(blocks * 8, CLUSTER));
	} while (blocks != p->refcount_blocks || table != p->refcount_table);
}

static int plan_clusters(const struct view *view, struct qcow2_layout *p, struct why *why)
{
	uint64_t units = occupancy_units(view->occupancy);
	uint64_t data = occupancy_count(view->occupancy);
	uint64_t tables = occupancy_page_count(view->occupancy);
	uint64_t l1_clusters;

	p->l1_entries = div_ceil(units, L2_ENTRIES);
	l1_clusters = div_ceil(p->l1_entries * 8, CLUSTER);
	count_refcounts(p, 1 + l1_clusters + tables + data);
	if (p->l1_entries * 8 > L1_MAX_BYTES ||
		p->refcount_table * CLUSTER > REFCOUNT_TABLE_MAX_BYTES)
		return why_set(why, -EFBIG, "the disk is too large for a qcow2 of 64 KiB clusters");
	p->l1 = 1 + p->refcount_table + p->refcount_blocks;
	p->l2 = p->l1 + l1_clusters;
	p->data = p->l2 + tables;
	p->total = p->data + data;
	return 0;
}

static void fill_header(const struct view *view, const struct qcow2_layout *p, uint8_t *h)
{
	memcpy(h, "QFI\xfb", 4);
	put_be32(h + 4, 3);
	put_be32(h + 20, CLUSTER_BITS);
	put_be64(h + 24, view_disk_size(view));
	put_be32(h + 36, (uint32_t)p->l1_entries);
	put_be64(h + 40, p->l1 * CLUSTER);
	put_be64(h + 48, CLUSTER);
	put_be32(h + 56, (uint32_t)p->refcount_table);
	put_be32(h + 96, 4); /* refcount order: 16 bits */
	put_be32(h + 100, HEADER_LENGTH);
}

/* ---- tables of big-endian 64-bit entries ---- */

typedef uint64_t entry_function(const struct view *view, uint64_t index);

/* Writes bytes [offset, offset + length) of the table whose entries the function gives. */
static void fill_entries(const struct view *view, uint64_t offset, size_t length, uint8_t *out,
	entry_function *entry)
{
	while (length > 0) {
		uint8_t bytes[8];
		size_t skip = offset % 8;
		size_t take = min_u64(8 - skip, length);

		put_be64(bytes, entry(view, offset / 8));
		memcpy(out, bytes + skip, take);
		out += take;
		offset += take;
		length -= take;
	}
}

static uint64_t refcount_table_entry(const struct view *view, uint64_t index)
{
	const struct qcow2_layout *p = view->params;

	return index < p->refcount_blocks ? (1 + p->refcount_table + index) * CLUSTER : 0;
}

static void refcount_table_fill(
	const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	fill_entries(view, offset, length, out, refcount_table_entry);
}

/* Data up to `used`, zeros from there to the end of the clusters. */
static uint64_t run_until(uint64_t offset, uint64_t used, uint64_t clusters, bool *zero)
{
	used = round_up(used, 4096);
	*zero = offset >= used;
	return *zero ? clusters * CLUSTER : used;
}

static uint64_t refcount_table_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct qcow2_layout *p = view->params;

	return run_until(offset, p->refcount_blocks * 8, p->refcount_table, zero);
}

/* Every cluster of the file is used once. */
static void refcount_blocks_fill(
	const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	const struct qcow2_layout *p = view->params;

	for (size_t i = 0; i < length; i++, offset++)
		out[i] = offset / 2 < p->total && offset % 2 == 1;
}

static uint64_t refcount_blocks_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct qcow2_layout *p = view->params;

	return run_until(offset, p->total * 2, p->refcount_blocks, zero);
}

static uint64_t l1_entry(const struct view *view, uint64_t index)
{
	const struct qcow2_layout *p = view->params;
	size_t page = occupancy_page_find(view->occupancy, index);

	if (page == occupancy_page_count(view->occupancy) ||
		occupancy_page(view->occupancy, page)->number != index)
		return 0;
	return COPIED | (p->l2 + page) * CLUSTER;
}

static void l1_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	fill_entries(view, offset, length, out, l1_entry);
}

/* Zeros up to the block of 4 KiB that has the next entry in use. */
static uint64_t l1_run(const struct view *view, uint64_t offset, bool *zero)
{
	const struct qcow2_layout *p = view->params;
	uint64_t end = (p->l2 - p->l1) * CLUSTER;
	size_t page = occupancy_page_find(view->occupancy, offset / 4096 * 512);
	uint64_t next = end;

	if (page < occupancy_page_count(view->occupancy))
		next = occupancy_page(view->occupancy, page)->number * 8 / 4096 * 4096;
	*zero = next > offset;
	return *zero ? next : min_u64(end, (offset / 4096 + 1) * 4096);
}

/* Entries [first, first + count) of L2 table `table`. */
static void fill_l2_table(
	const struct view *view, size_t table, uint64_t first, uint64_t count, uint8_t *out)
{
	const struct qcow2_layout *p = view->params;
	uint64_t unit = occupancy_page(view->occupancy, table)->number * L2_ENTRIES + first;
	uint64_t rank = occupancy_rank(view->occupancy, unit);

	for (uint64_t i = 0; i < count; i++, out += 8) {
		uint64_t entry = 0;

		if (occupancy_test(view->occupancy, unit + i))
			entry = COPIED | (p->data + rank++) * CLUSTER;
		put_be64(out, entry);
	}
}

static void l2_fill(const struct view *view, uint64_t offset, size_t length, uint8_t *out)
{
	while (length > 0) {
		uint8_t entries[512];
		uint64_t first = offset % CLUSTER / 8;
		uint64_t count = min_u64(sizeof(entries) / 8, L2_ENTRIES - first);
		size_t skip = offset % 8;
		size_t take = min_u64(count * 8 - skip, length);

		fill_l2_table(view, offset / CLUSTER, first, div_ceil(skip + take, 8), entries);
		memcpy(out, entries + skip, take);
		out += take;
		offset += take;
		length -= take;
	}
}

static int qcow2_layout(struct view *view, struct why *why)
{
	static const struct view_table refcount_table = { refcount_table_fill, refcount_table_run };
	static const struct view_table refcount_blocks = { refcount_blocks_fill,
		refcount_blocks_run };
	static const struct view_table l1 = { l1_fill, l1_run };
	static const struct view_table l2 = { l2_fill, NULL };
	struct qcow2_layout *p = view->params = calloc(1, sizeof(*p));
	uint8_t *header;
	int r;

	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	r = plan_clusters(view, p, why);
	if (r < 0)
		return r;
	header = view_add_bytes(view, "header", HEADER_BYTES);
	if (!header)
		return why_set(why, -ENOMEM, "out of memory");
	fill_header(view, p, header);
	view_add_zero(view, "rest of the header cluster", CLUSTER - HEADER_BYTES);
	view_add_table(view, "refcount table", p->refcount_table * CLUSTER, &refcount_table);
	view_add_table(view, "refcount blocks", p->refcount_blocks * CLUSTER, &refcount_blocks);
	view_add_table(view, "L1", (p->l2 - p->l1) * CLUSTER, &l1);
	view_add_table(view, "L2", (p->data - p->l2) * CLUSTER, &l2);
	view_add_blocks(view, "data", 0);
	return 0;
}

static bool qcow2_surely_fits(uint64_t virtual_size)
{
	/* Of a larger disk the map may be too scattered to be kept: OCCUPANCY_MAX_MEMORY. */
	return virtual_size <= 8ull << 40;
}

const struct view_format view_format_qcow2 = {
	.name = "qcow2",
	.suffix = "qcow2",
	.compact = true,
	.as_is = "qcow2",
	.surely_fits = qcow2_surely_fits,
	.layout = qcow2_layout,
};
