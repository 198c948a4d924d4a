/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHDX files made byte by byte: headers at 64 and 128 KiB, region tables at 192 and 256 KiB, the
 * log at 1 MiB, the BAT at 2 MiB, metadata at 3 MiB, and whatever a test puts from 4 MiB on.
 */
#ifndef IMGFS_TEST_VHDX_IMAGE_H
#define IMGFS_TEST_VHDX_IMAGE_H

#include "imgfs/crc32c.h"
#include "vmdk_store.h"

#define HEADER_1     (64 * KIB)
#define HEADER_2     (128 * KIB)
#define TABLE_1      (192 * KIB)
#define TABLE_2      (256 * KIB)
#define LOG          MIB
#define BAT          (2 * MIB)
#define METADATA     (3 * MIB)
#define ITEMS        (METADATA + 64 * KIB)
#define DATA         (4 * MIB)
#define PAGE         4096u

#define LOG_GUID     "the log's number"
#define DATA_GUID    "the data's number"

#define ITEM_SIZE    8 /* from ITEMS on */
#define ITEM_LOGICAL 32
#define ITEM_LOCATOR 40

#define BAT_ID       "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08"
#define METADATA_ID  "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"

struct vhdx_of {
	uint64_t size;
	uint32_t block;  /* 0: 1 MiB */
	uint32_t sector; /* 0: 512 */
	uint32_t flags;  /* 1 fixed, 2 has a parent */
	const uint8_t *locator;
	uint32_t locator_length;
	uint64_t file_size; /* 0: 12 MiB */
	uint64_t bat[8];
};

static uint8_t page[64 * KIB];

/* Sums up `length` bytes of the file, with the checksum at 4. */
static inline void vhdx_seal(const char *name, uint64_t offset, size_t length)
{
	int fd = store_open(name, O_RDONLY);

	assert_true(length <= sizeof(page));
	assert_int_equal(pread(fd, page, length, (off_t)offset), (ssize_t)length);
	close(fd);
	put_le32(page + 4, 0);
	put_le32(page + 4, crc32c(0, page, length));
	store_poke(name, offset, page, length);
}

static inline void vhdx_header(
	const char *name, uint64_t offset, uint64_t sequence, const char *log_guid)
{
	memset(page, 0, PAGE);
	memcpy(page, "head", 4);
	put_le64(page + 8, sequence);
	memcpy(page + 32, DATA_GUID, 16);
	if (log_guid)
		memcpy(page + 48, log_guid, 16);
	put_le16(page + 66, 1);
	put_le32(page + 68, MIB);
	put_le64(page + 72, LOG);
	store_poke(name, offset, page, PAGE);
	vhdx_seal(name, offset, PAGE);
}

static inline void vhdx_regions(const char *name, uint64_t offset)
{
	memset(page, 0, sizeof(page));
	memcpy(page, "regi", 4);
	put_le32(page + 8, 2);
	memcpy(page + 16, BAT_ID, 16);
	put_le64(page + 32, BAT);
	put_le32(page + 40, MIB);
	put_le32(page + 44, 1);
	memcpy(page + 48, METADATA_ID, 16);
	put_le64(page + 64, METADATA);
	put_le32(page + 72, MIB);
	put_le32(page + 76, 1);
	store_poke(name, offset, page, sizeof(page));
	vhdx_seal(name, offset, sizeof(page));
}

static inline void vhdx_metadata(const char *name, const struct vhdx_of *d)
{
	static const struct {
		const char *id;
		uint32_t length;
	} items[] = {
		{ "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b", 8 },
		{ "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8", 8 },
		{ "\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46", 16 },
		{ "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f", 4 },
		{ "\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56", 4 },
		{ "\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c", 0 },
	};
	uint32_t at = 64 << 10;

	memset(page, 0, PAGE);
	memcpy(page, "metadata", 8);
	put_le16(page + 10, d->locator ? 6 : 5);
	for (size_t i = 0; i < COUNT(items); i++) {
		uint8_t *entry = page + 32 + 32 * i;
		uint32_t length = i == 5 ? d->locator_length : items[i].length;

		memcpy(entry, items[i].id, 16);
		put_le32(entry + 16, at);
		put_le32(entry + 20, length);
		put_le32(entry + 24, 4);
		at += length;
	}
	store_poke(name, METADATA, page, PAGE);
	memset(page, 0, PAGE);
	put_le32(page, d->block ? d->block : (uint32_t)MIB);
	put_le32(page + 4, d->flags);
	put_le64(page + ITEM_SIZE, d->size);
	put_le32(page + ITEM_LOGICAL, d->sector ? d->sector : 512);
	put_le32(page + 36, 4096);
	store_poke(name, ITEMS, page, PAGE);
	if (d->locator)
		store_poke(name, ITEMS + ITEM_LOCATOR, d->locator, d->locator_length);
}

static inline void make_vhdx(const char *name, const struct vhdx_of *d)
{
	unlink(store_path(name));
	store_poke(name, 0, "vhdxfile", 8);
	vhdx_header(name, HEADER_1, 5, NULL);
	vhdx_header(name, HEADER_2, 6, NULL);
	vhdx_regions(name, TABLE_1);
	vhdx_regions(name, TABLE_2);
	vhdx_metadata(name, d);
	for (size_t i = 0; i < COUNT(d->bat); i++)
		store_poke_number(name, BAT + 8 * i, 8, d->bat[i]);
	store_truncate(name, d->file_size ? d->file_size : 12 * MIB);
}

#endif
