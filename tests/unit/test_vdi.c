/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VDI sources made byte by byte: headers, block maps, and the search for a parent that only its
 * UUID names.
 */
#include "vmdk_store.h"

#define BLOCK 4096u
#define MAP   512u
#define DATA  1024u

/* Fields. */
#define VERSION      68
#define LENGTH       72
#define TYPE         76
#define FLAGS        80
#define MAP_AT       340
#define DATA_AT      344
#define SECTORS      360
#define SIZE         368
#define BLOCKS       376
#define EXTRA        380
#define COUNT_       384
#define ID           392
#define STATE        408
#define PARENT       424
#define PARENT_STATE 440

#define FREE         0xffffffffu
#define ZERO         0xfffffffeu

static uint8_t file[DATA + 8 * (BLOCK + SECTOR)];

struct vdi_of {
	uint32_t type;
	char id, state, parent, parent_state;
	uint32_t block; /* 0: BLOCK */
	uint32_t extra;
	uint32_t map[4]; /* of four blocks; the disk ends 100 bytes before the last one's end */
};

static void make_vdi(const char *name, const struct vdi_of *d)
{
	uint32_t block = d->block ? d->block : BLOCK;

	memset(file, 0x66, sizeof(file));
	memset(file, 0, DATA);
	strcpy((char *)file, "<<< a disk >>>\n");
	put_le32(file + 64, 0xbeda107f);
	put_le32(file + VERSION, 0x10001);
	put_le32(file + LENGTH, 400);
	put_le32(file + TYPE, d->type);
	put_le32(file + MAP_AT, MAP);
	put_le32(file + DATA_AT, DATA);
	put_le32(file + SECTORS, 512);
	put_le64(file + SIZE, 4 * (uint64_t)block - 100);
	put_le32(file + BLOCKS, block);
	put_le32(file + EXTRA, d->extra);
	put_le32(file + COUNT_, 4);
	memset(file + ID, d->id, 16);
	memset(file + STATE, d->state, 16);
	memset(file + PARENT, d->parent, 16);
	memset(file + PARENT_STATE, d->parent_state, 16);
	for (unsigned i = 0; i < 4; i++)
		put_le32(file + MAP + i * 4, d->map[i]);
	store_write(name, file, sizeof(file));
}

/* ---- maps ---- */

static void dynamic(void **state)
{
	struct vdi_of d = { .type = 1, .id = 1, .state = 2, .map = { 2, 3, FREE, 1 } };
	struct image *image;

	(void)state;
	make_vdi("d.vdi", &d);
	image = open_image("d.vdi");
	assert_int_equal(image_size(image), 4 * BLOCK - 100);
	assert_string_equal(image_variant(image), "dynamic");
	assert_map(image, MAP_PLACE, { 2 * BLOCK, EXTENT_DATA, "d.vdi", DATA + 2 * BLOCK },
		{ 3 * BLOCK, EXTENT_ZERO, NULL, 0 },
		{ 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA + BLOCK });
	image_unref(image);
	d.map[1] = 5;
	d.map[2] = ZERO;
	make_vdi("d.vdi", &d);
	image = open_image("d.vdi");
	assert_map(image, MAP_PLACE, { BLOCK, EXTENT_DATA, "d.vdi", DATA + 2 * BLOCK },
		{ 2 * BLOCK, EXTENT_DATA, "d.vdi", DATA + 5 * BLOCK },
		{ 3 * BLOCK, EXTENT_ZERO, NULL, 0 },
		{ 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA + BLOCK });
	assert_map(image, MAP_KIND, { 2 * BLOCK, EXTENT_DATA, NULL, 0 },
		{ 3 * BLOCK, EXTENT_ZERO, NULL, 0 }, { 4 * BLOCK - 100, EXTENT_DATA, NULL, 0 });
	image_unref(image);
}

static void extra_bytes(void **state)
{
	const struct vdi_of d = { .type = 2, .extra = SECTOR, .map = { 0, 1, 2, 3 } };
	const uint64_t stride = BLOCK + SECTOR;

	(void)state;
	make_vdi("d.vdi", &d);
	assert_places("d.vdi", { BLOCK, EXTENT_DATA, "d.vdi", DATA + SECTOR },
		{ 2 * BLOCK, EXTENT_DATA, "d.vdi", DATA + stride + SECTOR },
		{ 3 * BLOCK, EXTENT_DATA, "d.vdi", DATA + 2 * stride + SECTOR },
		{ 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA + 3 * stride + SECTOR });
}

static void damage(void **state)
{
	static const uint32_t nonsense[] = { 9, 10, 0x7fffffff, 0xfffffffd };
	struct vdi_of d = { .type = 1, .map = { 0, 1, 2, 3 } };

	(void)state;
	for (size_t i = 0; i < COUNT(nonsense); i++) {
		d.map[2] = nonsense[i];
		make_vdi("d.vdi", &d);
		assert_places("d.vdi", { 2 * BLOCK, EXTENT_DATA, "d.vdi", DATA },
			{ 3 * BLOCK, EXTENT_DAMAGED, NULL, 0 },
			{ 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA + 3 * BLOCK });
	}
	/* The file ends inside a block. */
	d.map[2] = 2;
	make_vdi("d.vdi", &d);
	store_truncate("d.vdi", DATA + 2 * BLOCK + 700);
	assert_places("d.vdi", { 2 * BLOCK + 700, EXTENT_DATA, "d.vdi", DATA },
		{ 4 * BLOCK - 100, EXTENT_DAMAGED, NULL, 0 });
	/* What a disk does not have need not be there. */
	store_truncate("d.vdi", DATA + 4 * BLOCK - 100);
	assert_places("d.vdi", { 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA });
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
		{ VERSION, 4, 1, -ENOTSUP, "version 0.1, not 1.1" },
		{ VERSION, 4, 0x10000, -ENOTSUP, "version 1.0, not 1.1" },
		{ VERSION, 4, 0x10002, -ENOTSUP, "version 1.2, not 1.1" },
		{ VERSION, 4, 0x20001, -ENOTSUP, "version 2.1, not 1.1" },
		{ LENGTH, 4, 383, -EINVAL, "header has 383 bytes" },
		{ TYPE, 4, 0, -ENOTSUP, "type 0" },
		{ TYPE, 4, 3, -ENOTSUP, "type 3" },
		{ TYPE, 4, 5, -ENOTSUP, "type 5" },
		{ TYPE, 4, 4, -EINVAL, "does not tell its UUID" },
		{ FLAGS, 4, 2, -ENOTSUP, "flags that are not known (0x2)" },
		{ SECTORS, 4, 4096, -ENOTSUP, "sectors have 4096 bytes" },
		{ BLOCKS, 4, 0, -EINVAL, "blocks have 0 bytes" },
		{ BLOCKS, 4, 512, -EINVAL, "blocks have 512 bytes" },
		{ BLOCKS, 4, 12288, -EINVAL, "blocks have 12288 bytes" },
		{ EXTRA, 4, 513, -EINVAL, "513 bytes before" },
		{ COUNT_, 4, 3, -EINVAL, "too short for its size" },
		{ COUNT_, 4, 0, -EINVAL, "too short for its size" },
		{ COUNT_, 4, UINT32_MAX, -EINVAL, "map is not inside the file" },
		{ SIZE, 8, 4 * BLOCK + 1, -EINVAL, "too short for its size" },
		{ SIZE, 8, UINT64_MAX, -EINVAL, "too short for its size" },
		{ MAP_AT, 4, 0, -EINVAL, "map is not inside the file" },
		{ MAP_AT, 4, 514, -EINVAL, "map is not inside the file" },
		{ MAP_AT, 4, 0xfffffff0, -EINVAL, "map is not inside the file" },
		{ DATA_AT, 4, 524, -EINVAL, "begin inside the block map" },
		{ 64, 4, 0, -EINVAL, "should be vdi" },
	};
	const struct vdi_of d = { .type = 1, .map = { 0, 1, 2, 3 } };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		make_vdi("d.vdi", &d);
		store_poke_number("d.vdi", cases[i].at, cases[i].width, cases[i].value);
		assert_refused("d.vdi", cases[i].err, cases[i].reason);
	}
	make_vdi("d.vdi", &d);
	store_truncate("d.vdi", 400);
	assert_refused("d.vdi", -EINVAL, "its header cannot be read");
}

/* Shown as it is only where QEMU and VirtualBox take it and see the same. */
static void standalone(void **state)
{
	static const struct {
		size_t at, width;
		uint64_t value;
	} other[] = { { SIZE, 8, 4 * MIB - 100 }, { EXTRA, 4, 512 }, { ID, 8, 0 }, { STATE, 8, 0 },
		{ PARENT, 8, 1 }, { PARENT_STATE, 8, 1 }, { COUNT_, 4, 5 }, { 388, 4, 5 },
		{ MAP_AT, 4, 508 }, { DATA_AT, 4, DATA + 4 }, { SIZE, 8, 0 } };
	const struct vdi_of d = {
		.type = 1, .id = 1, .state = 1, .block = MIB, .map = { FREE, FREE, FREE, FREE }
	};
	struct image *image;

	(void)state;
	for (size_t i = 0; i <= COUNT(other); i++) {
		make_vdi("d.vdi", &d);
		store_poke_number("d.vdi", SIZE, 8, 4 * MIB);
		if (i < COUNT(other))
			store_poke_number("d.vdi", other[i].at, other[i].width, other[i].value);
		if (i < COUNT(other) && other[i].value == 0 && other[i].at != SIZE)
			store_poke_number("d.vdi", other[i].at + 8, 8, 0);
		image = open_image("d.vdi");
		assert_int_equal(image_is_standalone(image), i == COUNT(other));
		image_unref(image);
	}
}

/* ---- parents ---- */

static void make_child(const char *name)
{
	make_vdi(name, &(struct vdi_of) { .type = 4,
			       .id = 5,
			       .state = 5,
			       .parent = 1,
			       .parent_state = 2,
			       .map = { 0, FREE, ZERO, 1 } });
}

static void make_parent(const char *name, char id, char at)
{
	make_vdi(
		name, &(struct vdi_of) { .type = 1, .id = id, .state = at, .map = { 3, 2, 1, 0 } });
}

static void assert_parent(const char *name, const char *parent)
{
	struct image *image = open_image(name);

	assert_int_equal(image_file_count(image), 2);
	assert_string_equal(image_file(image, 1)->path, parent);
	image_unref(image);
}

static void differencing(void **state)
{
	(void)state;
	make_child("d.vdi");
	make_parent("d-base.vdi", 1, 2);
	assert_places("d.vdi", { BLOCK, EXTENT_DATA, "d.vdi", DATA },
		{ 2 * BLOCK, EXTENT_DATA, "d-base.vdi", DATA + 2 * BLOCK },
		{ 3 * BLOCK, EXTENT_ZERO, NULL, 0 },
		{ 4 * BLOCK - 100, EXTENT_DATA, "d.vdi", DATA + BLOCK });
}

/* In the family of the child there may be any number of files that are not it. */
static void search(void **state)
{
	(void)state;
	make_child("d.vdi");
	assert_refused("d.vdi", -ENOENT,
		"its parent, the VDI with UUID 01010101-0101-0101-0101-010101010101, is not among "
		"the files of its own family (-o references=datastore");
	make_parent("other.vdi", 1, 2);
	make_parent("d-base.raw", 1, 2);
	make_parent("d-0.vdi", 3, 2);
	make_parent(".d-0.vdi", 1, 2);
	store_text("d-1.vdi", "no VDI at all");
	store_text("d-2.vdi", "");
	store_mkdir("d-3.vdi");
	store_mkdir("d-sub");
	make_parent("d-sub/d-base.vdi", 1, 2);
	assert_int_equal(symlink("other.vdi", store_path("d-4.vdi")), 0);
	assert_int_equal(mkfifo(store_path("d-5.vdi"), 0644), 0);
	assert_refused("d.vdi", -ENOENT, "is not among");
	/* The right state wins over one that changed, and then the first name. */
	make_parent("d-a.vdi", 1, 7);
	assert_refused("d.vdi", -EINVAL,
		"has been modified since: the UUID of its state is 07070707-0707-0707-0707-"
		"070707070707, not 02020202");
	make_parent("d-c.VDI", 1, 2);
	assert_parent("d.vdi", "d-c.VDI");
	make_parent("d-b.vdi", 1, 2);
	assert_parent("d.vdi", "d-b.vdi");
	/* A child that does not record a state takes any. */
	store_poke_number("d.vdi", PARENT_STATE, 8, 0);
	store_poke_number("d.vdi", PARENT_STATE + 8, 8, 0);
	assert_parent("d.vdi", "d-a.vdi");
}

static void policies(void **state)
{
	(void)state;
	store_mkdir("m");
	store_mkdir("m/Snapshots");
	make_child("m/Snapshots/{x}.vdi");
	make_parent("m/disk.vdi", 1, 2);
	make_parent("top.vdi", 1, 2);
	assert_refused("m/Snapshots/{x}.vdi", -ENOENT, "of its own family");
	store.datastore.references = REFERENCES_DATASTORE;
	assert_parent("m/Snapshots/{x}.vdi", "m/disk.vdi");
	make_parent("m/Snapshots/other.vdi", 1, 2);
	assert_parent("m/Snapshots/{x}.vdi", "m/Snapshots/other.vdi");
	make_parent("m/Snapshots/other.vdi", 1, 3); /* another state of it */
	assert_parent("m/Snapshots/{x}.vdi", "m/disk.vdi");
	unlink(store_path("m/disk.vdi"));
	assert_refused("m/Snapshots/{x}.vdi", -EINVAL, "modified since");
	unlink(store_path("m/Snapshots/other.vdi"));
	assert_refused("m/Snapshots/{x}.vdi", -ENOENT, "in the directory above");
	make_child("child.vdi");
	assert_parent("child.vdi", "top.vdi");
	store.datastore.references = REFERENCES_NONE;
	assert_refused("child.vdi", -EPERM, "references=none");
	store.datastore.references = REFERENCES_DATASTORE;
	assert_int_equal(rename(store_path("child.vdi"), store_path("child.img")), 0);
	assert_refused("child.img", -EPERM, "only its content says that it is vdi");
}

static void circles(void **state)
{
	(void)state;
	make_vdi("d.vdi", &(struct vdi_of) {
				  .type = 4, .id = 1, .state = 1, .parent = 2, .parent_state = 2 });
	make_vdi("d-2.vdi",
		&(struct vdi_of) {
			.type = 4, .id = 2, .state = 2, .parent = 1, .parent_state = 1 });
	/* From d-2 on only its own family is looked at: that of the image that is opened. */
	assert_refused("d-2.vdi", -ENOENT, "is not among");
	store.datastore.references = REFERENCES_DATASTORE;
	assert_refused("d.vdi", -ELOOP, "comes back");
	/* Its own parent, by a UUID that it has itself. */
	make_vdi("d.vdi", &(struct vdi_of) {
				  .type = 4, .id = 1, .state = 1, .parent = 1, .parent_state = 1 });
	assert_refused("d.vdi", -ENOENT, "is not among");
}

static void crowd(void **state)
{
	char name[32];

	(void)state;
	make_child("d.vdi");
	for (int i = 0; i < 513; i++) {
		snprintf(name, sizeof(name), "d-%03d.vdi", i);
		store_text(name, "x");
		if (i == 511) {
			make_parent("d-511.vdi", 1, 2);
			assert_parent("d.vdi", "d-511.vdi");
		}
	}
	assert_refused("d.vdi", -EFBIG, "more than 512 files could be its parent");
}

static void mutations(void **state)
{
	static const struct vdi_of d = {
		.type = 1, .id = 1, .state = 2, .map = { 2, ZERO, FREE, 1 }
	};
	unsigned opened = 0;
	uint64_t random = 1;

	(void)state;
	make_parent("d-base.vdi", 1, 2);
	for (int i = 0; i < 2000; i++) {
		uint8_t byte;

		if (i % 2)
			make_child("d.vdi");
		else
			make_vdi("d.vdi", &d);
		for (uint64_t k = 1 + random_below(&random, 4); k > 0; k--) {
			byte = (uint8_t)random_below(&random, 256);
			store_poke("d.vdi", 64 + random_below(&random, MAP - 64 + 16), &byte, 1);
		}
		opened += survives("d.vdi");
	}
	assert_true(opened > 500);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(dynamic),
		store_test(extra_bytes),
		store_test(damage),
		store_test(bad_headers),
		store_test(standalone),
		store_test(differencing),
		store_test(search),
		store_test(policies),
		store_test(circles),
		store_test(crowd),
		store_test(mutations),
	};

	return run_unit_tests(tests);
}
