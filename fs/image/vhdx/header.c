/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header section (2.2), little-endian: "vhdxfile" at 0, two headers of 4 KiB at 64 and 128
 * KiB, of which the newer valid one counts, and two copies of the region table, 64 KiB at 192
 * and 256 KiB.
 *
 *   HEADER  0 "head", 4 CRC-32C, 8 sequence number, 16 file write GUID, 32 data write GUID,
 *           48 log GUID, 64 log version, 66 version, 68 log length, 72 log offset
 *   TABLE   0 "regi", 4 CRC-32C, 8 entries, then from 16 on
 *   ENTRY   0 GUID, 16 offset, 24 length, 28 bit 0: required
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/crc32c.h"
#include "imgfs/wire.h"
#include "vhdx.h"

enum {
	CHECKSUM = 4,
	SEQUENCE = 8,
	DATA_GUID = 32,
	LOG_GUID = 48,
	LOG_VERSION = 64,
	VERSION = 66,
	LOG_LENGTH = 68,
	LOG_OFFSET = 72,
	HEADER_BYTES = 4096,

	REGION_COUNT = 8,
	REGION_ENTRIES = 16,
	ENTRY_OFFSET = 16,
	ENTRY_LENGTH = 24,
	ENTRY_REQUIRED = 28,
	ENTRY_BYTES = 32,
	REGION_TABLE_BYTES = 65536,
	REGION_COUNT_MAX = 2047,
};

static const uint64_t header_offsets[] = { 64 << 10, 128 << 10 };
static const uint64_t table_offsets[] = { 192 << 10, 256 << 10 };

static bool is_whole(const uint8_t *bytes, size_t length, const char *signature)
{
	static const uint8_t nothing[4];
	uint32_t sum = crc32c(0, bytes, CHECKSUM);

	sum = crc32c(sum, nothing, sizeof(nothing));
	sum = crc32c(sum, bytes + CHECKSUM + 4, length - CHECKSUM - 4);
	return memcmp(bytes, signature, 4) == 0 && sum == get_le32(bytes + CHECKSUM);
}

/* ---- headers ---- */

static int choose_header(
	const struct file *file, uint8_t headers[2][HEADER_BYTES], size_t *current, struct why *why)
{
	bool valid[2];
	uint64_t sequence[2];

	for (size_t i = 0; i < 2; i++) {
		int r = file_read(file, headers[i], HEADER_BYTES, header_offsets[i]);

		if (r == -ERANGE)
			return why_set(why, -EINVAL, "its header is cut short");
		if (r < 0)
			return why_set(why, r, "its header cannot be read");
		valid[i] = is_whole(headers[i], HEADER_BYTES, "head");
		sequence[i] = get_le64(headers[i] + SEQUENCE);
	}
	if (!valid[0] && !valid[1])
		return why_set(why, -EINVAL, "neither of its headers is valid");
	*current = valid[0] && (!valid[1] || sequence[0] >= sequence[1]) ? 0 : 1;
	/* Disk2VHD writes the same header twice. */
	if (valid[0] && valid[1] && sequence[0] == sequence[1] &&
		memcmp(headers[0], headers[1], HEADER_BYTES) != 0)
		return why_set(why, -EINVAL, "its two headers differ and neither is newer");
	return 0;
}

static int place_log(struct layer *layer, struct vhdx *v, const uint8_t *header, struct why *why)
{
	struct vhdx_range *log = &v->regions[VHDX_LOG];

	log->start = get_le64(header + LOG_OFFSET);
	log->length = get_le32(header + LOG_LENGTH);
	memcpy(v->log_guid, header + LOG_GUID, UUID_BYTES);
	v->log_empty = uuid_is_nil(v->log_guid);
	if (log->start % VHDX_ALIGN != 0 || log->length % VHDX_ALIGN != 0 ||
		(log->length > 0 && log->start < VHDX_ALIGN) ||
		!range_ok(log->start, log->length, layer->file->size))
		return why_set(why, -EINVAL, "its log lies outside the file");
	if (v->log_empty)
		return 0;
	if (get_le16(header + LOG_VERSION) != 0)
		return why_set(why, -ENOTSUP, "its log has the unknown version %u",
			get_le16(header + LOG_VERSION));
	if (log->length == 0)
		return why_set(why, -EINVAL, "its log should hold something, but has no room");
	return 0;
}

int vhdx_read_header(struct layer *layer, struct vhdx *v, struct why *why)
{
	uint8_t headers[2][HEADER_BYTES];
	const uint8_t *header;
	size_t current = 0;
	int r = choose_header(layer->file, headers, &current, why);

	if (r < 0)
		return r;
	header = headers[current];
	if (get_le16(header + VERSION) != 1)
		return why_set(why, -ENOTSUP, "VHDX version %u is not supported",
			get_le16(header + VERSION));
	memcpy(v->data_guid, header + DATA_GUID, UUID_BYTES);
	v->end = layer->file->size;
	return place_log(layer, v, header, why);
}

/* ---- regions ---- */

static bool overlap(const struct vhdx_range *a, const struct vhdx_range *b)
{
	return a->start < b->start + b->length && b->start < a->start + a->length;
}

static int add_region(struct vhdx *v, const uint8_t *entry, struct why *why)
{
	static const struct {
		uint8_t guid[UUID_BYTES];
		const char *what;
	} known[VHDX_REGIONS] = {
		[VHDX_BAT] = { { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11,
				       0x5e, 0x9b, 0xfd, 0x4a, 0x08 },
			"block allocation table" },
		[VHDX_METADATA] = { { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe,
					    0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e },
			"metadata region" },
	};
	struct vhdx_range found = {
		.start = get_le64(entry + ENTRY_OFFSET),
		.length = get_le32(entry + ENTRY_LENGTH),
	};

	for (size_t i = VHDX_BAT; i < VHDX_REGIONS; i++) {
		if (!uuid_equal(entry, known[i].guid))
			continue;
		if (v->regions[i].length > 0)
			return why_set(why, -EINVAL, "it has more than one %s", known[i].what);
		if (found.start % VHDX_ALIGN != 0 || found.start < VHDX_ALIGN ||
			found.length % VHDX_ALIGN != 0 || found.length == 0 ||
			!range_ok(found.start, found.length, v->end))
			return why_set(why, -EINVAL, "its %s lies outside the file", known[i].what);
		v->regions[i] = found;
		return 0;
	}
	if (get_le32(entry + ENTRY_REQUIRED) & 1)
		return why_set(why, -ENOTSUP, "it needs a region of a kind that is unknown here");
	return 0;
}

static int check_regions(const struct vhdx *v, struct why *why)
{
	const struct vhdx_range *r = v->regions;

	if (r[VHDX_BAT].length == 0)
		return why_set(why, -EINVAL, "it has no block allocation table");
	if (r[VHDX_METADATA].length == 0)
		return why_set(why, -EINVAL, "it has no metadata region");
	for (size_t i = 0; i < VHDX_REGIONS; i++) {
		for (size_t j = 0; j < i; j++) {
			if (overlap(&r[i], &r[j]))
				return why_set(why, -EINVAL, "its regions overlap");
		}
	}
	return 0;
}

/* The copies are equal; where one is damaged the other one tells. */
int vhdx_read_regions(struct layer *layer, struct vhdx *v, struct why *why)
{
	autofree uint8_t *table = malloc(REGION_TABLE_BYTES);
	bool whole = false;
	uint32_t count;

	if (!table)
		return why_set(why, -ENOMEM, "out of memory");
	for (size_t i = 0; i < 2 && !whole; i++) {
		int r = vhdx_read(layer, v, table, REGION_TABLE_BYTES, table_offsets[i]);

		if (r < 0 && r != -ERANGE)
			return why_set(why, r, "its region table cannot be read");
		whole = r == 0 && is_whole(table, REGION_TABLE_BYTES, "regi");
	}
	if (!whole)
		return why_set(why, -EINVAL, "neither of its region tables is valid");
	count = get_le32(table + REGION_COUNT);
	if (count > REGION_COUNT_MAX)
		return why_set(why, -EINVAL, "its region table has too many entries");
	for (uint32_t i = 0; i < count; i++) {
		int r = add_region(v, table + REGION_ENTRIES + i * ENTRY_BYTES, why);

		if (r < 0)
			return r;
	}
	return check_regions(v, why);
}
