/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that is declared to be a VHD, and has a parent that it may name. Its checksums are made
 * right, or nothing would ever get past them; that they are looked at is for other tests.
 */
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "imgfs/checked.h"
#include "imgfs/vhd.h"
#include "imgfs/wire.h"

#define PARENT (9u * 512 + 100)

static void seal_footer(uint8_t *p)
{
	if (memcmp(p, "conectix", 8) == 0)
		put_be32(p + VHD_FOOTER_CHECKSUM, vhd_checksum(p, VHD_FOOTER, VHD_FOOTER_CHECKSUM));
}

static void seal_header(uint8_t *bytes, size_t size, const uint8_t *footer)
{
	uint64_t at = get_be64(footer + VHD_FOOTER_HEADER);

	if (range_ok(at, VHD_HEADER, size) && memcmp(bytes + at, "cxsparse", 8) == 0)
		put_be32(bytes + at + VHD_HEADER_CHECKSUM,
			vhd_checksum(bytes + at, VHD_HEADER, VHD_HEADER_CHECKSUM));
}

static void make_parent(void)
{
	static uint8_t parent[PARENT + VHD_FOOTER];
	uint8_t *p = parent + PARENT;

	if (parent[0])
		return;
	for (size_t i = 0; i < PARENT; i++)
		parent[i] = (uint8_t)(i / 512 + i + 1);
	memcpy(p, "conectix", 8);
	put_be32(p + VHD_FOOTER_VERSION, VHD_VERSION);
	put_be64(p + VHD_FOOTER_SIZE, PARENT);
	put_be32(p + VHD_FOOTER_TYPE, VHD_TYPE_FIXED);
	for (uint8_t i = 0; i < 16; i++)
		p[VHD_FOOTER_ID + i] = 0x60 + i;
	seal_footer(p);
	fuzz_file_stays("disk-base.vhd", parent, sizeof(parent));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes = malloc(size + 1);

	fuzz_begin();
	make_parent();
	fuzz_check(bytes != NULL);
	memcpy(bytes, data, size);
	if (size >= VHD_FOOTER) {
		/* The header first: it may be anywhere. */
		seal_header(bytes, size, bytes + size - VHD_FOOTER);
		seal_header(bytes, size, bytes);
		seal_footer(bytes);
		seal_footer(bytes + size - VHD_FOOTER);
	}
	fuzz_file("disk.vhd", bytes, size);
	fuzz_image("disk.vhd", data, size);
	free(bytes);
	return 0;
}
