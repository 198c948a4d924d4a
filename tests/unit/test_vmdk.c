/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDKs that are one file: monolithicSparse, streamOptimized, and hosted sparse extents that are
 * no disk. Made by hand, small, with tables of four entries so that there are several.
 */
#include "vmdk_store.h"

#define NAME "d.vmdk"

/* The disk: 67 sectors in grains of 8, so nine grains, the last one with three sectors. */
#define CAPACITY 67u
#define GRAIN    8u
#define BYTES    (GRAIN * SECTOR)
#define SIZE     (CAPACITY * SECTOR)

/* The file, in sectors. */
#define TEXT      1u
#define DIRECTORY 5u
#define TABLES    6u /* three of them, a sector each */
#define OVERHEAD  16u

static uint8_t file[64 * SECTOR];

static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=ffffffff\n"
			   "createType=\"monolithicSparse\"\nRW 67 SPARSE \"" NAME "\"\n";

static void put_header(uint8_t *p, uint32_t version, uint32_t flags, uint64_t directory)
{
	memcpy(p, "KDMV", 4);
	put_le32(p + 4, version);
	put_le32(p + 8, flags);
	put_le64(p + 12, CAPACITY);
	put_le64(p + 20, GRAIN);
	put_le64(p + 28, TEXT);
	put_le64(p + 36, 4);
	put_le32(p + 44, 4);
	put_le64(p + 56, directory);
	put_le64(p + 64, OVERHEAD);
	memcpy(p + 73, "\n \r\n", 4);
	put_le16(p + 77, flags & 0x10000 ? 1 : 0);
}

static uint64_t entry_at(unsigned grain)
{
	return (TABLES + grain / 4) * SECTOR + grain % 4 * 4;
}

static void set_grain(unsigned grain, uint32_t sector)
{
	put_le32(file + entry_at(grain), sector);
}

static void fill_tables(uint32_t directory, uint32_t tables)
{
	for (uint32_t i = 0; i < 3; i++)
		put_le32(file + directory * SECTOR + i * 4, tables + i);
}

/*
 * Grains 0, 1 follow each other in the file; 2 is absent; 3 is zeros; 4, 5 lie the other way
 * round; 6, 7 are absent; 8 is the last, cut by the end of the disk.
 */
static void make_sparse(const char *descriptor)
{
	memset(file, 0, sizeof(file));
	put_header(file, 1, 3, DIRECTORY);
	memcpy(file + TEXT * SECTOR, descriptor, strlen(descriptor));
	fill_tables(DIRECTORY, TABLES);
	set_grain(0, 16);
	set_grain(1, 24);
	set_grain(3, 1);
	set_grain(4, 40);
	set_grain(5, 32);
	set_grain(8, 48);
	for (unsigned i = OVERHEAD; i < 56; i++)
		memset(file + i * SECTOR, (int)i, SECTOR);
	store_write(NAME, file, 56 * SECTOR);
}

/* What make_sparse() made. */
#define BEFORE_4                                       \
	{ 2 * BYTES, EXTENT_DATA, NAME, 16 * SECTOR }, \
	{                                              \
		4 * BYTES, EXTENT_ZERO, NULL, 0        \
	}
#define FROM_4                                                 \
	{ 5 * BYTES, EXTENT_DATA, NAME, 40 * SECTOR },         \
		{ 6 * BYTES, EXTENT_DATA, NAME, 32 * SECTOR }, \
		{ 8 * BYTES, EXTENT_ZERO, NULL, 0 },           \
	{                                                      \
		SIZE, EXTENT_DATA, NAME, 48 * SECTOR           \
	}

static void sparse(void **state)
{
	struct image *image;

	(void)state;
	make_sparse(text);
	image = open_image(NAME);
	assert_int_equal(image_size(image), SIZE);
	assert_true(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 1);
	assert_map(image, MAP_PLACE, BEFORE_4, FROM_4);
	assert_map(image, MAP_KIND, { 2 * BYTES, EXTENT_DATA, NULL, 0 },
		{ 4 * BYTES, EXTENT_ZERO, NULL, 0 }, { 6 * BYTES, EXTENT_DATA, NULL, 0 },
		{ 8 * BYTES, EXTENT_ZERO, NULL, 0 }, { SIZE, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

static void inside_of_a_grain(void **state)
{
	struct image *image;
	struct extent e;

	(void)state;
	make_sparse(text);
	image = open_image(NAME);
	assert_int_equal(image_map(image, BYTES + 100, 50, MAP_PLACE, &e), 0);
	assert_int_equal(e.kind, EXTENT_DATA);
	assert_int_equal(e.end, BYTES + 150);
	assert_int_equal(e.offset, 24 * SECTOR + 100);
	assert_int_equal(image_map(image, SIZE - 1, 1, MAP_PLACE, &e), 0);
	assert_int_equal(e.kind, EXTENT_DATA);
	assert_int_equal(e.offset, 51 * SECTOR - 1);
	image_unref(image);
}

static void absent_tables(void **state)
{
	(void)state;
	make_sparse(text);
	store_poke_number(NAME, DIRECTORY * SECTOR, 4, 0);
	store_poke_number(NAME, DIRECTORY * SECTOR + 4, 4, 0);
	assert_places(NAME, { 8 * BYTES, EXTENT_ZERO, NULL, 0 },
		{ SIZE, EXTENT_DATA, NAME, 48 * SECTOR });
}

/* Nobody but the owner of an entry suffers from it. */
static void damaged_entries(void **state)
{
	static const uint32_t nonsense[] = { 56, 57, 0xffffffff, 0x80000000, OVERHEAD - 1, 2 };
	struct image *image;

	(void)state;
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		make_sparse(text);
		store_poke_number(NAME, entry_at(2), 4, nonsense[i]);
		image = open_image(NAME);
		assert_map(image, MAP_PLACE, { 2 * BYTES, EXTENT_DATA, NAME, 16 * SECTOR },
			{ 3 * BYTES, EXTENT_DAMAGED, NULL, 0 }, { 4 * BYTES, EXTENT_ZERO, NULL, 0 },
			FROM_4);
		/* Damaged is occupied. */
		assert_map(image, MAP_KIND, { 3 * BYTES, EXTENT_DATA, NULL, 0 },
			{ 4 * BYTES, EXTENT_ZERO, NULL, 0 }, { 6 * BYTES, EXTENT_DATA, NULL, 0 },
			{ 8 * BYTES, EXTENT_ZERO, NULL, 0 }, { SIZE, EXTENT_DATA, NULL, 0 });
		image_unref(image);
	}
}

/* The file ends inside the last grain of the disk: legal. Inside another one: damage. */
static void cut_short(void **state)
{
	(void)state;
	make_sparse(text);
	store_truncate(NAME, 51 * SECTOR);
	assert_places(NAME, BEFORE_4, FROM_4);
	store_truncate(NAME, 49 * SECTOR + 7);
	assert_places(NAME, BEFORE_4, { 5 * BYTES, EXTENT_DATA, NAME, 40 * SECTOR },
		{ 6 * BYTES, EXTENT_DATA, NAME, 32 * SECTOR }, { 8 * BYTES, EXTENT_ZERO, NULL, 0 },
		{ 8 * BYTES + SECTOR + 7, EXTENT_DATA, NAME, 48 * SECTOR },
		{ SIZE, EXTENT_ZERO, NULL, 0 });
	store_truncate(NAME, 48 * SECTOR);
	assert_places(NAME, BEFORE_4, { 5 * BYTES, EXTENT_DATA, NAME, 40 * SECTOR },
		{ 6 * BYTES, EXTENT_DATA, NAME, 32 * SECTOR }, { 8 * BYTES, EXTENT_ZERO, NULL, 0 },
		{ SIZE, EXTENT_DAMAGED, NULL, 0 });
	store_truncate(NAME, 42 * SECTOR);
	assert_places(NAME, BEFORE_4, { 4 * BYTES + 2 * SECTOR, EXTENT_DATA, NAME, 40 * SECTOR },
		{ 5 * BYTES, EXTENT_DAMAGED, NULL, 0 },
		{ 6 * BYTES, EXTENT_DATA, NAME, 32 * SECTOR }, { 8 * BYTES, EXTENT_ZERO, NULL, 0 },
		{ SIZE, EXTENT_DAMAGED, NULL, 0 });
	store_truncate(NAME, OVERHEAD * SECTOR - 1);
	assert_refused(NAME, -EINVAL, "cut short");
}

static void bad_headers(void **state)
{
	static const struct {
		uint64_t offset;
		size_t width;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ 0, 4, 0x766d646b, -EINVAL, "not finished" },
		{ 0, 4, 0x12345678, -EINVAL, "does not begin like" },
		{ 4, 4, 0, -ENOTSUP, "version 0" },
		{ 4, 4, 4, -ENOTSUP, "version 4" },
		{ 8, 4, 0x40003, -ENOTSUP, "flags that are not known" },
		{ 8, 4, 0x10003, -EINVAL, "contradicts itself about compression" },
		{ 8, 4, 0x20003, -EINVAL, "contradicts itself about compression" },
		{ 12, 8, 1ull << 54, -EINVAL, "beyond 2^63" },
		{ 12, 8, UINT64_MAX, -EINVAL, "beyond 2^63" },
		{ 12, 8, 1ull << 40, -ENOTSUP, "larger than 32 MiB" },
		{ 12, 8, 1ull << 20, -EINVAL, "directory is not inside the file" },
		{ 20, 8, 0, -EINVAL, "grains have 0 sectors" },
		{ 20, 8, 12, -EINVAL, "grains have 12 sectors" },
		{ 20, 8, 0x400000, -EINVAL, "grains have 4194304 sectors" },
		{ 20, 8, 1ull << 63, -EINVAL, "grains have" },
		{ 28, 8, 0, -ENOTSUP, "an extent of a split disk" },
		{ 28, 8, 1000, -EINVAL, "descriptor is not inside the file" },
		{ 28, 8, UINT64_MAX, -EINVAL, "descriptor is not inside the file" },
		{ 28, 8, 20, -EINVAL, "its descriptor: line 1" },
		{ 36, 8, 0, -ENOTSUP, "an extent of a split disk" },
		{ 36, 8, 56, -EINVAL, "descriptor is not inside the file" },
		{ 36, 8, 2049, -EINVAL, "larger than 1024 KiB" },
		{ 36, 8, UINT64_MAX, -EINVAL, "descriptor is not inside the file" },
		{ 44, 4, 0, -EINVAL, "tables have 0 entries" },
		{ 44, 4, 5, -EINVAL, "tables have 5 entries" },
		{ 44, 4, 1024, -EINVAL, "tables have 1024 entries" },
		{ 56, 8, 0, -EINVAL, "directory is not inside the file" },
		{ 56, 8, 56, -EINVAL, "directory is not inside the file" },
		{ 56, 8, UINT64_MAX - 1, -EINVAL, "directory is not inside the file" },
		{ 56, 8, UINT64_MAX, -EINVAL, "does not end with a footer" },
		{ 64, 8, 57, -EINVAL, "cut short" },
		{ 64, 8, UINT64_MAX, -EINVAL, "cut short" },
		{ 73, 1, '\r', -EINVAL, "newline bytes" },
		{ 76, 1, 0, -EINVAL, "newline bytes" },
		{ 77, 2, 1, -EINVAL, "contradicts itself about compression" },
		{ 77, 2, 2, -ENOTSUP, "compression (2) is not known" },
		{ TEXT * SECTOR, 1, 0, -ENOTSUP, "an extent of a split disk" },
		{ TEXT * SECTOR, 1, 'x', -EINVAL, "its descriptor: line 1" },
		{ DIRECTORY * SECTOR + 4, 4, 56, -EINVAL, "entry 1 of its grain directory, 0x38" },
		{ DIRECTORY * SECTOR + 8, 4, 0xffffffff, -EINVAL,
			"entry 2 of its grain directory" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_sparse(text);
		store_poke_number(NAME, cases[i].offset, cases[i].width, cases[i].value);
		assert_refused(NAME, cases[i].err, cases[i].reason);
	}
	make_sparse(text);
	store_truncate(NAME, 511);
	assert_refused(NAME, -EINVAL, "too short");
}

/* One table in all entries of the directory would make any disk out of a small file. */
static void overlapping_tables(void **state)
{
	(void)state;
	make_sparse(text);
	put_le32(file + 44, 512);
	for (unsigned tables = 14; tables <= 15; tables++) {
		put_le64(file + 12, tables * 512u * GRAIN);
		for (unsigned i = 0; i < tables; i++)
			put_le32(file + DIRECTORY * SECTOR + i * 4, TABLES);
		store_write(NAME, file, 56 * SECTOR);
		if (tables * 2048 <= 56 * SECTOR)
			image_unref(open_image(NAME));
		else
			assert_refused(NAME, -EINVAL, "tables overlap");
	}
}

/* Entries past the end of the disk, the second directory and the like are not looked at. */
static void what_is_not_needed(void **state)
{
	static const struct {
		uint64_t offset;
		size_t width;
		uint64_t value;
	} cases[] = {
		{ 8, 4, 3 | 0x8000 },  /* a flag of the lower half */
		{ 48, 8, UINT64_MAX }, /* redundant directory */
		{ 72, 1, 1 },          /* unclean shutdown */
		{ 79, 8, UINT64_MAX },
		{ DIRECTORY * SECTOR + 12, 4, 0xffffffff },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_sparse(text);
		store_poke_number(NAME, cases[i].offset, cases[i].width, cases[i].value);
		assert_places(NAME, BEFORE_4, FROM_4);
	}
}

static void versions_and_descriptors(void **state)
{
	struct image *image;

	(void)state;
	for (unsigned version = 1; version <= 3; version++) {
		make_sparse(text);
		store_poke_number(NAME, 4, 4, version);
		assert_places(NAME, BEFORE_4, FROM_4);
	}
	/* The descriptor is where the header says. */
	make_sparse(text);
	memset(file + TEXT * SECTOR, 'x', SECTOR);
	memcpy(file + 2 * SECTOR, text, sizeof(text));
	put_le64(file + 28, 2);
	put_le64(file + 36, 3);
	store_write(NAME, file, 56 * SECTOR);
	image = open_image(NAME);
	assert_false(image_is_standalone(image)); /* for QEMU it is elsewhere */
	assert_map(image, MAP_PLACE, BEFORE_4, FROM_4);
	image_unref(image);
}

/* Readers see different things in these, so they are translated and not handed out. */
static void not_standalone(void **state)
{
	static const char *const texts[] = {
		"version=1\nCID=1\ncreateType=\"twoGbMaxExtentSparse\"\nRW 67 SPARSE \"d.vmdk\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 66 SPARSE \"d.vmdk\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 67 FLAT \"d.vmdk\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 60 SPARSE \"d.vmdk\"\nRW 7 "
		"ZERO\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRDONLY 67 SPARSE \"d.vmdk\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 67 SPARSE \"d.vmdk\"\n"
		"changeTrackPath=\"d-ctk.vmdk\"\n",
		"version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 67 SPARSE \"d.vmdk\"\n"
		"# parentFileNameHint=\"/etc/passwd\"\n",
	};
	struct image *image;

	(void)state;
	for (size_t i = 0; i < COUNT(texts); i++) {
		make_sparse(texts[i]);
		image = open_image(NAME);
		assert_false(image_is_standalone(image));
		assert_map(image, MAP_PLACE, BEFORE_4, FROM_4);
		image_unref(image);
	}
	/* A name behind the end of the text, for those who search all of the start. */
	make_sparse(text);
	store_poke(NAME, 15 * SECTOR, "parentFileNameHint=\"x\"", 22);
	image = open_image(NAME);
	assert_false(image_is_standalone(image));
	image_unref(image);
	/* Without the newline bytes, and without the flag that promises them. */
	make_sparse(text);
	store_poke_number(NAME, 8, 4, 2);
	store_poke_number(NAME, 73, 4, 0);
	image = open_image(NAME);
	assert_false(image_is_standalone(image));
	image_unref(image);
}

static void encrypted(void **state)
{
	(void)state;
	make_sparse("version=1\nCID=1\ncreateType=\"monolithicSparse\"\nRW 67 SPARSE \"d.vmdk\"\n"
		    "encryptionKeys=\"vmware:key/list/x\"\n");
	assert_refused(NAME, -ENOTSUP, "encrypted");
}

/* ---- streamOptimized ---- */

#define STREAM_FLAGS 0x30001u

static const char stream_text[] = "# Disk DescriptorFile\nversion=1\nCID=11111111\n"
				  "parentCID=ffffffff\ncreateType=\"streamOptimized\"\n"
				  "RW 67 SPARSE \"" NAME "\"\n";

static uint32_t adler32_of(const uint8_t *p, size_t length)
{
	uint32_t a = 1, b = 0;

	for (size_t i = 0; i < length; i++) {
		a = (a + p[i]) % 65521;
		b = (b + a) % 65521;
	}
	return b << 16 | a;
}

/* A grain of one byte value in one stored block, zlib's header before and its sum behind it. */
static void put_packed(unsigned sector, uint64_t lba, int value, uint16_t length)
{
	uint8_t *p = file + sector * SECTOR;

	put_le64(p, lba);
	put_le32(p + 8, 2 + 5 + length + 4u);
	memcpy(p + 12, "\x78\x01\x01", 3);
	put_le16(p + 15, length);
	put_le16(p + 17, (uint16_t)~length);
	memset(p + 19, value, length);
	put_be32(p + 19 + length, adler32_of(p + 19, length));
}

/*
 * Grains 0, 3 (zeros), and 8, whose stream ends with the disk. Tables behind the grains, then
 * directory, footer and end of stream: 45 sectors.
 */
static void make_stream(void)
{
	memset(file, 0, sizeof(file));
	put_header(file, 3, STREAM_FLAGS, UINT64_MAX);
	memcpy(file + TEXT * SECTOR, stream_text, sizeof(stream_text));
	put_packed(16, 0, 'a', BYTES);
	put_packed(25, 64, 'b', 3 * SECTOR);
	fill_tables(36, 32);
	put_le32(file + 32 * SECTOR, 16);
	put_le32(file + 32 * SECTOR + 12, 1);
	put_le32(file + 34 * SECTOR, 25);
	put_le64(file + 42 * SECTOR, 1);
	put_le32(file + 42 * SECTOR + 12, 3);
	put_header(file + 43 * SECTOR, 3, STREAM_FLAGS, 36);
	store_write(NAME, file, 45 * SECTOR);
}

#define STREAM_MIDDLE                           \
	{                                       \
		8 * BYTES, EXTENT_ZERO, NULL, 0 \
	}
#define STREAM_FIRST                                         \
	{                                                    \
		BYTES, EXTENT_PACKED, NAME, 16 * SECTOR + 12 \
	}
#define STREAM_LAST                                         \
	{                                                   \
		SIZE, EXTENT_PACKED, NAME, 25 * SECTOR + 12 \
	}

static void stream(void **state)
{
	struct image *image;
	struct unit_view unit;
	struct extent e;

	(void)state;
	make_stream();
	image = open_image(NAME);
	assert_int_equal(image_size(image), SIZE);
	assert_true(image_is_standalone(image));
	assert_map(image, MAP_PLACE, STREAM_FIRST, STREAM_MIDDLE, STREAM_LAST);
	assert_map(image, MAP_KIND, { BYTES, EXTENT_DATA, NULL, 0 }, STREAM_MIDDLE,
		{ SIZE, EXTENT_DATA, NULL, 0 });

	assert_int_equal(image_map(image, 100, 10, MAP_PLACE, &e), 0);
	assert_int_equal(e.skip, 100);
	assert_int_equal(e.unit, BYTES);
	assert_int_equal(e.need, BYTES);
	assert_int_equal(e.packed_length, BYTES + 11);
	assert_int_equal(e.codec, CODEC_ZLIB);
	assert_int_equal(image_unit_get(image, &e, &unit), 0);
	for (size_t i = 0; i < BYTES; i++)
		assert_int_equal(unit.bytes[i], 'a');
	image_unit_put(image, &unit);

	assert_int_equal(image_map(image, 8 * BYTES, SIZE - 8 * BYTES, MAP_PLACE, &e), 0);
	assert_int_equal(e.need, 3 * SECTOR);
	assert_int_equal(image_unit_get(image, &e, &unit), 0);
	for (size_t i = 0; i < 3 * SECTOR; i++)
		assert_int_equal(unit.bytes[i], 'b');
	image_unit_put(image, &unit);
	image_unref(image);
}

static void damaged_grains(void **state)
{
	static const struct {
		uint64_t offset;
		size_t width;
		uint64_t value;
	} cases[] = {
		{ 16 * SECTOR, 8, 8 }, /* another grain's */
		{ 16 * SECTOR + 8, 4, 0 }, { 16 * SECTOR + 8, 4, 2 * BYTES + 1 },
		{ 16 * SECTOR + 8, 4, 0xffffffff }, { 32 * SECTOR, 4, 17 }, { 32 * SECTOR, 4, 25 },
		{ 32 * SECTOR, 4, 45 }, { 32 * SECTOR, 4, 0xffffffff },
		{ 32 * SECTOR, 4, 2 }, /* before the first grain */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_stream();
		store_poke_number(NAME, cases[i].offset, cases[i].width, cases[i].value);
		assert_places(NAME, { BYTES, EXTENT_DAMAGED, NULL, 0 }, STREAM_MIDDLE, STREAM_LAST);
	}
}

static void bad_sum(void **state)
{
	struct unit_view unit;
	struct image *image;
	struct extent e;

	(void)state;
	make_stream();
	store_poke_number(NAME, 16 * SECTOR + 12 + BYTES + 7, 1, 0x55);
	image = open_image(NAME);
	assert_int_equal(image_map(image, 0, BYTES, MAP_PLACE, &e), 0);
	assert_int_equal(image_unit_get(image, &e, &unit), -EIO);
	image_unref(image);
}

/* Tables before the grains, as some writers have them: there is no footer, and no more either. */
static void stream_without_footer(void **state)
{
	(void)state;
	make_stream();
	put_le64(file + 56, 36);
	store_write(NAME, file, 40 * SECTOR);
	assert_places(NAME, STREAM_FIRST, STREAM_MIDDLE, STREAM_LAST);
	/* The last record loses its last byte: no longer a stream. */
	fill_tables(DIRECTORY, TABLES);
	put_le64(file + 56, DIRECTORY);
	set_grain(0, 16);
	set_grain(8, 25);
	store_write(NAME, file, 25 * SECTOR + 12 + 3 * SECTOR + 11);
	assert_places(NAME, STREAM_FIRST, STREAM_MIDDLE, STREAM_LAST);
	store_truncate(NAME, 25 * SECTOR + 12 + 3 * SECTOR + 10);
	assert_places(NAME, STREAM_FIRST, STREAM_MIDDLE, { SIZE, EXTENT_DAMAGED, NULL, 0 });
}

static void padded_stream(void **state)
{
	static const uint64_t sizes[] = { 44 * SECTOR, 45 * SECTOR + 100, 46 * SECTOR,
		45 * SECTOR + (1u << 20) - 2 * SECTOR };
	struct image *image;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		make_stream();
		store_truncate(NAME, sizes[i]);
		image = open_image(NAME);
		assert_false(image_is_standalone(image)); /* QEMU wants the footer at the end */
		assert_map(image, MAP_PLACE, STREAM_FIRST, STREAM_MIDDLE, STREAM_LAST);
		image_unref(image);
	}
	make_stream();
	store_truncate(NAME, 45 * SECTOR + (2u << 20));
	assert_refused(NAME, -EINVAL, "no footer before the zeros");
	store_truncate(NAME, 43 * SECTOR);
	assert_refused(NAME, -EINVAL, "does not end with a footer");
}

/* Where header and footer differ, the footer was written later. Not all readers know that. */
static void footer_wins(void **state)
{
	struct image *image;

	(void)state;
	for (unsigned capacity = 0; capacity <= 66; capacity += 66) {
		make_stream();
		store_poke_number(NAME, 12, 8, capacity);
		image = open_image(NAME);
		assert_false(image_is_standalone(image));
		assert_map(image, MAP_PLACE, STREAM_FIRST, STREAM_MIDDLE, STREAM_LAST);
		image_unref(image);
	}
}

static void bad_footers(void **state)
{
	static const struct {
		uint64_t offset;
		size_t width;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ 42 * SECTOR, 8, 2, -EINVAL, "does not end with a footer" },
		{ 42 * SECTOR + 8, 4, 1, -EINVAL, "does not end with a footer" },
		{ 42 * SECTOR + 12, 4, 2, -EINVAL, "does not end with a footer" },
		{ 44 * SECTOR, 1, 1, -EINVAL, "does not end with a footer" },
		{ 43 * SECTOR, 4, 1, -EINVAL, "its footer: it does not begin" },
		{ 43 * SECTOR + 4, 4, 9, -ENOTSUP,
			"its footer: hosted sparse extents of version 9" },
		{ 43 * SECTOR + 56, 8, UINT64_MAX, -EINVAL, "its footer: it does not say" },
		{ 43 * SECTOR + 56, 8, 45, -EINVAL, "directory is not inside the file" },
		{ 43 * SECTOR + 12, 8, 0, -EINVAL,
			"its footer: it says that there is no capacity" },
		{ 43 * SECTOR + 20, 8, 0x10000, -ENOTSUP, "larger than 16 MiB" },
		{ 43 * SECTOR + 8, 4, 0x10001, -EINVAL, "contradicts itself" },
		{ 36 * SECTOR, 4, 45, -EINVAL, "entry 0 of its grain directory" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_stream();
		store_poke_number(NAME, cases[i].offset, cases[i].width, cases[i].value);
		assert_refused(NAME, cases[i].err, cases[i].reason);
	}
	/* Nothing but zeros, and shorter than a footer. */
	memset(file, 0, sizeof(file));
	put_header(file, 3, STREAM_FLAGS, UINT64_MAX);
	store_write(NAME, file, SECTOR);
	assert_refused(NAME, -EINVAL, "does not end with a footer");
}

/* ---- every byte ---- */

/* All that the reader looks at, changed byte by byte: never a crash, never a map that lies. */
static void mutations(void **state)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0xff };
	size_t opened = 0, refused = 0;

	(void)state;
	make_sparse(text);
	for (uint64_t at = 0; at < 9 * SECTOR; at += at < 80 || at >= DIRECTORY * SECTOR ? 1 : 7) {
		for (size_t i = 0; i < COUNT(values); i++) {
			uint8_t was = file[at];

			if (was == values[i] || (at >= DIRECTORY * SECTOR && at % SECTOR > 16))
				continue;
			store_poke(NAME, at, &values[i], 1);
			if (survives(NAME))
				opened++;
			else
				refused++;
			store_poke(NAME, at, &was, 1);
		}
	}
	assert_true(opened > 100 && refused > 100);
}

static void probes(void **state)
{
	const struct image_format *format = image_format_by_name("vmdk");
	static const struct {
		const char *head;
		size_t length;
		int score;
	} cases[] = {
		{ "KDMV\1\0\0\0", 8, 100 },
		{ "kdmv\1\0\0\0", 8, 100 },
		{ "COWD\1\0\0\0", 8, 100 },
		{ "\xbe\xba\xfe\xca\0\0\0\0", 8, 100 },
		{ "# Disk DescriptorFile\n", 22, 100 },
		{ "version=1\n", 10, 100 },
		{ "KDMV", 4, 0 },
		{ "COWDUNG!", 8, 0 },
		{ "\xbe\xba\xfe\xca\0\0\0\1", 8, 0 },
		{ "VMDK\1\0\0\0", 8, 0 },
		{ "just some text\n", 15, 0 },
		{ "", 0, 0 },
	};

	(void)state;
	assert_non_null(format);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct probe probe = {
			.head = (const uint8_t *)cases[i].head,
			.head_length = cases[i].length,
			.size = cases[i].length,
		};

		assert_int_equal(format->probe(&probe), cases[i].score);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(sparse),
		TEST(inside_of_a_grain),
		TEST(absent_tables),
		TEST(damaged_entries),
		TEST(cut_short),
		TEST(bad_headers),
		TEST(overlapping_tables),
		TEST(what_is_not_needed),
		TEST(versions_and_descriptors),
		TEST(not_standalone),
		TEST(encrypted),
		TEST(stream),
		TEST(damaged_grains),
		TEST(bad_sum),
		TEST(stream_without_footer),
		TEST(padded_stream),
		TEST(footer_wins),
		TEST(bad_footers),
		TEST(mutations),
		TEST(probes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
