/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata region (2.6), little-endian: a table of 64 KiB, then the items.
 *
 *   TABLE  0 "metadata", 10 entries, then from 32 on
 *   ENTRY  0 GUID, 16 offset from the start of the region, 20 length, 24 bit 0: user's, bit 2:
 *          required
 *   ITEMS  file parameters: 0 block size, 4 bit 0: blocks stay allocated, bit 1: has a parent
 *          sizes of the disk (u64), of a logical and of a physical sector (u32), ID of the disk
 *          (GUID), parent locator
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/wire.h"
#include "vhdx.h"

enum {
	COUNT = 10,
	ENTRIES = 32,
	ENTRY_OFFSET = 16,
	ENTRY_LENGTH = 20,
	ENTRY_FLAGS = 24,
	ENTRY_BYTES = 32,
	TABLE_BYTES = 65536,
	COUNT_MAX = 2047,
	ITEM_MAX = 1 << 20,

	FLAG_USER = 1,
	FLAG_REQUIRED = 4,

	LEAVE_ALLOCATED = 1,
	HAS_PARENT = 2,
};

#define BLOCK_MIN      (1u << 20)
#define BLOCK_MAX      (256u << 20)
#define DISK_MAX       (64ull << 40)
#define BITMAP_SECTORS (8ull * VHDX_BITMAP) /* that one bitmap block tells of */

enum item { PARAMETERS, DISK_SIZE, LOGICAL, PHYSICAL, DISK_ID, LOCATOR, ITEMS };

static const struct {
	uint8_t guid[UUID_BYTES];
	uint32_t length; /* 0: any */
	const char *what;
} known[ITEMS] = {
	[PARAMETERS] = { { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0,
				 0xaa, 0x44, 0xe7, 0x6b },
		8, "file parameters" },
	[DISK_SIZE] = { { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
				0xd8, 0x3b, 0xf4, 0xb8 },
		8, "virtual size" },
	[LOGICAL] = { { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33,
			      0xa8, 0xfa, 0xab, 0x5f },
		4, "logical sector size" },
	[PHYSICAL] = { { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88,
			       0x52, 0x51, 0xc5, 0x56 },
		4, "physical sector size" },
	[DISK_ID] = { { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09,
			      0xe0, 0x00, 0xc7, 0x46 },
		16, "virtual disk ID" },
	[LOCATOR] = { { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8,
			      0x48, 0x34, 0xab, 0x0c },
		0, "parent locator" },
};

/* Where the items are in the file. */
struct items {
	bool present[ITEMS];
	struct vhdx_range at[ITEMS];
};

static int add_item(
	const struct vhdx *v, const uint8_t *entry, struct items *items, struct why *why)
{
	const struct vhdx_range *region = &v->regions[VHDX_METADATA];
	uint64_t offset = get_le32(entry + ENTRY_OFFSET);
	uint64_t length = get_le32(entry + ENTRY_LENGTH);
	uint32_t flags = get_le32(entry + ENTRY_FLAGS);

	for (size_t i = 0; i < ITEMS && !(flags & FLAG_USER); i++) {
		if (!uuid_equal(entry, known[i].guid))
			continue;
		if (items->present[i])
			return why_set(why, -EINVAL, "it has more than one %s", known[i].what);
		if (offset < TABLE_BYTES || length > ITEM_MAX || length < known[i].length ||
			!range_ok(offset, length, region->length))
			return why_set(why, -EINVAL, "its %s does not fit its metadata region",
				known[i].what);
		items->present[i] = true;
		items->at[i] = (struct vhdx_range) { region->start + offset, length };
		return 0;
	}
	if (flags & FLAG_REQUIRED)
		return why_set(
			why, -ENOTSUP, "it needs a metadata item of a kind that is unknown here");
	return 0;
}

static int find_items(
	struct layer *layer, const struct vhdx *v, struct items *items, struct why *why)
{
	autofree uint8_t *table = malloc(TABLE_BYTES);
	uint16_t count;
	int r;

	if (!table)
		return why_set(why, -ENOMEM, "out of memory");
	r = vhdx_read(layer, v, table, TABLE_BYTES, v->regions[VHDX_METADATA].start);
	if (r < 0)
		return why_set(why, r, "its metadata table cannot be read");
	count = get_le16(table + COUNT);
	if (memcmp(table, "metadata", 8) != 0 || count > COUNT_MAX)
		return why_set(why, -EINVAL, "its metadata region does not begin like one");
	for (uint16_t i = 0; i < count; i++) {
		r = add_item(v, table + ENTRIES + i * ENTRY_BYTES, items, why);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < LOCATOR; i++) {
		if (!items->present[i])
			return why_set(why, -EINVAL, "it has no %s", known[i].what);
	}
	return 0;
}

/* A number of 4 or 8 bytes. */
static int read_number(struct layer *layer, const struct vhdx *v, const struct items *items,
	enum item item, uint64_t *number, struct why *why)
{
	uint8_t bytes[8] = { 0 };
	int r = vhdx_read(layer, v, bytes, known[item].length, items->at[item].start);

	*number = get_le64(bytes);
	return r < 0 ? why_set(why, r, "its %s cannot be read", known[item].what) : 0;
}

/* What the BAT needs (2.5): entries for bitmap blocks lie between those of payload blocks. */
static int size_bat(const struct layer *layer, struct vhdx *v, struct why *why)
{
	uint64_t blocks = div_ceil(layer->size, v->block);

	v->ratio = BITMAP_SECTORS * v->sector / v->block;
	if (v->differencing)
		v->entries = div_ceil(blocks, v->ratio) * (v->ratio + 1);
	else
		v->entries = blocks > 0 ? blocks + (blocks - 1) / v->ratio : 0;
	if (v->entries * 8 > v->regions[VHDX_BAT].length)
		return why_set(
			why, -EINVAL, "its block allocation table is too small for its size");
	return 0;
}

static int check_numbers(struct layer *layer, struct vhdx *v, uint64_t physical, struct why *why)
{
	if (v->sector != 512 && v->sector != 4096)
		return why_set(why, -EINVAL, "its logical sectors have %llu bytes",
			(unsigned long long)v->sector);
	if (physical != 512 && physical != 4096)
		return why_set(why, -EINVAL, "its physical sectors have %llu bytes",
			(unsigned long long)physical);
	if (!is_power_of_two(v->block) || v->block < BLOCK_MIN || v->block > BLOCK_MAX)
		return why_set(why, -EINVAL, "blocks of %llu bytes are not possible",
			(unsigned long long)v->block);
	if (layer->size > DISK_MAX)
		return why_set(why, -EINVAL, "its virtual size is beyond 64 TiB");
	if (layer->size % v->sector != 0)
		return why_set(why, -EINVAL, "its virtual size is not a number of its sectors");
	return size_bat(layer, v, why);
}

int vhdx_read_metadata(
	struct layer *layer, struct vhdx *v, struct vhdx_range *locator, struct why *why)
{
	struct items items = { 0 };
	uint64_t parameters = 0, physical = 0;
	int r = find_items(layer, v, &items, why);

	if (r == 0)
		r = read_number(layer, v, &items, PARAMETERS, &parameters, why);
	if (r == 0)
		r = read_number(layer, v, &items, DISK_SIZE, &layer->size, why);
	if (r == 0)
		r = read_number(layer, v, &items, LOGICAL, &v->sector, why);
	if (r == 0)
		r = read_number(layer, v, &items, PHYSICAL, &physical, why);
	if (r < 0)
		return r;
	v->block = (uint32_t)parameters;
	v->leave_allocated = parameters >> 32 & LEAVE_ALLOCATED;
	v->differencing = parameters >> 32 & HAS_PARENT;
	*locator = items.at[LOCATOR];
	if (v->differencing && !items.present[LOCATOR])
		return why_set(why, -EINVAL, "it has a parent, but does not name it");
	return check_numbers(layer, v, physical, why);
}
