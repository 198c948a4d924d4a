/* SPDX-License-Identifier: Apache-2.0 */
/*
 * COWD: the sparse extent of an ESX snapshot ("-delta.vmdk"; VMware "Virtual Disk Format 1.1",
 * ESX Server sparse extents). Little-endian, sectors of 512 bytes.
 *
 *	 0  4  magic "COWD"
 *	 4  4  version            1
 *	 8  4  flags              3
 *	12  4  capacity, sectors
 *	16  4  grain, sectors     a power of two, 1 typically
 *	20  4  directory, sector  4 typically
 *	24  4  entries of the directory
 *	28  4  first free sector
 *	       … up to 2048: the parent's name and the like, of which the descriptor is the
 *authority
 *
 * Directory: a u32 sector per table. Table: 4096 of u32, a sector per grain. 0 is absent.
 */
#include <errno.h>

#include "extent.h"
#include "imgfs/checked.h"
#include "imgfs/wire.h"

#define COWD_MAGIC             0
#define COWD_VERSION           4
#define COWD_CAPACITY          12
#define COWD_GRAIN             16
#define COWD_DIRECTORY         20
#define COWD_DIRECTORY_ENTRIES 24

#define HEADER                 2048u
#define ENTRIES                4096u
#define GRAIN_MAX              0x200000u /* sectors, 1 GiB */

static int check_header(const uint8_t *p, struct why *why)
{
	if (get_le32(p + COWD_MAGIC) != VMDK_COWD_MAGIC)
		return why_set(why, -EINVAL, "it does not begin like a COWD extent");
	if (get_le32(p + COWD_VERSION) != 1)
		return why_set(why, -ENOTSUP, "COWD extents of version %u are not known",
			get_le32(p + COWD_VERSION));
	if (!is_power_of_two(get_le32(p + COWD_GRAIN)) || get_le32(p + COWD_GRAIN) > GRAIN_MAX)
		return why_set(
			why, -EINVAL, "its grains have %u sectors", get_le32(p + COWD_GRAIN));
	if (get_le32(p + COWD_DIRECTORY) < HEADER / VMDK_SECTOR)
		return why_set(why, -EINVAL, "its grain directory is in its header");
	return 0;
}

static int cowd_open(const struct layer *layer, struct vmdk_extent *x, struct why *why)
{
	uint8_t p[HEADER];
	int r = file_read(x->file, p, sizeof(p), 0);

	if (r == -ERANGE)
		return why_set(why, -EINVAL, "it is too short for a COWD extent");
	if (r < 0)
		return why_set(why, r, "its header cannot be read");
	r = check_header(p, why);
	if (r == 0)
		r = vmdk_set_capacity(x, get_le32(p + COWD_CAPACITY), why);
	if (r < 0)
		return r;
	x->tables = (struct vmdk_tables) {
		.directory = (uint64_t)get_le32(p + COWD_DIRECTORY) * VMDK_SECTOR,
		.entry_size = 4,
		.entries = ENTRIES,
		.grain = (uint64_t)get_le32(p + COWD_GRAIN) * VMDK_SECTOR,
		.first = HEADER,
		.least_place = 1,
	};
	if (get_le32(p + COWD_DIRECTORY_ENTRIES) < div_ceil(x->size, x->tables.grain * ENTRIES))
		return why_set(why, -EINVAL, "its grain directory has only %u entries",
			get_le32(p + COWD_DIRECTORY_ENTRIES));
	return vmdk_tables_check(layer, x, why);
}

/* Of the directory and of a table alike. */
static enum vmdk_entry cowd_entry(const struct vmdk_extent *x, uint64_t entry, uint64_t *offset)
{
	(void)x;
	*offset = entry * VMDK_SECTOR;
	return entry == 0 ? VMDK_ENTRY_ABSENT : VMDK_ENTRY_PLACED;
}

const struct vmdk_extent_kind vmdk_cowd = {
	.name = "a COWD extent",
	.open = cowd_open,
	.map = vmdk_tables_map,
	.table_at = cowd_entry,
	.grain_at = cowd_entry,
};
