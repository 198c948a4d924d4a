/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor: first as a text, then as a disk whose extents and parent are there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "fs/image/vmdk/descriptor.h"
#include "fs/image/vmdk/extent.h"
#include "imgfs/cleanup.h"
#include "imgfs/wire.h"

#define SPARSE_SECTORS 24

static void check_slice(struct vmdk_slice s, const uint8_t *text, size_t size)
{
	const char *start = (const char *)text;

	if (s.bytes)
		fuzz_check(s.bytes >= start && s.length <= size - (size_t)(s.bytes - start));
	else
		fuzz_check(s.length == 0);
}

static void check_descriptor(const struct vmdk_descriptor *d, const uint8_t *text, size_t size)
{
	uint64_t sectors = 0;

	check_slice(d->create_name, text, size);
	check_slice(d->parent_hint, text, size);
	for (size_t i = 0; i < d->extent_count; i++) {
		const struct vmdk_extent_line *x = &d->extents[i];

		fuzz_check(x->sectors > 0 && x->line > 0);
		check_slice(x->name, text, size);
		if (x->type != VMDK_ZERO && x->access != VMDK_NOACCESS)
			fuzz_check(x->name.length > 0);
		sectors += x->sectors;
	}
	fuzz_check(sectors == d->sectors && sectors <= INT64_MAX / VMDK_SECTOR);
}

/* The same with CRLF at the ends of the lines must say the same. */
static void check_line_ends(const uint8_t *data, size_t size, int r, size_t extents)
{
	autofree uint8_t *text = malloc(2 * size + 1);
	struct vmdk_descriptor d;
	struct why why = { "" };
	size_t length = 0;
	int other;

	for (size_t i = 0; i < size; i++) {
		if (data[i] == '\n')
			text[length++] = '\r';
		text[length++] = data[i];
	}
	other = vmdk_descriptor_parse(text, length, &d, &why);
	fuzz_check(other == r);
	if (other < 0)
		return;
	fuzz_check(d.extent_count == extents);
	vmdk_descriptor_free(&d);
}

static void check_text(const uint8_t *data, size_t size)
{
	struct vmdk_descriptor d;
	struct why why = { "" };
	int r = vmdk_descriptor_parse(data, size, &d, &why);

	fuzz_check(r == 0 || ((r == -EINVAL || r == -ENOTSUP) && why.text[0] != '\0'));
	check_line_ends(data, size, r, r == 0 ? d.extent_count : 0);
	vmdk_descriptor_probe(data, size);
	vmdk_descriptor_mentions_files(data, size);
	if (r == 0) {
		check_descriptor(&d, data, size);
		vmdk_descriptor_free(&d);
	}
}

/* A hosted sparse extent of two grains: the first is there, the second is marked as zeros. */
static void make_sparse(uint8_t *p)
{
	put_le32(p, VMDK_HOSTED_MAGIC);
	put_le32(p + 4, 1);
	put_le64(p + 12, 16); /* capacity */
	put_le64(p + 20, 8);  /* grain */
	put_le32(p + 44, 128);
	put_le64(p + 56, 1);  /* directory */
	put_le64(p + 64, 16); /* overhead */
	put_le32(p + 512, 2);
	put_le32(p + 1024, 16);
	put_le32(p + 1028, 1);
	memset(p + 16 * 512, 'g', 8 * 512);
}

static void make_extents(void)
{
	static const char base[] = "# Disk DescriptorFile\nversion=1\nCID=0000beef\n"
				   "createType=\"vmfs\"\nRW 8 FLAT \"disk-base-flat.vmdk\" 0\n";
	static uint8_t bytes[SPARSE_SECTORS * VMDK_SECTOR];

	if (bytes[0] != 0)
		return;
	fuzz_file_stays("disk-base.vmdk", base, sizeof(base) - 1);
	memset(bytes, 'f', 4096);
	fuzz_file_stays("disk-base-flat.vmdk", bytes, 4096);
	fuzz_file_stays("disk-flat.vmdk", bytes, 5000);
	memset(bytes, 0, sizeof(bytes));
	make_sparse(bytes);
	fuzz_file_stays("disk-s001.vmdk", bytes, sizeof(bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_begin();
	make_extents();
	check_text(data, size);
	fuzz_file("disk.vmdk", data, size);
	fuzz_image("disk.vmdk", data, size);
	return 0;
}
