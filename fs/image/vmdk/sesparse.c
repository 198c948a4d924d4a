/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seSparse: the sparse extent of snapshots on VMFS 6 ("-sesparse.vmdk"). VMware has not published
 * it; this follows what readers agree on. All numbers are u64, little-endian, in sectors of 512.
 *
 *	  0  magic 0x00000000cafebabe
 *	  8  version 0x0000000200000001
 *	 16  capacity
 *	 24  grain                 8
 *	 32  grain table           64 sectors: 4096 entries of 8 bytes
 *	 40  flags                 0
 *	 48  reserved, up to 79    0
 *	 80  volatile header       here and below: offset, size
 *	 96  journal header
 *	112  journal
 *	128  grain directory
 *	144  grain tables
 *	160  free bitmap
 *	176  back map
 *	192  grains
 *
 * Volatile header: magic 0xcafecafe at 0; at 24 whether the journal must be replayed, which a
 * reader cannot do.
 *
 * Directory entry: 0 absent, else 0x1000'0000'iiii'iiii: the table with that index.
 * Table entry, by its top four bits: 0 absent (all of it 0), 1 unmapped by the guest (zeros),
 * 2 zeros, 3 data: bits 48-59 are the lowest twelve of the grain's index and 0-47 the rest.
 */
#include <errno.h>

#include "extent.h"
#include "imgfs/checked.h"
#include "imgfs/wire.h"

#define SE_MAGIC          0
#define SE_VERSION        8
#define SE_CAPACITY       16
#define SE_GRAIN          24
#define SE_TABLE          32
#define SE_FLAGS          40
#define SE_RESERVED       48
#define SE_VOLATILE       80
#define SE_DIRECTORY      128
#define SE_DIRECTORY_SIZE 136
#define SE_TABLES         144
#define SE_GRAINS         192

#define VOLATILE_MAGIC_AT 0
#define VOLATILE_REPLAY   24

#define VERSION_2_1       0x0000000200000001ull
#define VOLATILE_MAGIC    0x00000000cafecafeull
#define GRAIN_SECTORS     8u
#define TABLE_SECTORS     64u
#define ENTRIES           4096u

static int check_header(const uint8_t *p, struct why *why)
{
	if (get_le64(p + SE_MAGIC) != VMDK_SESPARSE_MAGIC)
		return why_set(why, -EINVAL, "it does not begin like an seSparse extent");
	if (get_le64(p + SE_VERSION) != VERSION_2_1)
		return why_set(why, -ENOTSUP, "seSparse extents of version 0x%llx are not known",
			(unsigned long long)get_le64(p + SE_VERSION));
	if (get_le64(p + SE_GRAIN) != GRAIN_SECTORS || get_le64(p + SE_TABLE) != TABLE_SECTORS)
		return why_set(why, -ENOTSUP,
			"its grains of %llu and tables of %llu sectors are not known",
			(unsigned long long)get_le64(p + SE_GRAIN),
			(unsigned long long)get_le64(p + SE_TABLE));
	if (get_le64(p + SE_FLAGS) != 0)
		return why_set(why, -ENOTSUP, "its header has flags that are not known (0x%llx)",
			(unsigned long long)get_le64(p + SE_FLAGS));
	for (unsigned at = SE_RESERVED; at < SE_VOLATILE; at += 8) {
		if (get_le64(p + at) != 0)
			return why_set(
				why, -ENOTSUP, "its header uses a reserved field (at %u)", at);
	}
	return 0;
}

static int check_volatile_header(const struct file *file, uint64_t sector, struct why *why)
{
	uint8_t p[VMDK_SECTOR];
	uint64_t offset;
	int r = -ERANGE;

	if (sector != 0 && checked_mul(sector, VMDK_SECTOR, &offset))
		r = file_read(file, p, sizeof(p), offset);
	if (r == -ERANGE)
		return why_set(why, -EINVAL, "its volatile header is not inside the file");
	if (r < 0)
		return why_set(why, r, "its volatile header cannot be read");
	if (get_le64(p + VOLATILE_MAGIC_AT) != VOLATILE_MAGIC)
		return why_set(why, -EINVAL, "its volatile header is damaged");
	if (get_le64(p + VOLATILE_REPLAY) != 0)
		return why_set(why, -ENOTSUP,
			"it was not closed cleanly: its journal would have to be replayed");
	return 0;
}

/* The three places that count; everything is checked against the file once it is used. */
static int set_places(const uint8_t *p, struct vmdk_tables *t, struct why *why)
{
	if (get_le64(p + SE_DIRECTORY) == 0 || get_le64(p + SE_TABLES) == 0 ||
		get_le64(p + SE_GRAINS) == 0)
		return why_set(why, -EINVAL, "its header places tables or grains onto itself");
	if (!checked_mul(get_le64(p + SE_DIRECTORY), VMDK_SECTOR, &t->directory) ||
		!checked_mul(get_le64(p + SE_TABLES), VMDK_SECTOR, &t->table_base) ||
		!checked_mul(get_le64(p + SE_GRAINS), VMDK_SECTOR, &t->grain_base))
		return why_set(why, -EINVAL, "its header places tables or grains beyond 2^64");
	return 0;
}

static int sesparse_open(const struct layer *layer, struct vmdk_extent *x, struct why *why)
{
	uint8_t p[VMDK_SECTOR];
	int r = file_read(x->file, p, sizeof(p), 0);

	if (r == -ERANGE)
		return why_set(why, -EINVAL, "it is too short for an seSparse extent");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	x->tables = (struct vmdk_tables) {
		.entry_size = 8,
		.entries = ENTRIES,
		.grain = GRAIN_SECTORS * VMDK_SECTOR,
		.least_place = 3ull << 60,
	};
	r = check_header(p, why);
	if (r == 0)
		r = check_volatile_header(x->file, get_le64(p + SE_VOLATILE), why);
	if (r == 0)
		r = vmdk_set_capacity(x, get_le64(p + SE_CAPACITY), why);
	if (r == 0)
		r = set_places(p, &x->tables, why);
	if (r < 0)
		return r;
	/* 64 entries of the directory in a sector. */
	if (get_le64(p + SE_DIRECTORY_SIZE) <
		div_ceil(x->size, x->tables.grain * ENTRIES * (VMDK_SECTOR / 8)))
		return why_set(why, -EINVAL, "its grain directory has only %llu sectors",
			(unsigned long long)get_le64(p + SE_DIRECTORY_SIZE));
	return vmdk_tables_check(layer, x, why);
}

/* base + index * size, if there is such an offset. */
static enum vmdk_entry place(uint64_t base, uint64_t index, uint64_t size, uint64_t *offset)
{
	if (checked_mul(index, size, offset) && checked_add(base, *offset, offset))
		return VMDK_ENTRY_PLACED;
	return VMDK_ENTRY_NONSENSE;
}

static enum vmdk_entry sesparse_table_at(
	const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	if (entry == 0)
		return VMDK_ENTRY_ABSENT;
	if (entry >> 32 != 0x10000000)
		return VMDK_ENTRY_NONSENSE;
	return place(x->tables.table_base, entry & 0xffffffff, TABLE_SECTORS * VMDK_SECTOR, offset);
}

static enum vmdk_entry sesparse_grain_at(
	const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	uint64_t index = (entry >> 48 & 0xfff) | (entry & 0xffffffffffff) << 12;

	switch (entry >> 60) {
	case 0:
		return entry == 0 ? VMDK_ENTRY_ABSENT : VMDK_ENTRY_NONSENSE;
	case 1:
	case 2:
		return VMDK_ENTRY_ZERO;
	case 3:
		return place(x->tables.grain_base, index, x->tables.grain, offset);
	default:
		return VMDK_ENTRY_NONSENSE;
	}
}

const struct vmdk_extent_kind vmdk_sesparse = {
	.name = "an seSparse extent",
	.open = sesparse_open,
	.map = vmdk_tables_map,
	.table_at = sesparse_table_at,
	.grain_at = sesparse_grain_at,
};
