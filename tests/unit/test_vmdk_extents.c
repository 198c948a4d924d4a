/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDKs that are a descriptor and other files: split and flat disks, snapshots in COWD and
 * seSparse extents, and the parents of all.
 */
#include "vmdk_store.h"

#define HEAD       "# Disk DescriptorFile\nversion=1\nCID=22222222\n"
#define SPLIT_HEAD HEAD "parentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n"
#define FLAT_HEAD  HEAD "parentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"
#define DELTA_HEAD(type) \
	HEAD "parentCID=33333333\nparentFileNameHint=\"d.vmdk\"\ncreateType=\"" type "\"\n"

static uint8_t file[96 * SECTOR];

/*
 * A hosted sparse extent without a descriptor, 20 sectors in grains of 8: the first grain is at
 * sector 16, the second is absent, the third is at 24.
 */
static void make_extent(const char *name)
{
	memset(file, 0, sizeof(file));
	memcpy(file, "KDMV", 4);
	put_le32(file + 4, 1);
	put_le32(file + 8, 1);
	put_le64(file + 12, 20);
	put_le64(file + 20, 8);
	put_le32(file + 44, 512);
	put_le64(file + 56, 1);
	put_le64(file + 64, 16);
	memcpy(file + 73, "\n \r\n", 4);
	put_le32(file + SECTOR, 2);
	put_le32(file + 2 * SECTOR, 16);
	put_le32(file + 2 * SECTOR + 8, 24);
	store_write(name, file, 32 * SECTOR);
}

/* A flat file of so many sectors, each filled with its number. */
static void make_flat(const char *name, unsigned sectors)
{
	assert_true(sectors * SECTOR <= sizeof(file));
	for (unsigned i = 0; i < sectors; i++)
		memset(file + i * SECTOR, (int)i + 1, SECTOR);
	store_write(name, file, sectors * SECTOR);
}

/* ---- lists of extents ---- */

static void split(void **state)
{
	struct image *image;

	(void)state;
	make_extent("d-s001.vmdk");
	make_extent("d-s002.vmdk");
	make_flat("d-f003.vmdk", 40);
	store_text("d.vmdk", SPLIT_HEAD "RW 20 SPARSE \"d-s001.vmdk\"\n"
					"RW 10 ZERO\n"
					"RDONLY 20 SPARSE \"d-s002.vmdk\"\n"
					"NOACCESS 3 FLAT \"is-not-there\" 0\n"
					"RDONLY 8 FLAT \"d-f003.vmdk\" 32\n"
					"RW 4 FLAT \"d-f003.vmdk\" 2\n");
	image = open_image("d.vmdk");
	assert_int_equal(image_size(image), 65 * SECTOR);
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 4);
	assert_map(image, MAP_PLACE, { 8 * SECTOR, EXTENT_DATA, "d-s001.vmdk", 16 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 20 * SECTOR, EXTENT_DATA, "d-s001.vmdk", 24 * SECTOR },
		{ 30 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 38 * SECTOR, EXTENT_DATA, "d-s002.vmdk", 16 * SECTOR },
		{ 46 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 50 * SECTOR, EXTENT_DATA, "d-s002.vmdk", 24 * SECTOR },
		{ 53 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 61 * SECTOR, EXTENT_DATA, "d-f003.vmdk", 32 * SECTOR },
		{ 65 * SECTOR, EXTENT_DATA, "d-f003.vmdk", 2 * SECTOR });
	image_unref(image);
	/* Only the last extent of the disk may end with its file. */
	store_truncate("d-s001.vmdk", 25 * SECTOR);
	image = open_image("d.vmdk");
	assert_map(image, MAP_PLACE, { 8 * SECTOR, EXTENT_DATA, "d-s001.vmdk", 16 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 17 * SECTOR, EXTENT_DATA, "d-s001.vmdk", 24 * SECTOR },
		{ 20 * SECTOR, EXTENT_DAMAGED, NULL, 0 }, { 30 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 38 * SECTOR, EXTENT_DATA, "d-s002.vmdk", 16 * SECTOR },
		{ 46 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 50 * SECTOR, EXTENT_DATA, "d-s002.vmdk", 24 * SECTOR },
		{ 53 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 61 * SECTOR, EXTENT_DATA, "d-f003.vmdk", 32 * SECTOR },
		{ 65 * SECTOR, EXTENT_DATA, "d-f003.vmdk", 2 * SECTOR });
	image_unref(image);
}

static void bad_lists(void **state)
{
	static const struct {
		const char *text;
		int err;
		const char *reason;
	} cases[] = {
		{ FLAT_HEAD, -EINVAL, "has no extents" },
		{ HEAD "RW 8 ZERO\n", -EINVAL, "no createType" },
		{ HEAD "createType=\"new\"\nRW 8 ZERO\n", -ENOTSUP, "disks of type 'new'" },
		{ HEAD "createType=\"fullDevice\"\nRW 8 FLAT \"/dev/sda\" 0\n", -ENOTSUP,
			"a device or LUN of a host ('fullDevice')" },
		{ HEAD "createType=\"vmfsRDM\"\nRW 8 VMFSRDM \"d-rdm.vmdk\"\n", -ENOTSUP,
			"a device or LUN of a host ('vmfsRDM')" },
		{ HEAD "createType=\"partitionedDevice\"\nRW 8 ZERO\nRW 8 FLAT \"/dev/sda\" 63\n",
			-ENOTSUP, "line 6: the extent '/dev/sda' is a device" },
		{ HEAD "createType=\"custom\"\nRW 8 FLAT \"\\\\.\\PhysicalDrive0\" 0\n", -ENOTSUP,
			"is a device" },
		{ HEAD "createType=\"vmfs\"\nRW 8 VMFSRDM \"d-rdm.vmdk\"\n", -ENOTSUP,
			"line 5: the extent is mapped to a device" },
		{ HEAD "createType=\"vmfs\"\nRW 8 VMFSRAW \"d-raw.vmdk\"\n", -ENOTSUP,
			"line 5: the extent is mapped to a device" },
		{ FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 0\nencryptionKeys=\"x\"\n", -ENOTSUP,
			"encrypted" },
		{ FLAT_HEAD "RW 8 FLAT \"d-missing.vmdk\" 0\n", -ENOENT, "'d-missing.vmdk'" },
		{ FLAT_HEAD "RW 8 FLAT \"other-flat.vmdk\" 0\n", -EPERM, "not of its own family" },
		{ FLAT_HEAD "RW 8 FLAT \"../d-flat.vmdk\" 0\n", -EPERM, "'..'" },
		{ FLAT_HEAD "RW 8 FLAT \"/etc/passwd\" 0\n", -EPERM, "outside the datastore" },
		{ FLAT_HEAD "RW 8 FLAT \"d.vmdk\" 0\n", -ELOOP, "a part of it already" },
		{ FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 36028797018963968\n", -EINVAL,
			"begins beyond 2^64" },
		{ FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 18014398509481983\n", -EINVAL,
			"its extent 'd-flat.vmdk': it would end beyond 2^63" },
		{ SPLIT_HEAD "RW 21 SPARSE \"d-s001.vmdk\"\n", -EINVAL,
			"its extent 'd-s001.vmdk': its header says 20 sectors, but its descriptor "
			"says 21" },
		{ SPLIT_HEAD "RW 20 SPARSE \"d-flat.vmdk\"\n", -EINVAL,
			"does not begin like a hosted sparse extent" },
		{ SPLIT_HEAD "RW 20 VMFSSPARSE \"d-s001.vmdk\"\n", -EINVAL,
			"does not begin like a COWD extent" },
		{ SPLIT_HEAD "RW 20 SESPARSE \"d-s001.vmdk\"\n", -EINVAL,
			"does not begin like an seSparse extent" },
		{ SPLIT_HEAD "RW 20 SPARSE \"d-text.vmdk\"\n", -EINVAL, "too short" },
		{ SPLIT_HEAD "RW 20 SPARSE \"d-unfinished.vmdk\"\n", -EINVAL, "not finished" },
		{ SPLIT_HEAD "RW 20 SPARSE \"d-s001.vmdk\"\nRX 20 SPARSE \"d-s001.vmdk\"\n",
			-EINVAL, "its descriptor: line 7: neither" },
		{ HEAD "parentCID=33333333\ncreateType=\"vmfs\"\nRW 8 VMFS \"d-flat.vmdk\"\n",
			-EINVAL, "has a parent, but does not name it" },
		{ FLAT_HEAD "parentFileNameHint=\"d-1.vmdk\"\nRW 8 FLAT \"d-flat.vmdk\" 0\n",
			-EINVAL, "its parentCID says that it has none" },
	};

	(void)state;
	make_extent("d-s001.vmdk");
	make_extent("d-unfinished.vmdk");
	store_poke("d-unfinished.vmdk", 0, "kdmv", 4);
	make_flat("d-flat.vmdk", 16);
	make_flat("other-flat.vmdk", 16);
	store_text("d-text.vmdk", FLAT_HEAD "RW 20 FLAT \"d-flat.vmdk\" 0\n");
	for (size_t i = 0; i < COUNT(cases); i++) {
		store_text("d.vmdk", cases[i].text);
		assert_refused("d.vmdk", cases[i].err, cases[i].reason);
	}
}

static void large_text(void **state)
{
	size_t size = (1u << 20) + 1;
	char *big = malloc(size);

	(void)state;
	assert_non_null(big);
	make_flat("d-flat.vmdk", 8);
	memset(big, 0, size);
	strcpy(big, FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 0\n");
	store_write("d.vmdk", big, size - 1);
	assert_places("d.vmdk", { 8 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 });
	store_write("d.vmdk", big, size);
	assert_refused("d.vmdk", -EINVAL, "larger than 1024 KiB");
	free(big);
}

/* What a file says about itself gives it no rights: the text has no suffix that declares it. */
static void undeclared(void **state)
{
	(void)state;
	make_flat("d-flat.vmdk", 8);
	store_text("d.img", FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 0\n");
	assert_refused("d.img", -EPERM, "only its content says that it is vmdk");
	store_text("notes.vmdk", "some text\n");
	assert_refused("notes.vmdk", -EINVAL, "does not begin like one");
}

static void extents_by_themselves(void **state)
{
	(void)state;
	make_extent("d.vmdk");
	assert_refused("d.vmdk", -ENOTSUP, "an extent of a split disk");
	/* QEMU reserves room for a descriptor and leaves it empty. */
	store_poke_number("d.vmdk", 28, 8, 3);
	store_poke_number("d.vmdk", 36, 8, 2);
	assert_refused("d.vmdk", -ENOTSUP, "an extent of a split disk");
	store_write("d.vmdk", "COWD\1\0\0\0", 8);
	assert_refused("d.vmdk", -ENOTSUP, "an extent of a snapshot");
	store_write("d.vmdk", "\xbe\xba\xfe\xca\0\0\0\0", 8);
	assert_refused("d.vmdk", -ENOTSUP, "an extent of a snapshot");
	store_text("d.vmdk", "kdmv----");
	assert_refused("d.vmdk", -EINVAL, "too short");
}

/* A sparse header of capacity 0 wraps a descriptor of other files. */
static void container(void **state)
{
	static const char text[] = FLAT_HEAD "RW 8 FLAT \"d-flat.vmdk\" 1\n";
	struct image *image;

	(void)state;
	make_extent("d.vmdk");
	put_le64(file + 12, 0);
	put_le64(file + 28, 1);
	put_le64(file + 36, 2);
	memset(file + SECTOR, 0, 2 * SECTOR);
	memcpy(file + SECTOR, text, sizeof(text));
	store_write("d.vmdk", file, 3 * SECTOR);
	make_flat("d-flat.vmdk", 16);
	image = open_image("d.vmdk");
	assert_int_equal(image_size(image), 8 * SECTOR);
	assert_false(image_is_standalone(image));
	assert_map(image, MAP_PLACE, { 8 * SECTOR, EXTENT_DATA, "d-flat.vmdk", SECTOR });
	image_unref(image);
	/* Without a descriptor, or as an extent, it is nothing. */
	store_poke_number("d.vmdk", 28, 8, 0);
	assert_refused("d.vmdk", -ENOTSUP, "an extent of a split disk");
	make_extent("d-s001.vmdk");
	store_poke_number("d-s001.vmdk", 12, 8, 0);
	store_text("d.vmdk", SPLIT_HEAD "RW 20 SPARSE \"d-s001.vmdk\"\n");
	assert_refused("d.vmdk", -EINVAL, "no capacity");
}

/* ---- flat ---- */

static void flat_files(void **state)
{
	static const char *const lines[] = {
		"createType=\"monolithicFlat\"\nRW 8 FLAT \"d-flat.vmdk\" 0\n",
		"createType=\"2gbMAXextentFLAT\"\nRW 8 FLAT \"d-flat.vmdk\"\n",
		"createType=\"vmfs\"\nRW 8 VMFS \"d-flat.vmdk\"\n",
		"createType=\"vmfsThin\"\nRW 8 VMFS \"d-flat.vmdk\" 0\n",
		"createType=\"vmfsPreallocated\"\nRDONLY 8 VMFS \"d-flat.vmdk\"\n",
		"createType=\"vmfsEagerZeroedThick\"\nRW 8 VMFS \"d-flat.vmdk\"\n",
		"createType=\"custom\"\nRW 8 FLAT \"d-flat.vmdk\" 0 uuid\n",
		"createType=\"partitionedDevice\"\nRW 8 FLAT \"d-flat.vmdk\" 0\n",
	};
	char text[512];

	(void)state;
	make_flat("d-flat.vmdk", 8);
	for (size_t i = 0; i < COUNT(lines); i++) {
		snprintf(text, sizeof(text), "%s%s", HEAD, lines[i]);
		store_text("d.vmdk", text);
		assert_places("d.vmdk", { 8 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 });
	}
}

static void short_flat_files(void **state)
{
	struct image *image;

	(void)state;
	make_flat("d-flat.vmdk", 8);
	store_truncate("d-flat.vmdk", 7 * SECTOR + 9);
	store_text("d.vmdk", FLAT_HEAD "RW 4 FLAT \"d-flat.vmdk\" 4\nRW 2 ZERO\n"
				       "RW 2 FLAT \"d-flat.vmdk\" 8\n");
	image = open_image("d.vmdk");
	assert_map(image, MAP_PLACE, { 3 * SECTOR + 9, EXTENT_DATA, "d-flat.vmdk", 4 * SECTOR },
		{ 4 * SECTOR, EXTENT_DAMAGED, NULL, 0 }, { 6 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 8 * SECTOR, EXTENT_DAMAGED, NULL, 0 });
	assert_map(image, MAP_KIND, { 4 * SECTOR, EXTENT_DATA, NULL, 0 },
		{ 6 * SECTOR, EXTENT_ZERO, NULL, 0 }, { 8 * SECTOR, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

/* Holes of the file are holes of the disk, where kinds are asked for. */
static void flat_holes(void **state)
{
	struct image *image;
	uint8_t byte = 1;

	(void)state;
	store_write("d-flat.vmdk", "", 0);
	store_truncate("d-flat.vmdk", 1024 * KIB);
	store_poke("d-flat.vmdk", 256 * KIB, &byte, 1);
	store_text("d.vmdk", FLAT_HEAD "RW 1024 FLAT \"d-flat.vmdk\" 128\n");
	image = open_image("d.vmdk");
	assert_map(image, MAP_PLACE, { 512 * KIB, EXTENT_DATA, "d-flat.vmdk", 64 * KIB });
	assert_map(image, MAP_KIND, { 192 * KIB, EXTENT_ZERO, NULL, 0 },
		{ 196 * KIB, EXTENT_DATA, NULL, 0 }, { 512 * KIB, EXTENT_ZERO, NULL, 0 });
	image_unref(image);
}

/* ---- snapshots ---- */

static void make_parent(unsigned sectors)
{
	char text[256];

	make_flat("d-flat.vmdk", sectors);
	snprintf(text, sizeof(text),
		"version=1\nCID=33333333\ncreateType=\"vmfs\"\nRW %u VMFS \"d-flat.vmdk\"\n",
		sectors);
	store_text("d.vmdk", text);
}

#define CHILD "d-000001.vmdk"

/* 20 sectors in grains of one: sectors 3 and 4 at 40 and 41, sector 19 at 42. */
static void make_cowd(void)
{
	memset(file, 0, sizeof(file));
	memcpy(file, "COWD", 4);
	put_le32(file + 4, 1);
	put_le32(file + 8, 3);
	put_le32(file + 12, 20);
	put_le32(file + 16, 1);
	put_le32(file + 20, 4);
	put_le32(file + 24, 1);
	put_le32(file + 4 * SECTOR, 5);
	put_le32(file + 5 * SECTOR + 3 * 4, 40);
	put_le32(file + 5 * SECTOR + 4 * 4, 41);
	put_le32(file + 5 * SECTOR + 19 * 4, 42);
	store_write("d-000001-delta.vmdk", file, 43 * SECTOR);
	store_text(CHILD, DELTA_HEAD("vmfsSparse") "RW 20 VMFSSPARSE \"d-000001-delta.vmdk\"\n");
}

static void cowd(void **state)
{
	struct image *image;

	(void)state;
	make_parent(16);
	make_cowd();
	image = open_image(CHILD);
	assert_int_equal(image_file_count(image), 4);
	assert_map(image, MAP_PLACE, { 3 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 },
		{ 5 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 40 * SECTOR },
		{ 16 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 5 * SECTOR },
		{ 19 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 20 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 42 * SECTOR });
	image_unref(image);
	/* The same extent without a parent. */
	store_text(CHILD,
		HEAD "createType=\"vmfsSparse\"\nRW 20 VMFSSPARSE \"d-000001-delta.vmdk\"\n");
	image = open_image(CHILD);
	assert_map(image, MAP_PLACE, { 3 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 5 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 40 * SECTOR },
		{ 19 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 20 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 42 * SECTOR });
	assert_map(image, MAP_KIND, { 3 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 5 * SECTOR, EXTENT_DATA, NULL, 0 }, { 19 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 20 * SECTOR, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

static void damaged_cowd(void **state)
{
	static const uint32_t nonsense[] = { 43, 0xffffffff, 1, 3 };
	static const struct {
		uint64_t offset;
		uint32_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ 0, 0x44574f44, -EINVAL, "does not begin like a COWD" },
		{ 4, 2, -ENOTSUP, "version 2" },
		{ 12, 0, -EINVAL, "no capacity" },
		{ 12, 21, -EINVAL, "its header says 21 sectors" },
		{ 16, 0, -EINVAL, "grains have 0 sectors" },
		{ 16, 3, -EINVAL, "grains have 3 sectors" },
		{ 16, 0x80000000, -EINVAL, "grains have 2147483648 sectors" },
		{ 20, 3, -EINVAL, "directory is in its header" },
		{ 20, 43, -EINVAL, "directory is not inside the file" },
		{ 20, 0xffffffff, -EINVAL, "directory is not inside the file" },
		{ 24, 0, -EINVAL, "only 0 entries" },
		{ 4 * SECTOR, 12, -EINVAL, "entry 0 of its grain directory" },
		{ 4 * SECTOR, 0xffffffff, -EINVAL, "entry 0 of its grain directory" },
	};

	(void)state;
	make_parent(20);
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		make_cowd();
		store_poke_number("d-000001-delta.vmdk", 5 * SECTOR + 3 * 4, 4, nonsense[i]);
		assert_places(CHILD, { 3 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 },
			{ 4 * SECTOR, EXTENT_DAMAGED, NULL, 0 },
			{ 5 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 41 * SECTOR },
			{ 19 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 5 * SECTOR },
			{ 20 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 42 * SECTOR });
	}
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_cowd();
		store_poke_number("d-000001-delta.vmdk", cases[i].offset, 4, cases[i].value);
		assert_refused(CHILD, cases[i].err, cases[i].reason);
	}
	make_cowd();
	store_truncate("d-000001-delta.vmdk", 2047);
	assert_refused(CHILD, -EINVAL, "too short for a COWD");
}

/*
 * 44 sectors in grains of 8. Grain 0 is at index 1, 1 is unmapped, 2 is zeros, 3 is absent,
 * 4 is at index 0, and 5, of which there are 4 sectors, is at index 2.
 */
#define SE "d-000001-sesparse.vmdk"

static void make_sesparse(void)
{
	static const uint64_t header[] = { 0xcafebabe, 0x200000001, 44, 8, 64, 0, 0, 0, 0, 0, 1, 1,
		2, 1, 3, 1, 4, 1, 5, 64, 69, 1, 70, 1, 72, 24 };

	memset(file, 0, sizeof(file));
	for (size_t i = 0; i < COUNT(header); i++)
		put_le64(file + i * 8, header[i]);
	put_le64(file + SECTOR, 0xcafecafe);
	put_le64(file + 4 * SECTOR, 1ull << 60);
	put_le64(file + 5 * SECTOR, 3ull << 60 | 1ull << 48);
	put_le64(file + 5 * SECTOR + 8, 1ull << 60);
	put_le64(file + 5 * SECTOR + 16, 2ull << 60);
	put_le64(file + 5 * SECTOR + 32, 3ull << 60);
	put_le64(file + 5 * SECTOR + 40, 3ull << 60 | 2ull << 48);
	store_write(SE, file, 96 * SECTOR);
	store_text(CHILD, DELTA_HEAD("seSparse") "RW 44 SESPARSE \"" SE "\"\n");
}

#define SE_REST                                                           \
	{ 24 * SECTOR, EXTENT_ZERO, NULL, 0 },                            \
		{ 32 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 24 * SECTOR }, \
		{ 40 * SECTOR, EXTENT_DATA, SE, 72 * SECTOR },            \
	{                                                                 \
		44 * SECTOR, EXTENT_DATA, SE, 88 * SECTOR                 \
	}

static void sesparse(void **state)
{
	(void)state;
	make_parent(44);
	make_sesparse();
	assert_places(CHILD, { 8 * SECTOR, EXTENT_DATA, SE, 80 * SECTOR }, SE_REST);
}

static void damaged_sesparse(void **state)
{
	static const uint64_t nonsense[] = {
		3ull << 60 | 3ull << 48,     /* index 3: at the end of the file */
		3ull << 60 | 1,              /* index 4096 */
		3ull << 60 | 0xffffffffffff, /* index 2^60 - 4096 */
		0x3fffffffffffffff,
		1, /* absent, but not quite */
		4ull << 60,
		15ull << 60,
	};
	static const struct {
		uint64_t offset;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ 0, 0xcafebabf, -EINVAL, "does not begin like an seSparse" },
		{ 8, 0x200000002, -ENOTSUP, "version 0x200000002" },
		{ 16, 0, -EINVAL, "no capacity" },
		{ 16, 52, -EINVAL, "its header says 52 sectors" },
		{ 16, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 24, 16, -ENOTSUP, "grains of 16" },
		{ 32, 128, -ENOTSUP, "tables of 128" },
		{ 40, 1, -ENOTSUP, "flags that are not known" },
		{ 48, 1, -ENOTSUP, "reserved field (at 48)" },
		{ 72, 1, -ENOTSUP, "reserved field (at 72)" },
		{ 80, 0, -EINVAL, "volatile header is not inside the file" },
		{ 80, 96, -EINVAL, "volatile header is not inside the file" },
		{ 80, UINT64_MAX, -EINVAL, "volatile header is not inside the file" },
		{ 80, 2, -EINVAL, "volatile header is damaged" },
		{ 128, 0, -EINVAL, "onto itself" },
		{ 128, 96, -EINVAL, "directory is not inside the file" },
		{ 128, UINT64_MAX, -EINVAL, "beyond 2^64" },
		{ 136, 0, -EINVAL, "only 0 sectors" },
		{ 144, UINT64_MAX / SECTOR, -EINVAL, "entry 0 of its grain directory" },
		{ 192, UINT64_MAX, -EINVAL, "beyond 2^64" },
		{ SECTOR, 0, -EINVAL, "volatile header is damaged" },
		{ SECTOR + 24, 1, -ENOTSUP, "its journal" },
		{ 4 * SECTOR, 1, -EINVAL, "entry 0 of its grain directory, 0x1," },
		{ 4 * SECTOR, 1ull << 60 | 1, -EINVAL, "entry 0 of its grain directory" },
		{ 4 * SECTOR, 1ull << 60 | 0xffffffff, -EINVAL, "entry 0 of its grain directory" },
		{ 4 * SECTOR, 1ull << 60 | 1ull << 32, -EINVAL, "entry 0 of its grain directory" },
		{ 4 * SECTOR, 2ull << 60, -EINVAL, "entry 0 of its grain directory" },
	};

	(void)state;
	make_parent(44);
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		make_sesparse();
		store_poke_number(SE, 5 * SECTOR, 8, nonsense[i]);
		assert_places(CHILD, { 8 * SECTOR, EXTENT_DAMAGED, NULL, 0 }, SE_REST);
	}
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_sesparse();
		store_poke_number(SE, cases[i].offset, 8, cases[i].value);
		assert_refused(CHILD, cases[i].err, cases[i].reason);
	}
	make_sesparse();
	store_truncate(SE, 511);
	assert_refused(CHILD, -EINVAL, "too short for an seSparse");
}

/* ---- parents ---- */

static void parents(void **state)
{
	(void)state;
	make_cowd();
	make_parent(20);
	/* The hint may be written in other ways, as long as the place is the same. */
	store_text(CHILD, HEAD "parentcid=33333333\nparentfilenamehint=./d.vmdk\n"
			       "createType=\"vmfsSparse\"\nRW 20 VMFSSPARSE "
			       "\"d-000001-delta.vmdk\"\n");
	assert_places(CHILD, { 3 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 },
		{ 5 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 40 * SECTOR },
		{ 19 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 5 * SECTOR },
		{ 20 * SECTOR, EXTENT_DATA, "d-000001-delta.vmdk", 42 * SECTOR });
}

static void wrong_parents(void **state)
{
	(void)state;
	make_cowd();
	make_parent(20);
	store_text("d.vmdk",
		"version=1\nCID=33333334\ncreateType=\"vmfs\"\nRW 20 VMFS \"d-flat.vmdk\"\n");
	assert_refused(CHILD, -EINVAL, "the CID is 33333334, not 33333333");
	store_text("d.vmdk", "version=1\ncreateType=\"vmfs\"\nRW 20 VMFS \"d-flat.vmdk\"\n");
	assert_refused(CHILD, -EINVAL, "its parent has no CID");
	store_write("d.vmdk", "QFI\xfb\0\0\0\3", 8);
	assert_refused(CHILD, -EINVAL, "it should be vmdk");
	store_text(CHILD, HEAD "parentCID=33333333\nparentFileNameHint=\"" CHILD "\"\n"
			       "createType=\"vmfsSparse\"\nRW 20 VMFSSPARSE "
			       "\"d-000001-delta.vmdk\"\n");
	assert_refused(CHILD, -ELOOP, "comes back");
}

/* In a flat child nothing is absent, and a zero extent hides what is below. */
static void zeros_over_a_parent(void **state)
{
	(void)state;
	make_parent(20);
	make_flat("d-000001-flat.vmdk", 4);
	store_text(CHILD, DELTA_HEAD("custom") "RW 4 FLAT \"d-000001-flat.vmdk\" 0\nRW 16 ZERO\n");
	assert_places(CHILD, { 4 * SECTOR, EXTENT_DATA, "d-000001-flat.vmdk", 0 },
		{ 20 * SECTOR, EXTENT_ZERO, NULL, 0 });
}

/* A hosted sparse extent over a parent: 0 is the parent's, 1 is zeros. */
static void sparse_over_a_parent(void **state)
{
	(void)state;
	make_parent(20);
	make_extent("d-000001-s001.vmdk");
	store_text(
		CHILD, DELTA_HEAD("twoGbMaxExtentSparse") "RW 20 SPARSE \"d-000001-s001.vmdk\"\n");
	assert_places(CHILD, { 8 * SECTOR, EXTENT_DATA, "d-000001-s001.vmdk", 16 * SECTOR },
		{ 16 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 8 * SECTOR },
		{ 20 * SECTOR, EXTENT_DATA, "d-000001-s001.vmdk", 24 * SECTOR });
	store_poke_number("d-000001-s001.vmdk", 2 * SECTOR + 4, 4, 1);
	assert_places(CHILD, { 8 * SECTOR, EXTENT_DATA, "d-000001-s001.vmdk", 16 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 20 * SECTOR, EXTENT_DATA, "d-000001-s001.vmdk", 24 * SECTOR });
	/* No table at all. */
	store_poke_number("d-000001-s001.vmdk", SECTOR, 4, 0);
	assert_places(CHILD, { 20 * SECTOR, EXTENT_DATA, "d-flat.vmdk", 0 });
}

/* ---- every byte ---- */

static void mutate(const char *name, const uint8_t *bytes, uint64_t start, uint64_t end,
	size_t *opened, size_t *refused)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x10, 0x7f, 0xff };

	for (uint64_t at = start; at < end; at++) {
		for (size_t i = 0; i < COUNT(values); i++) {
			if (bytes[at] == values[i])
				continue;
			store_poke(name, at, &values[i], 1);
			if (survives(CHILD))
				++*opened;
			else
				++*refused;
			store_poke(name, at, bytes + at, 1);
		}
	}
}

static void mutations(void **state)
{
	size_t opened = 0, refused = 0;

	(void)state;
	make_parent(44);
	make_cowd();
	mutate("d-000001-delta.vmdk", file, 0, 32, &opened, &refused);
	mutate("d-000001-delta.vmdk", file, 4 * SECTOR, 4 * SECTOR + 8, &opened, &refused);
	mutate("d-000001-delta.vmdk", file, 5 * SECTOR + 8, 5 * SECTOR + 24, &opened, &refused);
	assert_true(opened > 50 && refused > 50);
	opened = refused = 0;
	make_sesparse();
	mutate(SE, file, 0, 208, &opened, &refused);
	mutate(SE, file, SECTOR, SECTOR + 32, &opened, &refused);
	mutate(SE, file, 4 * SECTOR, 4 * SECTOR + 8, &opened, &refused);
	mutate(SE, file, 5 * SECTOR, 5 * SECTOR + 48, &opened, &refused);
	assert_true(opened > 50 && refused > 50);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(split),
		TEST(bad_lists),
		TEST(large_text),
		TEST(undeclared),
		TEST(extents_by_themselves),
		TEST(container),
		TEST(flat_files),
		TEST(short_flat_files),
		TEST(flat_holes),
		TEST(cowd),
		TEST(damaged_cowd),
		TEST(sesparse),
		TEST(damaged_sesparse),
		TEST(parents),
		TEST(wrong_parents),
		TEST(zeros_over_a_parent),
		TEST(sparse_over_a_parent),
		TEST(mutations),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
