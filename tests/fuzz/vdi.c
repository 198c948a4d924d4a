/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is declared to be a VDI, and the parent that it has if it has one. */
#include <string.h>

#include "driver.h"
#include "imgfs/wire.h"

#define BLOCK 4096u

static void make_parent(void)
{
	static uint8_t parent[1024 + 3 * BLOCK];

	if (parent[64])
		return;
	memset(parent + 1024, 0x5c, sizeof(parent) - 1024);
	put_le32(parent + 64, 0xbeda107f);
	put_le32(parent + 68, 0x10001);
	put_le32(parent + 72, 400);
	put_le32(parent + 76, 1);
	put_le32(parent + 340, 512);
	put_le32(parent + 344, 1024);
	put_le32(parent + 360, 512);
	put_le64(parent + 368, 3 * BLOCK - 100);
	put_le32(parent + 376, BLOCK);
	put_le32(parent + 384, 3);
	for (uint8_t i = 0; i < 16; i++) {
		parent[392 + i] = 0x61 + i;
		parent[408 + i] = 0x81 + i;
	}
	for (unsigned i = 0; i < 3; i++)
		put_le32(parent + 512 + 4 * i, 2 - i);
	fuzz_file_stays("disk-base.vdi", parent, sizeof(parent));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_begin();
	make_parent();
	fuzz_file("disk.vdi", data, size);
	fuzz_image("disk.vdi", data, size);
	return 0;
}
