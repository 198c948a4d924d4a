/* SPDX-License-Identifier: Apache-2.0 */
/* VHDX sources made byte by byte: headers, regions, metadata, the BAT, bitmaps and parents. */
#include "vhdx_image.h"

#define PRESENT(mib) ((uint64_t)(mib) << 20 | 6)
#define PARTIAL(mib) ((uint64_t)(mib) << 20 | 7)

static void checksum(void **state)
{
	uint8_t zeros[32] = { 0 };

	(void)state;
	/* RFC 3720, B.4, and the check value that every catalogue of CRCs has. */
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, zeros, sizeof(zeros)), 0x8a9136aa);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(crc32c(0, "", 0), 0);
}

/* ---- maps ---- */

static void dynamic(void **state)
{
	const struct vhdx_of d = {
		.size = 7 * MIB - 512,
		.bat = { PRESENT(5), PRESENT(6), 0, 1, 2, 3, PRESENT(4) },
	};
	struct image *image;

	(void)state;
	make_vhdx("d.vhdx", &d);
	image = open_image("d.vhdx");
	assert_int_equal(image_size(image), 7 * MIB - 512);
	assert_true(image_is_standalone(image));
	assert_string_equal(image_variant(image), "dynamic");
	assert_map(image, MAP_PLACE, { 2 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB },
		{ 6 * MIB, EXTENT_ZERO, NULL, 0 },
		{ 7 * MIB - 512, EXTENT_DATA, "d.vhdx", 4 * MIB });
	assert_map(image, MAP_KIND, { 2 * MIB, EXTENT_DATA, NULL, 0 },
		{ 6 * MIB, EXTENT_ZERO, NULL, 0 }, { 7 * MIB - 512, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

static void fixed(void **state)
{
	const struct vhdx_of d = { .size = 2 * MIB, .flags = 1, .bat = { PRESENT(5), PRESENT(4) } };
	struct image *image;

	(void)state;
	make_vhdx("d.vhdx", &d);
	image = open_image("d.vhdx");
	assert_string_equal(image_variant(image), "fixed");
	assert_map(image, MAP_PLACE, { MIB, EXTENT_DATA, "d.vhdx", 5 * MIB },
		{ 2 * MIB, EXTENT_DATA, "d.vhdx", 4 * MIB });
	image_unref(image);
}

/* Entries that are nonsense, and blocks that are not in the file. */
static void damage(void **state)
{
	static const uint64_t nonsense[] = {
		PRESENT(6) | 8,       /* reserved bits */
		PRESENT(6) | 1 << 19, /* the last of them */
		8,                    /* the same where nothing is */
		4,                    /* a reserved state */
		6 << 20 | 4,
		PARTIAL(6),  /* of a file without a parent */
		6,           /* at 0: no block */
		PRESENT(1),  /* the log */
		PRESENT(2),  /* the BAT */
		PRESENT(3),  /* the metadata */
		PRESENT(12), /* at the end */
		PRESENT(1ull << 43),
		~7ull | 6,
	};
	struct vhdx_of d = { .size = 3 * MIB, .bat = { PRESENT(4), 0, PRESENT(5) } };

	(void)state;
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		d.bat[1] = nonsense[i];
		make_vhdx("d.vhdx", &d);
		assert_places("d.vhdx", { MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
			{ 2 * MIB, EXTENT_DAMAGED, NULL, 0 },
			{ 3 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB });
	}
	/* The file ends inside a block. */
	d.bat[1] = PRESENT(6);
	d.file_size = 6 * MIB + 700;
	make_vhdx("d.vhdx", &d);
	assert_places("d.vhdx", { MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ MIB + 700, EXTENT_DATA, "d.vhdx", 6 * MIB }, { 2 * MIB, EXTENT_DAMAGED, NULL, 0 },
		{ 3 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB });
	/* What the disk does not have need not be there. */
	d.size = 2 * MIB - 512;
	d.file_size = 7 * MIB - 512;
	make_vhdx("d.vhdx", &d);
	assert_places("d.vhdx", { MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 2 * MIB - 512, EXTENT_DATA, "d.vhdx", 6 * MIB });
}

/* A block of 2 MiB at 1 MiB before a region reaches into it. */
static void overlap(void **state)
{
	const struct vhdx_of d = {
		.size = 4 * MIB, .block = 2 * MIB, .bat = { PRESENT(4), PRESENT(10) }
	};

	(void)state;
	make_vhdx("d.vhdx", &d);
	assert_places("d.vhdx", { 2 * MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 4 * MIB, EXTENT_DATA, "d.vhdx", 10 * MIB });
	/* The metadata are at 11 MiB, a copy of those at 3 MiB. */
	vhdx_metadata("d.vhdx", &d);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t table = i ? TABLE_2 : TABLE_1;
		uint8_t copy[128 * KIB];
		int fd = store_open("d.vhdx", O_RDONLY);

		assert_int_equal(pread(fd, copy, sizeof(copy), METADATA), sizeof(copy));
		close(fd);
		store_poke("d.vhdx", 11 * MIB, copy, sizeof(copy));
		store_poke_number("d.vhdx", table + 64, 8, 11 * MIB);
		vhdx_seal("d.vhdx", table, 64 * KIB);
	}
	assert_places("d.vhdx", { 2 * MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 4 * MIB, EXTENT_DAMAGED, NULL, 0 });
}

/*
 * With blocks of 256 MiB a chunk is 16 blocks and an entry more: of the bitmap block, which means
 * nothing here.
 */
static void chunks(void **state)
{
	const struct vhdx_of d = {
		.size = 19 * 256 * MIB,
		.block = 256 << 20,
		.file_size = 900 * MIB,
	};
	struct image *image;

	(void)state;
	make_vhdx("d.vhdx", &d);
	store_poke_number("d.vhdx", BAT + 8 * 15, 8, PRESENT(4));
	store_poke_number("d.vhdx", BAT + 8 * 16, 8, 0xfffffffffffffffful); /* a bitmap's */
	store_poke_number("d.vhdx", BAT + 8 * 17, 8, PRESENT(260));
	store_poke_number("d.vhdx", BAT + 8 * 19, 8, PRESENT(516));
	image = open_image("d.vhdx");
	assert_map(image, MAP_PLACE, { 15 * 256 * MIB, EXTENT_ZERO, NULL, 0 },
		{ 17 * 256 * MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 18 * 256 * MIB, EXTENT_ZERO, NULL, 0 },
		{ 19 * 256 * MIB, EXTENT_DATA, "d.vhdx", 516 * MIB });
	image_unref(image);
}

/* Most of the entries are passed over many at a time; none may be lost. */
static void long_table(void **state)
{
	const struct vhdx_of d = { .size = 100000 * MIB };
	static const uint64_t places[] = { 1, 31, 32, 33, 63, 64, 2047, 2048, 4095, 4096, 4097,
		8191, 8192, 50000, 99999 };

	(void)state;
	for (size_t i = 0; i < COUNT(places); i++) {
		uint64_t entry = places[i] + places[i] / 4096;
		struct image *image;
		struct extent e;

		make_vhdx("d.vhdx", &d);
		/* 4096 blocks and their bitmap */
		store_poke_number("d.vhdx", BAT + 8 * entry, 8, PRESENT(5));
		for (int detail = MAP_PLACE; detail <= MAP_KIND; detail++) {
			image = open_image("d.vhdx");
			assert_int_equal(
				image_map(image, 0, image_size(image), (enum map_detail)detail, &e),
				0);
			assert_int_equal(e.kind, EXTENT_ZERO);
			assert_int_equal(e.end, places[i] * MIB);
			assert_int_equal(image_map(image, e.end, image_size(image) - e.end,
						 (enum map_detail)detail, &e),
				0);
			assert_int_equal(e.kind, EXTENT_DATA);
			assert_int_equal(e.end, (places[i] + 1) * MIB);
			image_unref(image);
		}
	}
}

/* ---- headers ---- */

static void which_header(void **state)
{
	const struct vhdx_of d = { .size = MIB, .bat = { PRESENT(4) } };
	static const struct {
		uint64_t first, second;
		int broken; /* bit 0 the first, bit 1 the second */
		int err;    /* where the log of the first one is unknown */
	} cases[] = {
		{ 5, 6, 0, 0 },
		{ 6, 5, 0, -ENOTSUP },
		{ 6, 5, 1, 0 },
		{ 5, 6, 2, -ENOTSUP },
		{ 1ull << 63, 6, 0, -ENOTSUP },
		{ 5, 1ull << 63, 0, 0 },
		{ 5, 5, 0, -EINVAL }, /* and they differ */
		{ 5, 5, 1, 0 },
		{ 5, 6, 3, -EINVAL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_vhdx("d.vhdx", &d);
		vhdx_header("d.vhdx", HEADER_1, cases[i].first, NULL);
		store_poke_number("d.vhdx", HEADER_1 + 66, 2, 2);
		vhdx_seal("d.vhdx", HEADER_1, PAGE);
		vhdx_header("d.vhdx", HEADER_2, cases[i].second, NULL);
		if (cases[i].broken & 1)
			store_poke("d.vhdx", HEADER_1 + 4095, "x", 1);
		if (cases[i].broken & 2)
			store_poke("d.vhdx", HEADER_2 + 4095, "x", 1);
		if (cases[i].err == 0)
			image_unref(open_image("d.vhdx"));
		else
			assert_refused("d.vhdx", cases[i].err,
				cases[i].err == -ENOTSUP ? "VHDX version 2"
				: cases[i].broken        ? "neither of its headers"
							 : "neither is newer");
	}
	/* Equal from the first byte to the last: as good as one. */
	make_vhdx("d.vhdx", &d);
	vhdx_header("d.vhdx", HEADER_1, 6, NULL);
	image_unref(open_image("d.vhdx"));
}

/* Numbers that are wrong under a checksum that is right. */
static void bad_numbers(void **state)
{
	static const struct {
		uint64_t at;
		uint64_t sealed; /* the structure whose checksum is made anew; 0: none */
		size_t width;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ HEADER_2 + 66, HEADER_2, 2, 0, -ENOTSUP, "VHDX version 0" },
		{ HEADER_2 + 72, HEADER_2, 8, 12 * MIB, -EINVAL, "its log lies outside" },
		{ HEADER_2 + 72, HEADER_2, 8, MIB + 4096, -EINVAL, "its log lies outside" },
		{ HEADER_2 + 72, HEADER_2, 8, 0, -EINVAL, "its log lies outside" },
		{ HEADER_2 + 72, HEADER_2, 8, UINT64_MAX - MIB + 1, -EINVAL, "its log lies" },
		{ HEADER_2 + 68, HEADER_2, 4, 12 * MIB, -EINVAL, "its log lies outside" },
		{ HEADER_2 + 68, HEADER_2, 4, 4096, -EINVAL, "its log lies outside" },
		{ HEADER_2 + 68, HEADER_2, 4, 2 * MIB, -EINVAL, "regions overlap" },
		{ TABLE_1 + 8, TABLE_1, 4, 2048, -EINVAL, "too many entries" },
		{ TABLE_1 + 8, TABLE_1, 4, 0, -EINVAL, "no block allocation table" },
		{ TABLE_1 + 8, TABLE_1, 4, 1, -EINVAL, "no metadata region" },
		{ TABLE_1 + 16, TABLE_1, 1, 0x67, -ENOTSUP, "a region of a kind that is unknown" },
		{ TABLE_1 + 32, TABLE_1, 8, 12 * MIB, -EINVAL, "table lies outside the file" },
		{ TABLE_1 + 32, TABLE_1, 8, 2 * MIB + 8, -EINVAL, "table lies outside the file" },
		{ TABLE_1 + 32, TABLE_1, 8, 0, -EINVAL, "table lies outside the file" },
		{ TABLE_1 + 32, TABLE_1, 8, METADATA, -EINVAL, "regions overlap" },
		{ TABLE_1 + 32, TABLE_1, 8, LOG, -EINVAL, "regions overlap" },
		{ TABLE_1 + 40, TABLE_1, 4, 0, -EINVAL, "table lies outside the file" },
		{ TABLE_1 + 40, TABLE_1, 4, 8, -EINVAL, "table lies outside the file" },
		{ TABLE_1 + 64, TABLE_1, 8, 12 * MIB, -EINVAL, "region lies outside the file" },
		{ METADATA, 0, 1, 'M', -EINVAL, "does not begin like one" },
		{ METADATA + 10, 0, 2, 2048, -EINVAL, "does not begin like one" },
		{ METADATA + 10, 0, 2, 4, -EINVAL, "no physical sector size" },
		{ METADATA + 32 + 16, 0, 4, 0, -EINVAL, "file parameters does not fit" },
		{ METADATA + 32 + 16, 0, 4, MIB - 4, -EINVAL, "file parameters does not fit" },
		{ METADATA + 32 + 16, 0, 4, UINT32_MAX, -EINVAL, "file parameters does not fit" },
		{ METADATA + 32 + 20, 0, 4, 4, -EINVAL, "file parameters does not fit" },
		{ METADATA + 32 + 20, 0, 4, UINT32_MAX, -EINVAL, "file parameters does not fit" },
		{ METADATA + 32 + 24, 0, 4, 5, -ENOTSUP,
			"metadata item of a kind that is unknown" },
		{ METADATA + 32 + 24, 0, 4, 1, -EINVAL, "no file parameters" },
		{ METADATA + 64, 0, 1, 0, -ENOTSUP, "metadata item of a kind that is unknown" },
		{ ITEMS, 0, 4, 512 * KIB, -EINVAL, "blocks of 524288 bytes" },
		{ ITEMS, 0, 4, 3 * MIB, -EINVAL, "blocks of 3145728 bytes" },
		{ ITEMS, 0, 4, 512 * MIB, -EINVAL, "blocks of 536870912 bytes" },
		{ ITEMS, 0, 4, 0, -EINVAL, "blocks of 0 bytes" },
		{ ITEMS + 4, 0, 4, 2, -EINVAL, "does not name it" },
		{ ITEMS + ITEM_SIZE, 0, 8, MIB + 1, -EINVAL, "not a number of its sectors" },
		{ ITEMS + ITEM_SIZE, 0, 8, 64 * TIB + 512, -EINVAL, "beyond 64 TiB" },
		{ ITEMS + ITEM_SIZE, 0, 8, UINT64_MAX - 511, -EINVAL, "beyond 64 TiB" },
		{ ITEMS + ITEM_SIZE, 0, 8, 131042 * MIB, -EINVAL, "too small for its size" },
		{ ITEMS + ITEM_LOGICAL, 0, 4, 1024, -EINVAL, "logical sectors have 1024" },
		{ ITEMS + ITEM_LOGICAL, 0, 4, 0, -EINVAL, "logical sectors have 0" },
		{ ITEMS + 36, 0, 4, 0, -EINVAL, "physical sectors have 0" },
	};
	const struct vhdx_of d = { .size = MIB, .bat = { PRESENT(4) } };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_vhdx("d.vhdx", &d);
		store_poke_number("d.vhdx", cases[i].at, cases[i].width, cases[i].value);
		if (cases[i].sealed)
			vhdx_seal("d.vhdx", cases[i].sealed,
				cases[i].sealed == TABLE_1 ? 64 * KIB : PAGE);
		assert_refused("d.vhdx", cases[i].err, cases[i].reason);
	}
	/* The largest disk that this table has entries for. */
	make_vhdx("d.vhdx", &d);
	store_poke_number("d.vhdx", ITEMS + ITEM_SIZE, 8, 131042 * MIB - 512);
	assert_refused("d.vhdx", -EINVAL, "too small for its size");
	store_poke_number("d.vhdx", ITEMS + ITEM_SIZE, 8, 131041 * MIB);
	image_unref(open_image("d.vhdx"));
}

static void cut_short(void **state)
{
	static const struct {
		uint64_t size;
		const char *reason;
	} cases[] = {
		{ 8, "cut short" },
		{ HEADER_2 + PAGE - 1, "cut short" },
		{ TABLE_1, "its log lies outside" },
		{ 2 * MIB, "table lies outside the file" },
		{ 4 * MIB - 1, "region lies outside the file" },
	};
	const struct vhdx_of d = { .size = MIB, .bat = { PRESENT(4) } };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_vhdx("d.vhdx", &d);
		store_truncate("d.vhdx", cases[i].size);
		assert_refused("d.vhdx", -EINVAL, cases[i].reason);
	}
}

static void region_tables(void **state)
{
	const struct vhdx_of d = { .size = MIB, .bat = { PRESENT(4) } };

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		make_vhdx("d.vhdx", &d);
		store_poke("d.vhdx", (i ? TABLE_2 : TABLE_1) + 65535, "x", 1);
		image_unref(open_image("d.vhdx"));
	}
	store_poke("d.vhdx", TABLE_1, "x", 1);
	assert_refused("d.vhdx", -EINVAL, "neither of its region tables");
	/* The same twice; one that nobody knows and nobody must. */
	make_vhdx("d.vhdx", &d);
	store_poke_number("d.vhdx", TABLE_1 + 8, 4, 3);
	store_poke("d.vhdx", TABLE_1 + 80, "nobody knows it!", 16);
	vhdx_seal("d.vhdx", TABLE_1, 64 * KIB);
	image_unref(open_image("d.vhdx"));
	store_poke("d.vhdx", TABLE_1 + 80, BAT_ID, 16);
	vhdx_seal("d.vhdx", TABLE_1, 64 * KIB);
	assert_refused("d.vhdx", -EINVAL, "more than one block allocation table");
}

/* ---- parents ---- */

static uint8_t locator[4096];

/* Pairs of keys and values, in ASCII. Returns the length. */
static uint32_t make_locator(const char *const *pairs, unsigned count)
{
	uint32_t at = 20 + 12 * count;

	memset(locator, 0, sizeof(locator));
	memcpy(locator, "\xb7\xef\x4a\xb0\x9e\xd1\x81\x4a\xb7\x89\x25\xb8\xe9\x44\x59\x13", 16);
	put_le16(locator + 18, (uint16_t)count);
	for (unsigned i = 0; i < 2 * count; i++) {
		uint8_t *entry = locator + 20 + 12 * (i / 2);
		size_t length = strlen(pairs[i]);

		put_le32(entry + 4 * (i % 2), at);
		put_le16(entry + 8 + 2 * (i % 2), (uint16_t)(2 * length));
		for (size_t k = 0; k < length; k++)
			put_le16(locator + at + 2 * k, (uint8_t)pairs[i][k]);
		at += (uint32_t)(2 * length);
	}
	return at;
}

/* DATA_GUID as text: its first three fields are numbers. */
#define LINKAGE "{20656874-6164-6174-2773-206e756d6265}"

static const char *const good_pairs[] = { "parent_linkage", LINKAGE, "relative_path",
	".\\d-base.vhdx" };

static void make_child(const char *const *pairs, unsigned count, const struct vhdx_of *d)
{
	struct vhdx_of child = *d;

	child.flags = 2;
	child.locator = locator;
	child.locator_length = make_locator(pairs, count);
	make_vhdx("d.vhdx", &child);
}

static void make_parent(uint64_t size)
{
	const struct vhdx_of d = { .size = size,
		.bat = { PRESENT(4), PRESENT(5), PRESENT(6), PRESENT(7), PRESENT(8) } };

	make_vhdx("d-base.vhdx", &d);
}

static void differencing(void **state)
{
	const struct vhdx_of d = {
		.size = 5 * MIB,
		.bat = { 0, PARTIAL(5), PRESENT(7), 2, PARTIAL(4) },
	};
	struct image *image;

	(void)state;
	make_parent(4 * MIB);
	make_child(good_pairs, 2, &d);
	/* The bitmap block, at 8 MiB: of block 1 sectors 3 to 64, of block 4 the last one. */
	store_poke_number("d.vhdx", BAT + 8 * 4096, 8, PRESENT(8));
	store_poke("d.vhdx", 8 * MIB + 256, "\xf8\xff\xff\xff\xff\xff\xff\xff\x01", 9);
	store_poke("d.vhdx", 8 * MIB + 5 * 256 - 1, "\x80", 1);
	image = open_image("d.vhdx");
	assert_false(image_is_standalone(image));
	assert_int_equal(image_file_count(image), 2);
	assert_string_equal(image_variant(image), "differencing");
	assert_map(image, MAP_PLACE, { MIB + 3 * 512, EXTENT_DATA, "d-base.vhdx", 4 * MIB },
		{ MIB + 65 * 512, EXTENT_DATA, "d.vhdx", 5 * MIB + 3 * 512 },
		{ 2 * MIB, EXTENT_DATA, "d-base.vhdx", 5 * MIB + 65 * 512 },
		{ 3 * MIB, EXTENT_DATA, "d.vhdx", 7 * MIB },
		/* Zeros, whatever is below; then what the parent is too short for. */
		{ 5 * MIB - 512, EXTENT_ZERO, NULL, 0 },
		{ 5 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB - 512 });
	assert_map(image, MAP_KIND, { 3 * MIB, EXTENT_DATA, NULL, 0 },
		{ 5 * MIB - 512, EXTENT_ZERO, NULL, 0 }, { 5 * MIB, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

/* Sectors of 4096 bytes: a bit is one of those. */
static void large_sectors(void **state)
{
	struct vhdx_of d = { .size = 2 * MIB, .sector = 4096, .bat = { PARTIAL(4), PARTIAL(5) } };
	const struct vhdx_of below = { .size = 2 * MIB, .sector = 4096, .bat = { PRESENT(5) } };

	(void)state;
	make_vhdx("d-base.vhdx", &below);
	make_child(good_pairs, 2, &d);
	store_poke_number("d.vhdx", BAT + 8 * 32768, 8, PRESENT(8));
	store_poke("d.vhdx", 8 * MIB, "\x01", 1);
	store_poke("d.vhdx", 8 * MIB + 32, "\x02", 1);
	assert_places("d.vhdx", { 4096, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ MIB, EXTENT_DATA, "d-base.vhdx", 5 * MIB + 4096 },
		{ MIB + 4096, EXTENT_ZERO, NULL, 0 },
		{ MIB + 8192, EXTENT_DATA, "d.vhdx", 5 * MIB + 4096 },
		{ 2 * MIB, EXTENT_ZERO, NULL, 0 });
	make_parent(2 * MIB);
	assert_refused("d.vhdx", -EINVAL, "sectors of another size");
}

static void bad_bitmaps(void **state)
{
	static const uint64_t nonsense[] = { 0, 6, PRESENT(1), PRESENT(3), PRESENT(12),
		PRESENT(8) | 8, PARTIAL(8), 8 << 20 | 2, 8 << 20 };
	const struct vhdx_of d = { .size = 2 * MIB, .bat = { PARTIAL(4), PRESENT(5) } };

	(void)state;
	make_parent(2 * MIB);
	make_child(good_pairs, 2, &d);
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		store_poke_number("d.vhdx", BAT + 8 * 4096, 8, nonsense[i]);
		assert_places("d.vhdx", { MIB, EXTENT_DAMAGED, NULL, 0 },
			{ 2 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB });
	}
	/* The block of the file ends before the disk does. */
	store_poke_number("d.vhdx", BAT + 8 * 4096, 8, PRESENT(11));
	store_truncate("d.vhdx", 12 * MIB - 1);
	assert_places("d.vhdx", { MIB, EXTENT_DAMAGED, NULL, 0 },
		{ 2 * MIB, EXTENT_DATA, "d.vhdx", 5 * MIB });
}

static void locators(void **state)
{
#define ABSOLUTE "absolute_win32_path", "\\\\?\\d:\\d-base.vhdx"
	static const struct {
		const char *pairs[8];
		unsigned count;
		int err;
		const char *reason;
	} cases[] = {
		{ { "parent_linkage", LINKAGE, "relative_path", "d-base.vhdx" }, 2, 0, NULL },
		{ { "relative_path", ".\\.\\d-base.vhdx", "x", "y", "parent_linkage", LINKAGE }, 3,
			0, NULL },
		{ { "parent_linkage", "{20656874-6164-6174-2773-206E756D6265}", "relative_path",
			  "d-base.vhdx" },
			2, 0, NULL },
		{ { "parent_linkage", "{00656874-6164-6174-2773-206e756d6265}", "parent_linkage2",
			  LINKAGE, "relative_path", "d-base.vhdx" },
			3, 0, NULL },
		{ { "parent_linkage", "{00656874-6164-6174-2773-206e756d6265}", "relative_path",
			  "d-base.vhdx" },
			2, -EINVAL, "modified since" },
		{ { "parent_linkage", "20656874-6164-6174-2773-206e756d6265xx", "relative_path",
			  "d-base.vhdx" },
			2, -EINVAL, "modified since" },
		{ { "relative_path", "d-base.vhdx" }, 1, -EINVAL, "which state of its parent" },
		{ { "parent_linkage", "{2065}", "relative_path", "d-base.vhdx" }, 2, -EINVAL,
			"which state of its parent" },
		{ { "parent_linkage", LINKAGE, ABSOLUTE }, 2, -ENOTSUP, "path of the machine" },
		{ { "parent_linkage", LINKAGE, "Relative_path", "d-base.vhdx" }, 2, -ENOTSUP,
			"path of the machine" },
		{ { "parent_linkage", LINKAGE, "relative_path", "..\\d-base.vhdx" }, 2, -EPERM,
			"" },
		{ { "parent_linkage", LINKAGE, "relative_path", "other.vhdx" }, 2, -EPERM,
			"references=datastore" },
		{ { "parent_linkage", LINKAGE, "relative_path", "d-none.vhdx" }, 2, -ENOENT, "" },
		{ { "parent_linkage", LINKAGE, "relative_path", "d.vhdx" }, 2, -ELOOP, "" },
		{ { "parent_linkage", LINKAGE, "relative_path", "d-base.qcow2" }, 2, -EINVAL,
			"should be vhdx" },
		{ { "parent_linkage", LINKAGE, "relative_path", "" }, 2, -EINVAL, "" },
	};
	const struct vhdx_of d = { .size = 2 * MIB };

	(void)state;
	make_parent(2 * MIB);
	store_text("d-base.qcow2", "no VHDX at all");
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_child(cases[i].pairs, cases[i].count, &d);
		if (cases[i].err)
			assert_refused("d.vhdx", cases[i].err, cases[i].reason);
		else
			assert_places("d.vhdx", { 2 * MIB, EXTENT_DATA, "d-base.vhdx", 4 * MIB });
	}
}

/* Nonsense in the locator itself. */
static void bad_locators(void **state)
{
	static const struct {
		unsigned at, width;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ 0, 1, 0, -ENOTSUP, "not a VHDX file" },
		{ 18, 2, 0, -EINVAL, "which state of its parent" },
		{ 18, 2, 1, -ENOTSUP, "path of the machine" },
		{ 18, 2, 0xffff, 0, NULL },
		{ 20, 4, 0xfffffff0, -EINVAL, "which state of its parent" },
		{ 24, 4, 0xfffffff0, -EINVAL, "which state of its parent" },
		{ 30, 2, 0xffff, -EINVAL, "which state of its parent" },
		{ 36, 4, 0xffffffff, -ENOTSUP, "path of the machine" },
		{ 42, 2, 25, -EINVAL, "not UTF-16" },
		{ 42, 2, 0, -EINVAL, "" },
	};
	const struct vhdx_of d = { .size = 2 * MIB };

	(void)state;
	make_parent(2 * MIB);
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_child(good_pairs, 2, &d);
		store_poke_number("d.vhdx", ITEMS + ITEM_LOCATOR + cases[i].at, cases[i].width,
			cases[i].value);
		if (cases[i].err)
			assert_refused("d.vhdx", cases[i].err, cases[i].reason);
		else
			image_unref(open_image("d.vhdx"));
	}
	make_child(good_pairs, 2, &d);
	store_poke_number("d.vhdx", METADATA + 32 + 5 * 32 + 20, 4, 19);
	assert_refused("d.vhdx", -EINVAL, "locator is cut short");
}

/* ---- whatever the bytes are ---- */

static void nonsense(void **state)
{
	static const uint64_t parts[] = { HEADER_2, TABLE_1, METADATA, ITEMS, BAT, BAT + 8 * 4090,
		8 * MIB };
	const struct vhdx_of d = { .size = 5 * MIB, .bat = { 0, PARTIAL(5), PRESENT(7), 2, 1 } };
	uint64_t random = 5;
	unsigned opened = 0;

	(void)state;
	make_parent(4 * MIB);
	for (unsigned i = 0; i < 1000; i++) {
		make_child(good_pairs, 2, &d);
		store_poke_number("d.vhdx", BAT + 8 * 4096, 8, PRESENT(8));
		for (uint64_t k = random_below(&random, 4); k < 4; k++) {
			uint64_t part = parts[random_below(&random, COUNT(parts))];

			store_poke_number("d.vhdx", part + random_below(&random, 320),
				1 + random_below(&random, 4), mix(random));
		}
		vhdx_seal("d.vhdx", HEADER_2, PAGE);
		vhdx_seal("d.vhdx", TABLE_1, 64 * KIB);
		opened += survives("d.vhdx");
	}
	assert_true(opened > 100 && opened < 950);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(checksum),
		store_test(dynamic),
		store_test(fixed),
		store_test(damage),
		store_test(overlap),
		store_test(chunks),
		store_test(long_table),
		store_test(which_header),
		store_test(bad_numbers),
		store_test(cut_short),
		store_test(region_tables),
		store_test(differencing),
		store_test(large_sectors),
		store_test(bad_bitmaps),
		store_test(locators),
		store_test(bad_locators),
		store_test(nonsense),
	};

	return run_unit_tests(tests);
}
