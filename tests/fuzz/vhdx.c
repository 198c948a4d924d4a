/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that is declared to be a VHDX, and has a parent that it may name. A VHDX has 4 MiB at
 * least, so the input is what is not zero in one: the parts below, one behind the other, the log
 * last. Checksums are made right, or nothing would ever get past them.
 */
#include <string.h>

#include "driver.h"
#include "imgfs/checked.h"
#include "imgfs/crc32c.h"
#include "imgfs/wire.h"

#define MIB          (1u << 20)
#define HEADER       (64u << 10)
#define REGION_TABLE (192u << 10)
#define LOG          MIB
#define BAT          (2 * MIB)
#define METADATA     (3 * MIB)
#define ITEMS        (METADATA + (64u << 10))
#define BITMAP       (4 * MIB)
#define FILE_BYTES   (7 * MIB)
#define PAGE         4096u
#define LOG_LENGTH   (16 * PAGE)

static const struct {
	uint32_t offset, length;
} parts[] = {
	{ HEADER, 96 },
	{ REGION_TABLE, 144 },
	{ METADATA, 256 },
	{ ITEMS, 448 },
	{ BAT, 128 },
	{ BAT + 8 * 4096, 8 }, /* of the bitmap of blocks of 1 MiB */
	{ BITMAP, 512 },
	{ LOG, LOG_LENGTH },
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static uint8_t file[FILE_BYTES];

static void seal(uint8_t *p, size_t length)
{
	put_le32(p + 4, 0);
	put_le32(p + 4, crc32c(0, p, length));
}

static void seal_log(void)
{
	for (uint32_t at = 0; at < LOG_LENGTH; at += PAGE) {
		uint8_t *entry = file + LOG + at;
		uint32_t length = get_le32(entry + 8);

		if (memcmp(entry, "loge", 4) == 0 && length >= PAGE && length <= LOG_LENGTH - at)
			seal(entry, length);
	}
}

/* The child's header and regions are good enough; of the disk all is at 5 MiB. */
static void make_parent(const uint8_t *input, size_t size)
{
	static bool made;
	uint8_t data[944] = { 0 };

	if (made || size < 800 || memcmp(input, "head", 4) != 0)
		return;
	made = true;
	memcpy(data, input, min_u64(sizeof(data), size));
	memset(file, 0, sizeof(file));
	memcpy(file, "vhdxfile", 8);
	memcpy(file + HEADER, data, 96);
	memset(file + HEADER + 48, 0, 16);
	memcpy(file + HEADER + 32, "data of a parent", 16);
	seal(file + HEADER, PAGE);
	memcpy(file + REGION_TABLE, data + 96, 144);
	seal(file + REGION_TABLE, 64u << 10);
	memcpy(file + METADATA, data + 240, 256);
	memcpy(file + ITEMS, data + 496, 448);
	put_le32(file + ITEMS + 4, 0);
	for (uint64_t i = 0; i < 2; i++)
		put_le64(file + BAT + 8 * i, (5 + i) << 20 | 6);
	memset(file + 5 * MIB, 0x5c, 2 * MIB);
	fuzz_file_stays("disk-base.vhdx", file, sizeof(file));
	memset(file, 0, sizeof(file));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t at = 0;

	fuzz_begin();
	make_parent(data, size);
	memcpy(file, "vhdxfile", 8);
	for (size_t i = 0; i < PARTS; i++) {
		size_t length = min_u64(parts[i].length, size - at);

		memset(file + parts[i].offset, 0, parts[i].length);
		memcpy(file + parts[i].offset, data + at, length);
		at += length;
	}
	seal(file + HEADER, PAGE);
	seal(file + REGION_TABLE, 64u << 10);
	seal_log();
	fuzz_file("disk.vhdx", file, sizeof(file));
	fuzz_image("disk.vhdx", data, size);
	return 0;
}
