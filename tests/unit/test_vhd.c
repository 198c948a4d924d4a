/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VHD sources made byte by byte: footers and which of them counts, sizes, blocks and their bitmaps,
 * and how a parent is named.
 */
#include "imgfs/vhd.h"
#include "vmdk_store.h"

#define BLOCK    (8 * SECTOR)
#define TABLE    1536u
#define FIRST    2048u            /* of the blocks */
#define STRIDE   (SECTOR + BLOCK) /* a bitmap and a block */
#define LOCATORS (64 * SECTOR)    /* where their texts are */

static uint8_t file[80 * SECTOR];

struct vhd_of {
	uint32_t type;
	uint64_t size;
	const char *creator;
	uint16_t cylinders;
	uint8_t heads, track;
	char id;
};

static void fill_footer(uint8_t *p, const struct vhd_of *d)
{
	memset(p, 0, VHD_FOOTER);
	memcpy(p, "conectix", 8);
	put_be32(p + VHD_FOOTER_VERSION, VHD_VERSION);
	put_be64(p + VHD_FOOTER_HEADER, d->type == VHD_TYPE_FIXED ? UINT64_MAX : 512);
	memcpy(p + VHD_FOOTER_CREATOR, d->creator ? d->creator : "win ", 4);
	put_be64(p + VHD_FOOTER_SIZE, d->size);
	put_be16(p + VHD_FOOTER_CYLINDERS, d->cylinders);
	p[VHD_FOOTER_HEADS] = d->heads;
	p[VHD_FOOTER_TRACK] = d->track;
	put_be32(p + VHD_FOOTER_TYPE, d->type);
	memset(p + VHD_FOOTER_ID, d->id, 16);
	put_be32(p + VHD_FOOTER_CHECKSUM, vhd_checksum(p, VHD_FOOTER, VHD_FOOTER_CHECKSUM));
}

static void seal_header(uint8_t *h)
{
	put_be32(h + VHD_HEADER_CHECKSUM, vhd_checksum(h, VHD_HEADER, VHD_HEADER_CHECKSUM));
}

/*
 * A disk of 24 sectors in blocks of 8: the first at FIRST with the bits 0xb1, the second absent,
 * the third at FIRST + STRIDE, all set. Sector s of a block in the file is filled with its number.
 */
static void make_blocks(const char *name, uint32_t type, char id, char parent)
{
	struct vhd_of d = { .type = type, .size = 24 * SECTOR, .id = id };
	uint8_t *h = file + VHD_FOOTER;
	size_t end = FIRST + 2 * STRIDE;

	memset(file, 0, sizeof(file));
	fill_footer(file, &d);
	memcpy(h, "cxsparse", 8);
	put_be64(h + VHD_HEADER_NEXT, UINT64_MAX);
	put_be64(h + VHD_HEADER_TABLE, TABLE);
	put_be32(h + VHD_HEADER_VERSION, VHD_VERSION);
	put_be32(h + VHD_HEADER_ENTRIES, 3);
	put_be32(h + VHD_HEADER_BLOCK, BLOCK);
	memset(h + VHD_HEADER_PARENT_ID, parent, 16);
	seal_header(h);
	memset(file + TABLE, 0xff, SECTOR);
	put_be32(file + TABLE, FIRST / SECTOR);
	put_be32(file + TABLE + 8, (FIRST + STRIDE) / SECTOR);
	file[FIRST] = 0xb1;
	file[FIRST + STRIDE] = 0xff;
	for (unsigned i = 0; i < 16; i++)
		memset(file + FIRST + SECTOR + i / 8 * STRIDE + i % 8 * SECTOR, (int)i + 1, SECTOR);
	fill_footer(file + end, &d);
	store_write(name, file, end + VHD_FOOTER);
}

/* After a change of the header in `file`. */
static void rewrite_header(const char *name)
{
	seal_header(file + VHD_FOOTER);
	store_poke(name, VHD_FOOTER, file + VHD_FOOTER, VHD_HEADER);
}

static void make_fixed(const char *name, const struct vhd_of *d, size_t data)
{
	memset(file, 0x77, data);
	fill_footer(file + data, d);
	store_write(name, file, data + VHD_FOOTER);
}

static void assert_standalone(const char *name, bool standalone, const char *variant)
{
	struct image *image = open_image(name);

	assert_int_equal(image_is_standalone(image), standalone);
	assert_string_equal(image_variant(image), variant);
	image_unref(image);
}

/* ---- fixed disks, and sizes ---- */

static void fixed(void **state)
{
	struct vhd_of d = { .type = VHD_TYPE_FIXED, .size = 8 * SECTOR };

	(void)state;
	make_fixed("d.vhd", &d, 8 * SECTOR);
	assert_places("d.vhd", { 8 * SECTOR, EXTENT_DATA, "d.vhd", 0 });
	assert_standalone("d.vhd", true, "fixed");
	/* Slack before the footer is not the disk's; too little is damage. */
	make_fixed("d.vhd", &d, 9 * SECTOR);
	assert_places("d.vhd", { 8 * SECTOR, EXTENT_DATA, "d.vhd", 0 });
	assert_standalone("d.vhd", false, "fixed");
	make_fixed("d.vhd", &d, 8 * SECTOR - 1);
	assert_refused("d.vhd", -EINVAL, "should have 4096 bytes before its footer, and has 4095");
	/* What the guest writes at the start is its own, but QEMU believes it. */
	make_fixed("d.vhd", &d, 8 * SECTOR);
	store_poke("d.vhd", 0, "conectix", 8);
	assert_places("d.vhd", { 8 * SECTOR, EXTENT_DATA, "d.vhd", 0 });
	assert_standalone("d.vhd", false, "fixed");
	store_truncate("d.vhd", 8 * SECTOR);
	assert_refused("d.vhd", -EINVAL, "does not end with a footer");
}

/* The current size counts, and where QEMU would take the geometry the file is not shown as it is.
 */
static void sizes(void **state)
{
	static const struct {
		struct vhd_of d;
		bool standalone;
	} cases[] = {
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "vbox", 1, 4, 17, 0 }, false },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "vpc ", 1, 4, 17, 0 }, false },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "qemu", 1, 4, 17, 0 }, false },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "vbox", 1, 4, 25, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "vbox", 65535, 16, 255, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "win ", 1, 4, 17, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "qem2", 1, 4, 17, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "tap", 1, 4, 17, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR, "CTXS", 1, 4, 17, 0 }, true },
		{ { VHD_TYPE_FIXED, 100 * SECTOR + 5, "win ", 1, 4, 17, 0 }, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t footer[VHD_FOOTER];
		struct image *image;

		fill_footer(footer, &cases[i].d);
		unlink(store_path("d.vhd"));
		store_poke("d.vhd", cases[i].d.size, footer, sizeof(footer));
		image = open_image("d.vhd");
		assert_int_equal(image_size(image), cases[i].d.size);
		assert_int_equal(image_is_standalone(image), cases[i].standalone);
		image_unref(image);
	}
}

/* ---- blocks ---- */

static void dynamic(void **state)
{
	struct image *image;

	(void)state;
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	assert_standalone("d.vhd", true, "dynamic");
	image = open_image("d.vhd");
	/* 0xb1: sectors 0, 2, 3 and 7 */
	assert_map(image, MAP_PLACE, { 1 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + SECTOR },
		{ 2 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 4 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 3 * SECTOR },
		{ 7 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 8 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 8 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 24 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + STRIDE + SECTOR });
	/* Blocks are what is allocated. */
	assert_map(image, MAP_KIND, { 8 * SECTOR, EXTENT_DATA, NULL, 0 },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 }, { 24 * SECTOR, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

/* Entries that are nonsense, or whose block the file does not hold to its end. */
static void damage(void **state)
{
	static const uint32_t nonsense[] = { 0, 1, 2, 3, 0x7fffffff, 0xfffffffe };

	(void)state;
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		uint8_t entry[4];

		put_be32(entry, nonsense[i]);
		store_poke("d.vhd", TABLE, entry, 4);
		assert_places("d.vhd", { 8 * SECTOR, EXTENT_DAMAGED, NULL, 0 },
			{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
			{ 24 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + STRIDE + SECTOR });
	}
	/* The last block is cut, and the footer with it: the copy counts. */
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	store_truncate("d.vhd", FIRST + STRIDE + SECTOR + 2 * SECTOR + 100);
	assert_places("d.vhd", { 1 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + SECTOR },
		{ 2 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 4 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 3 * SECTOR },
		{ 7 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 8 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 8 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 18 * SECTOR + 100, EXTENT_DATA, "d.vhd", FIRST + STRIDE + SECTOR },
		{ 24 * SECTOR, EXTENT_DAMAGED, NULL, 0 });
	assert_standalone("d.vhd", false, "dynamic");
	/* So much of it that the bitmap is not there. */
	store_truncate("d.vhd", FIRST + STRIDE + 100);
	assert_places("d.vhd", { 1 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + SECTOR },
		{ 2 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 4 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 3 * SECTOR },
		{ 7 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 8 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 8 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 }, { 24 * SECTOR, EXTENT_DAMAGED, NULL, 0 });
}

/* No block's data reaches into the footer. */
static void footer_is_no_data(void **state)
{
	uint8_t entry[4];

	(void)state;
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	put_be32(entry, (FIRST + STRIDE) / SECTOR + 1); /* its bits are sector 0 of the block */
	store_poke("d.vhd", TABLE + 8, entry, 4);
	memset(file, 0xff, SECTOR);
	store_poke("d.vhd", FIRST + STRIDE + SECTOR, file, SECTOR);
	assert_places("d.vhd", { 1 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + SECTOR },
		{ 2 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 4 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 3 * SECTOR },
		{ 7 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 8 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 8 * SECTOR },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 },
		{ 23 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + STRIDE + 2 * SECTOR },
		{ 24 * SECTOR, EXTENT_DAMAGED, NULL, 0 });
}

/* ---- headers ---- */

static void bad_headers(void **state)
{
	static const struct {
		size_t at, width;
		uint64_t value;
		int err;
		const char *reason;
	} cases[] = {
		{ VHD_HEADER_BLOCK, 4, 0, -EINVAL, "blocks have 0 bytes" },
		{ VHD_HEADER_BLOCK, 4, 256, -EINVAL, "blocks have 256 bytes" },
		{ VHD_HEADER_BLOCK, 4, 12288, -EINVAL, "blocks have 12288 bytes" },
		{ VHD_HEADER_BLOCK, 4, 2048, -EINVAL, "too short for its size" },
		{ VHD_HEADER_ENTRIES, 4, 2, -EINVAL, "too short for its size" },
		{ VHD_HEADER_ENTRIES, 4, 0, -EINVAL, "too short for its size" },
		{ VHD_HEADER_TABLE, 8, 1 << 20, -EINVAL, "table is not inside the file" },
		{ VHD_HEADER_TABLE, 8, UINT64_MAX, -EINVAL, "table is not inside the file" },
		{ VHD_HEADER_TABLE, 8, TABLE + 2, -EINVAL, "table is not inside the file" },
		{ VHD_HEADER_VERSION, 4, 0x20000, -ENOTSUP, "unknown version" },
		{ 0, 8, 0, -EINVAL, "not where its footer says" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint8_t *field = file + VHD_FOOTER + cases[i].at;

		make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
		if (cases[i].width == 4)
			put_be32(field, (uint32_t)cases[i].value);
		else
			put_be64(field, cases[i].value);
		rewrite_header("d.vhd");
		assert_refused("d.vhd", cases[i].err, cases[i].reason);
	}
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	store_poke("d.vhd", VHD_FOOTER + 1000, "x", 1);
	assert_refused("d.vhd", -EINVAL, "its header is damaged");
}

/* Changes one field of both footers, and their checksums. */
static void change_footers(const char *name, size_t at, const void *bytes, size_t length)
{
	size_t end = FIRST + 2 * STRIDE;

	memcpy(file + at, bytes, length);
	put_be32(file + VHD_FOOTER_CHECKSUM, vhd_checksum(file, VHD_FOOTER, VHD_FOOTER_CHECKSUM));
	store_poke(name, 0, file, VHD_FOOTER);
	store_poke(name, end, file, VHD_FOOTER);
}

static void bad_footers(void **state)
{
	static const struct {
		size_t at;
		const char *bytes;
		int err;
		const char *reason;
	} cases[] = {
		{ VHD_FOOTER_VERSION, "\0\2\0\0", -ENOTSUP, "version 0x20000" },
		{ VHD_FOOTER_TYPE, "\0\0\0\0", -ENOTSUP, "type 0" },
		{ VHD_FOOTER_TYPE, "\0\0\0\1", -ENOTSUP, "type 1" },
		{ VHD_FOOTER_TYPE, "\0\0\0\5", -ENOTSUP, "type 5" },
		{ VHD_FOOTER_HEADER, "\1\0\0\0", -EINVAL, "header is not inside the file" },
		{ VHD_FOOTER_HEADER + 4, "\0\0\0\0", -EINVAL, "not where its footer says" },
		{ VHD_FOOTER_SIZE, "\x80\0\0\0", -EINVAL, "too short for its size" },
		{ VHD_FOOTER_SIZE + 2, "\1\0\0\0", -EINVAL, "too short for its size" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
		change_footers("d.vhd", cases[i].at, cases[i].bytes, 4);
		assert_refused("d.vhd", cases[i].err, cases[i].reason);
	}
	/* Whatever the program that made it, and whoever else used it. */
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	change_footers("d.vhd", VHD_FOOTER_FEATURES, "\0\0\0\3", 4);
	change_footers("d.vhd", 84, "\1", 1); /* saved state */
	assert_standalone("d.vhd", true, "dynamic");
}

/* The footer at the end counts; its copy only where that one is damaged, and for dynamic disks. */
static void copies(void **state)
{
	const uint64_t end = FIRST + 2 * STRIDE;
	struct image *image;

	(void)state;
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	store_poke("d.vhd", VHD_FOOTER_TYPE + 3, "\4", 1); /* the copy is damaged */
	assert_standalone("d.vhd", false, "dynamic");
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	store_poke("d.vhd", end + 100, "x", 1);
	assert_standalone("d.vhd", false, "dynamic");
	store_poke("d.vhd", end, file, 600); /* something follows */
	assert_standalone("d.vhd", false, "dynamic");
	store_poke("d.vhd", 100, "x", 1); /* both are damaged */
	assert_refused("d.vhd", -EINVAL, "does not end with a footer");
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	store_poke("d.vhd", 100, "x", 1);
	store_poke("d.vhd", end + 100, "x", 1);
	assert_refused("d.vhd", -EINVAL, "its footer is damaged");
	/* A valid one at the end hides whatever another one says. */
	make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
	fill_footer(file, &(struct vhd_of) { .type = VHD_TYPE_DYNAMIC, .size = 9 * SECTOR });
	store_poke("d.vhd", 0, file, VHD_FOOTER);
	image = open_image("d.vhd");
	assert_int_equal(image_size(image), 24 * SECTOR);
	assert_false(image_is_standalone(image));
	image_unref(image);
	make_blocks("d.vhd", VHD_TYPE_DIFFERENCING, 1, 2);
	store_poke("d.vhd", end + 100, "x", 1);
	assert_refused("d.vhd", -EINVAL, "only its beginning says what it is");
	store_write("d.vhd", "conectix", 8);
	assert_refused("d.vhd", -EINVAL, "too short");
}

/* ---- parents ---- */

/* As UTF-16. Returns its length in bytes. */
static size_t widen(uint8_t *out, const char *text, bool big_endian)
{
	size_t n = 0;

	for (; *text; text++, n += 2) {
		out[n] = big_endian ? 0 : (uint8_t)*text;
		out[n + 1] = big_endian ? (uint8_t)*text : 0;
	}
	return n;
}

struct names {
	const char *plain;   /* of the header */
	const char *code[2]; /* of up to two locators */
	const char *text[2];
};

static void make_child(const char *name, const struct names *n)
{
	uint8_t *h = file + VHD_FOOTER;

	make_blocks(name, VHD_TYPE_DIFFERENCING, 1, 2);
	if (n->plain)
		widen(h + VHD_HEADER_PARENT_NAME, n->plain, true);
	/* The texts lie behind the blocks, before the footer. */
	memcpy(file + LOCATORS + 2 * SECTOR, file + FIRST + 2 * STRIDE, VHD_FOOTER);
	memset(file + FIRST + 2 * STRIDE, 0, LOCATORS - FIRST - 2 * STRIDE);
	memset(file + LOCATORS, 0, 2 * SECTOR);
	for (unsigned i = 0; i < 2 && n->code[i]; i++) {
		uint8_t *p = h + VHD_HEADER_LOCATORS + i * 24;
		uint8_t *text = file + LOCATORS + i * SECTOR;
		size_t length = strlen(n->text[i]);

		memcpy(p, n->code[i], 4);
		if (n->code[i][0] == 'W')
			length = widen(text, n->text[i], false);
		else
			memcpy(text, n->text[i], length);
		put_be32(p + 8, (uint32_t)length);
		put_be64(p + 16, LOCATORS + i * SECTOR);
	}
	seal_header(h);
	store_write(name, file, LOCATORS + 3 * SECTOR);
}

static void make_parent(const char *name, char id)
{
	struct vhd_of d = { .type = VHD_TYPE_FIXED, .size = 20 * SECTOR, .id = id };

	make_fixed(name, &d, 20 * SECTOR);
}

static void differencing(void **state)
{
	struct image *image;

	(void)state;
	make_parent("d-base.vhd", 2);
	make_child("d.vhd", &(struct names) { .code = { "W2ru" }, .text = { ".\\d-base.vhd" } });
	image = open_image("d.vhd");
	assert_int_equal(image_file_count(image), 2);
	assert_false(image_is_standalone(image));
	assert_string_equal(image_variant(image), "differencing");
	assert_map(image, MAP_PLACE, { 1 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + SECTOR },
		{ 2 * SECTOR, EXTENT_DATA, "d-base.vhd", SECTOR },
		{ 4 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 3 * SECTOR },
		{ 7 * SECTOR, EXTENT_DATA, "d-base.vhd", 4 * SECTOR },
		{ 8 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + 8 * SECTOR },
		{ 16 * SECTOR, EXTENT_DATA, "d-base.vhd", 8 * SECTOR },
		{ 24 * SECTOR, EXTENT_DATA, "d.vhd", FIRST + STRIDE + SECTOR });
	image_unref(image);
	/* Here too blocks are what is allocated. */
	make_blocks("d-base.vhd", VHD_TYPE_DYNAMIC, 2, 0);
	memset(file, 0xff, 12);
	store_poke("d-base.vhd", TABLE, file, 12);
	image = open_image("d.vhd");
	assert_map(image, MAP_KIND, { 8 * SECTOR, EXTENT_DATA, NULL, 0 },
		{ 16 * SECTOR, EXTENT_ZERO, NULL, 0 }, { 24 * SECTOR, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

static void parent_names(void **state)
{
	static const struct {
		struct names names;
		int err; /* 0: d-base.vhd is found */
		const char *reason;
	} cases[] = {
		{ { NULL, { "W2ru" }, { "d-base.vhd" } }, 0, NULL },
		{ { NULL, { "W2ru" }, { ".\\.\\d-base.vhd" } }, 0, NULL },
		{ { NULL, { "MacX" }, { "file://./d-base.vhd" } }, 0, NULL },
		{ { "d-base.vhd", { NULL }, { NULL } }, 0, NULL },
		{ { "C:\\disks\\d-base.vhd", { NULL }, { NULL } }, 0, NULL },
		{ { "/disks/d-base.vhd", { "W2ku" }, { "C:\\other.vhd" } }, 0, NULL },
		{ { "other.vhd", { "W2ku", "W2ru" }, { "C:\\other.vhd", "d-base.vhd" } }, 0, NULL },
		{ { "d-base.vhd", { "MacX" }, { "file:///other.vhd" } }, 0, NULL },
		{ { "d-base.vhd", { "W2ru" }, { "" } }, 0, NULL },
		{ { NULL, { "W2ru" }, { ".\\missing.vhd" } }, -EPERM, "not of its own family" },
		{ { NULL, { "W2ru" }, { ".\\d-missing.vhd" } }, -ENOENT, "d-missing.vhd" },
		{ { NULL, { "W2ru" }, { "..\\d-base.vhd" } }, -EPERM, "'..'" },
		{ { NULL, { "W2ru" }, { "\\etc\\passwd" } }, -EPERM, "outside the datastore" },
		{ { NULL, { "W2ru" }, { "a\nb" } }, -EINVAL, "control bytes" },
		{ { NULL, { "W2ku" }, { "C:\\d-base.vhd" } }, -EINVAL, "does not name it" },
		{ { NULL, { NULL }, { NULL } }, -EINVAL, "does not name it" },
		{ { "C:\\", { NULL }, { NULL } }, -EINVAL, "does not name it" },
		{ { "d.vhd", { NULL }, { NULL } }, -ELOOP, "comes back" },
	};

	(void)state;
	make_parent("d-base.vhd", 2);
	make_parent("other.vhd", 2);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct image *image;

		make_child("d.vhd", &cases[i].names);
		if (cases[i].err < 0) {
			assert_refused("d.vhd", cases[i].err, cases[i].reason);
			continue;
		}
		image = open_image("d.vhd");
		assert_string_equal(image_file(image, 1)->path, "d-base.vhd");
		image_unref(image);
	}
}

/* Locators that are not inside the file, or too long to be a name, are as if not there. */
static void bad_locators(void **state)
{
	const struct names n = { "d-base.vhd", { "W2ru" }, { "d-other.vhd" } };
	uint8_t *p = file + VHD_FOOTER + VHD_HEADER_LOCATORS;

	(void)state;
	make_parent("d-base.vhd", 2);
	make_child("d.vhd", &n);
	assert_refused("d.vhd", -ENOENT, "d-other.vhd");
	put_be64(p + 16, UINT64_MAX - 1);
	rewrite_header("d.vhd");
	image_unref(open_image("d.vhd"));
	make_child("d.vhd", &n);
	put_be32(p + 8, UINT32_MAX);
	rewrite_header("d.vhd");
	image_unref(open_image("d.vhd"));
	make_child("d.vhd", &n);
	put_be32(p + 8, 7); /* half a character at the end */
	rewrite_header("d.vhd");
	image_unref(open_image("d.vhd"));
}

static void wrong_parents(void **state)
{
	static const struct names n = { "d-base.vhd", { NULL }, { NULL } };

	(void)state;
	make_parent("d-base.vhd", 3);
	make_child("d.vhd", &n);
	assert_refused("d.vhd", -EINVAL,
		"the id is 03030303-0303-0303-0303-030303030303, not 02020202-0202");
	store_text("d-base.vhd", "no VHD at all");
	assert_refused("d.vhd", -EINVAL, "should be vhd");
	unlink(store_path("d-base.vhd"));
	assert_refused("d.vhd", -ENOENT, "d-base.vhd");
	/* What only its content makes a VHD may name nothing. */
	make_parent("d-base.vhd", 2);
	image_unref(open_image("d.vhd"));
	assert_int_equal(rename(store_path("d.vhd"), store_path("d.img")), 0);
	assert_refused("d.img", -EPERM, "only its content says that it is vhd");
}

/* ---- anything at all ---- */

static void mutations(void **state)
{
	static uint8_t original[sizeof(file)];
	const size_t end = FIRST + 2 * STRIDE;
	unsigned opened = 0;
	uint64_t random = 1;

	(void)state;
	make_parent("d-base.vhd", 2);
	make_child("d.vhd", &(struct names) { .code = { "W2ru" }, .text = { "d-base.vhd" } });
	memcpy(original, file, sizeof(file));
	for (int i = 0; i < 2000; i++) {
		bool child = i % 2;

		if (child)
			memcpy(file, original, sizeof(file));
		else
			make_blocks("d.vhd", VHD_TYPE_DYNAMIC, 1, 0);
		for (uint64_t k = random_below(&random, 4); k > 0; k--)
			file[random_below(&random, FIRST + SECTOR)] =
				(uint8_t)random_below(&random, 256);
		put_be32(file + VHD_FOOTER_CHECKSUM,
			vhd_checksum(file, VHD_FOOTER, VHD_FOOTER_CHECKSUM));
		seal_header(file + VHD_FOOTER);
		memcpy(file + (child ? LOCATORS + 2 * SECTOR : end), file, VHD_FOOTER);
		store_write("d.vhd", file, child ? LOCATORS + 3 * SECTOR : end + VHD_FOOTER);
		opened += survives("d.vhd");
	}
	assert_true(opened > 500);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(fixed),
		store_test(sizes),
		store_test(dynamic),
		store_test(damage),
		store_test(footer_is_no_data),
		store_test(bad_headers),
		store_test(bad_footers),
		store_test(copies),
		store_test(differencing),
		store_test(parent_names),
		store_test(bad_locators),
		store_test(wrong_parents),
		store_test(mutations),
	};

	return run_unit_tests(tests);
}
