/* SPDX-License-Identifier: Apache-2.0 */
/* Logs of VHDX sources made byte by byte: which entries count, and what a replay would change. */
#include "vhdx_image.h"

#define PRESENT(mib) ((uint64_t)(mib) << 20 | 6)
#define BLOCKS       4

static const struct vhdx_of plain = { .size = BLOCKS * MIB, .bat = { PRESENT(4), 0, 0, 0 } };

/* One page that an entry writes: the BAT with so many MiB for block 0, or zeros. */
struct write {
	uint64_t offset;
	uint64_t zeros; /* bytes; 0: a page that begins with `first` and ends with `last` */
	uint64_t first;
	uint32_t last;
};

struct entry_of {
	uint64_t sequence, tail;
	const char *guid; /* NULL: the file's */
	uint64_t flushed, last;
	struct write writes[4];
	unsigned count;
};

/* Puts an entry at `at` of the ring, round its end. Returns where the next one is. */
static uint64_t put_entry(const char *name, uint64_t at, const struct entry_of *o)
{
	uint8_t e[8 * PAGE] = "loge";
	uint64_t length = PAGE;

	for (unsigned i = 0; i < o->count; i++) {
		const struct write *w = &o->writes[i];
		uint8_t *d = e + 64 + 32 * i, *data = e + length;

		memcpy(d, w->zeros ? "zero" : "desc", 4);
		put_le64(d + 8, w->zeros ? w->zeros : w->first);
		put_le64(d + 16, w->offset);
		put_le64(d + 24, o->sequence);
		if (w->zeros)
			continue;
		put_le32(d + 4, w->last);
		memcpy(data, "data", 4);
		put_le32(data + 4, (uint32_t)(o->sequence >> 32));
		put_le32(data + PAGE - 4, (uint32_t)o->sequence);
		length += PAGE;
	}
	put_le32(e + 8, (uint32_t)length);
	put_le32(e + 12, (uint32_t)o->tail);
	put_le64(e + 16, o->sequence);
	put_le32(e + 24, o->count);
	memcpy(e + 32, o->guid ? o->guid : LOG_GUID, 16);
	put_le64(e + 48, o->flushed);
	put_le64(e + 56, o->last);
	put_le32(e + 4, crc32c(0, e, length));
	for (uint64_t i = 0; i < length; i += PAGE)
		store_poke(name, LOG + (at + i) % MIB, e + i, PAGE);
	return (at + length) % MIB;
}

/* The disk with a log GUID. */
static void make_dirty(const char *name, const struct vhdx_of *d)
{
	make_vhdx(name, d);
	vhdx_header(name, HEADER_1, 7, LOG_GUID);
	vhdx_header(name, HEADER_2, 8, LOG_GUID);
}

#define BAT_PAGE(mib)                                \
	{                                            \
		.offset = BAT, .first = PRESENT(mib) \
	}
#define ENTRY(number, from, ...)                   \
	((struct entry_of) { .sequence = (number), \
		.tail = (from),                    \
		.writes = { __VA_ARGS__ },         \
		.count = sizeof((struct write[]) { __VA_ARGS__ }) / sizeof(struct write) })

/* Block 0 is at so many MiB, the others are not there. */
static void assert_block(const char *name, uint64_t mib)
{
	struct image *image = open_image(name);

	assert_false(image_is_standalone(image));
	assert_map(image, MAP_PLACE, { MIB, EXTENT_DATA, name, mib * MIB },
		{ BLOCKS * MIB, EXTENT_ZERO, NULL, 0 });
	image_unref(image);
}

/* ---- which sequence ---- */

static void one_entry(void **state)
{
	static const uint64_t places[] = { 0, PAGE, 17 * PAGE, MIB - 2 * PAGE, MIB - PAGE };

	struct image *image;

	(void)state;
	for (size_t i = 0; i < COUNT(places); i++) {
		make_dirty("d.vhdx", &plain);
		put_entry("d.vhdx", places[i], &ENTRY(9, places[i], BAT_PAGE(6)));
		assert_block("d.vhdx", 6);
	}
	/* Without a GUID in the header the same entry means nothing. */
	vhdx_header("d.vhdx", HEADER_2, 9, NULL);
	image = open_image("d.vhdx");
	assert_map(image, MAP_KIND, { MIB, EXTENT_DATA, NULL, 0 },
		{ BLOCKS * MIB, EXTENT_ZERO, NULL, 0 });
	image_unref(image);
}

static void sequences(void **state)
{
	uint64_t at, second;

	(void)state;
	/* In order, and the last one counts. */
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	at = put_entry("d.vhdx", at, &ENTRY(10, 0, BAT_PAGE(7)));
	put_entry("d.vhdx", at, &ENTRY(11, 0, BAT_PAGE(8)));
	assert_block("d.vhdx", 8);
	/* A gap in the numbers: two sequences, and the newer one counts. */
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", 0, &ENTRY(19, 0, BAT_PAGE(6)));
	put_entry("d.vhdx", at, &ENTRY(18, at, BAT_PAGE(7)));
	assert_block("d.vhdx", 6);
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", 0, &ENTRY(19, 0, BAT_PAGE(6)));
	put_entry("d.vhdx", at, &ENTRY(21, at, BAT_PAGE(7)));
	assert_block("d.vhdx", 7);
	/* What is before the tail has been written before; the file has newer bytes. */
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	put_entry("d.vhdx", at, &ENTRY(10, at, { .offset = 512 * KIB, .zeros = PAGE }));
	assert_block("d.vhdx", 4);
	/* What is after it counts, though the newest entry writes something else. */
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	put_entry("d.vhdx", at, &ENTRY(10, 0, { .offset = 512 * KIB, .zeros = PAGE }));
	assert_block("d.vhdx", 6);
	/* The tail of the newest is not in its sequence: that one is not complete. */
	make_dirty("d.vhdx", &plain);
	put_entry("d.vhdx", 64 * PAGE, &ENTRY(30, 5 * PAGE, BAT_PAGE(9)));
	put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	assert_block("d.vhdx", 6);
	/* Around the end of the ring. */
	make_dirty("d.vhdx", &plain);
	at = put_entry("d.vhdx", MIB - 4 * PAGE, &ENTRY(9, MIB - 4 * PAGE, BAT_PAGE(6)));
	second = put_entry("d.vhdx", at, &ENTRY(10, MIB - 4 * PAGE, BAT_PAGE(7)));
	assert_int_equal(second, 0);
	put_entry("d.vhdx", second, &ENTRY(11, MIB - 4 * PAGE, BAT_PAGE(8)));
	assert_block("d.vhdx", 8);
}

/* An entry with one thing wrong does not count, and another one before it does. */
static void bad_entries(void **state)
{
	static const struct {
		unsigned at, width; /* in the entry */
		uint64_t value;
		bool sealed; /* with a good checksum */
	} cases[] = {
		{ 0, 1, 'L', true },
		{ 4, 4, 0, false },
		{ 8, 4, 0, true },
		{ 8, 4, PAGE, true },
		{ 8, 4, 2 * PAGE + 512, false },
		{ 8, 4, 2 * MIB, false },
		{ 12, 4, 512, true },
		{ 12, 4, MIB, true },
		{ 16, 8, 0, true },
		{ 16, 8, 11, true }, /* not that of its descriptors */
		{ 24, 4, 2, true },
		{ 24, 4, UINT32_MAX, true },
		{ 32, 1, 'T', true },
		{ 64, 1, 'D', true },
		{ 64 + 16, 8, 513, true },
		{ 64 + 16, 8, 1ull << 47, true },
		{ 64 + 16, 8, UINT64_MAX - PAGE + 1, true },
		{ 64 + 24, 8, 11, true },
		{ PAGE, 1, 'D', true },
		{ PAGE + 4, 4, 1, true },
		{ 2 * PAGE - 4, 4, 11, true },
		{ PAGE + 100, 1, 1, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		uint64_t at;

		make_dirty("d.vhdx", &plain);
		at = put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
		put_entry("d.vhdx", at, &ENTRY(10, at, BAT_PAGE(7)));
		store_poke_number("d.vhdx", LOG + at + cases[i].at, cases[i].width, cases[i].value);
		if (cases[i].sealed)
			vhdx_seal("d.vhdx", LOG + at, cases[i].at == 8 ? PAGE : 2 * PAGE);
		assert_block("d.vhdx", 6);
	}
	/* The same one alone: nothing is left. */
	make_dirty("d.vhdx", &plain);
	put_entry("d.vhdx", 0, &ENTRY(10, 0, BAT_PAGE(7)));
	store_poke("d.vhdx", LOG + PAGE + 9, "x", 1);
	assert_refused("d.vhdx", -EINVAL, "no valid entries");
	make_dirty("d.vhdx", &plain);
	assert_refused("d.vhdx", -EINVAL, "no valid entries");
}

/* Sectors behind the last one of data belong to the entry, and mean nothing. */
static void padding(void **state)
{
	(void)state;
	make_dirty("d.vhdx", &plain);
	put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	store_poke_number("d.vhdx", LOG + 8, 4, 5 * PAGE);
	store_poke("d.vhdx", LOG + 3 * PAGE, "whatever is here", 16);
	vhdx_seal("d.vhdx", LOG, 5 * PAGE);
	put_entry("d.vhdx", 5 * PAGE, &ENTRY(10, 0, BAT_PAGE(8)));
	assert_block("d.vhdx", 8);
}

/* A hundred and fifty descriptors fill more than one sector, all zeros and one page at last. */
static void many_descriptors(void **state)
{
	static uint8_t e[3 * PAGE] = "loge";
	unsigned count = 150;

	(void)state;
	for (unsigned i = 0; i < count; i++) {
		uint8_t *d = e + 64 + 32 * i;

		memcpy(d, i + 1 < count ? "zero" : "desc", 4);
		put_le64(d + 8, i + 1 < count ? PAGE : PRESENT(7));
		put_le64(d + 16, i + 1 < count ? 512 * KIB + 2 * i * PAGE : BAT);
		put_le64(d + 24, 3);
	}
	memcpy(e + 2 * PAGE, "data", 4);
	put_le32(e + 3 * PAGE - 4, 3);
	put_le32(e + 8, sizeof(e));
	put_le64(e + 16, 3);
	put_le32(e + 24, count);
	memcpy(e + 32, LOG_GUID, 16);
	put_le32(e + 4, crc32c(0, e, sizeof(e)));
	make_dirty("d.vhdx", &plain);
	/* The descriptors themselves lie round the end. */
	store_poke("d.vhdx", LOG + MIB - PAGE, e, PAGE);
	store_poke("d.vhdx", LOG, e + PAGE, 2 * PAGE);
	store_poke_number("d.vhdx", LOG + MIB - PAGE + 12, 4, MIB - PAGE);
	put_le32(e + 12, MIB - PAGE);
	put_le32(e + 4, 0);
	put_le32(e + 4, crc32c(0, e, sizeof(e)));
	store_poke("d.vhdx", LOG + MIB - PAGE, e, PAGE);
	assert_block("d.vhdx", 7);
}

/* ---- what it changes ---- */

/* The last entry of a page of the BAT is cut in two: its last bytes are in the descriptor. */
static void ends_of_a_page(void **state)
{
	const struct vhdx_of d = { .size = 600 * MIB, .bat = { PRESENT(4) } };

	(void)state;
	for (uint32_t high = 0; high < 2; high++) {
		make_dirty("d.vhdx", &d);
		put_entry("d.vhdx", 0,
			&ENTRY(9, 0, { .offset = BAT, .first = PRESENT(9), .last = high },
				{ .offset = BAT + PAGE, .first = PRESENT(10) }));
		store_poke_number("d.vhdx", LOG + 2 * PAGE - 8, 4, PRESENT(8));
		vhdx_seal("d.vhdx", LOG, 3 * PAGE);
		assert_places("d.vhdx", { MIB, EXTENT_DATA, "d.vhdx", 9 * MIB },
			{ 511 * MIB, EXTENT_ZERO, NULL, 0 },
			{ 512 * MIB, high ? EXTENT_DAMAGED : EXTENT_DATA, high ? NULL : "d.vhdx",
				8 * MIB },
			{ 513 * MIB, EXTENT_DATA, "d.vhdx", 10 * MIB },
			{ 600 * MIB, EXTENT_ZERO, NULL, 0 });
	}
}

/* A table of which one page is in the log: a run of entries ends where that begins, and goes on. */
static void page_of_a_table(void **state)
{
	(void)state;
	make_dirty("d.vhdx", &(struct vhdx_of) { .size = 1500 * MIB, .bat = { PRESENT(4) } });
	put_entry("d.vhdx", 0, &ENTRY(9, 0, { .offset = BAT + PAGE, .first = PRESENT(10) }));
	store_poke_number("d.vhdx", BAT + PAGE + 8, 8, PRESENT(5));
	store_poke_number("d.vhdx", BAT + 2 * PAGE, 8, PRESENT(11));
	assert_places("d.vhdx", { MIB, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 512 * MIB, EXTENT_ZERO, NULL, 0 }, { 513 * MIB, EXTENT_DATA, "d.vhdx", 10 * MIB },
		{ 1024 * MIB, EXTENT_ZERO, NULL, 0 },
		{ 1025 * MIB, EXTENT_DATA, "d.vhdx", 11 * MIB },
		{ 1500 * MIB, EXTENT_ZERO, NULL, 0 });
}

static void zeros(void **state)
{
	struct vhdx_of d = { .size = BLOCKS * MIB, .bat = { PRESENT(4), PRESENT(5) } };
	struct image *image;

	(void)state;
	make_dirty("d.vhdx", &d);
	store_poke_number("d.vhdx", BAT + PAGE, 8, PRESENT(6));
	put_entry("d.vhdx", 0, &ENTRY(9, 0, { .offset = BAT, .zeros = 4 * PAGE }));
	image = open_image("d.vhdx");
	assert_map(image, MAP_PLACE, { BLOCKS * MIB, EXTENT_ZERO, NULL, 0 });
	image_unref(image);
	/* Then one page of them again, and zeros once more over the rest. */
	make_dirty("d.vhdx", &d);
	put_entry("d.vhdx", 0,
		&ENTRY(9, 0, { .offset = 512 * KIB, .zeros = 2 * MIB }, BAT_PAGE(8),
			{ .offset = BAT + PAGE, .zeros = PAGE }));
	assert_block("d.vhdx", 8);
}

/* Pages of payload are read where the log has them, in three pieces. */
static void payload(void **state)
{
	struct vhdx_of d = { .size = 3 * MIB, .bat = { PRESENT(4), PRESENT(6) } };
	const uint64_t sector = LOG + PAGE;

	(void)state;
	make_dirty("d.vhdx", &d);
	put_entry("d.vhdx", 0,
		&ENTRY(9, 0, { .offset = 4 * MIB + 2 * PAGE }, { .offset = 7 * MIB - PAGE },
			{ .offset = 6 * MIB - PAGE, .zeros = 2 * PAGE }));
	assert_places("d.vhdx", { 2 * PAGE, EXTENT_DATA, "d.vhdx", 4 * MIB },
		{ 2 * PAGE + 8, EXTENT_DATA, "d.vhdx", LOG + 64 + 8 },
		{ 3 * PAGE - 4, EXTENT_DATA, "d.vhdx", sector + 8 },
		{ 3 * PAGE, EXTENT_DATA, "d.vhdx", LOG + 64 + 4 },
		{ MIB, EXTENT_DATA, "d.vhdx", 4 * MIB + 3 * PAGE },
		{ MIB + PAGE, EXTENT_ZERO, NULL, 0 },
		{ 2 * MIB - PAGE, EXTENT_DATA, "d.vhdx", 6 * MIB + PAGE },
		{ 2 * MIB - PAGE + 8, EXTENT_DATA, "d.vhdx", LOG + 96 + 8 },
		{ 2 * MIB - 4, EXTENT_DATA, "d.vhdx", sector + PAGE + 8 },
		{ 2 * MIB, EXTENT_DATA, "d.vhdx", LOG + 96 + 4 },
		{ 3 * MIB, EXTENT_ZERO, NULL, 0 });
}

/* A file that a replay would make longer ends in zeros. */
static void longer_file(void **state)
{
	struct vhdx_of d = {
		.size = 3 * MIB, .bat = { PRESENT(12) }, .file_size = 12 * MIB + PAGE
	};
	struct entry_of o = ENTRY(9, 0, { .offset = 512 * KIB, .zeros = PAGE });

	(void)state;
	make_dirty("d.vhdx", &d);
	o.flushed = 12 * MIB;
	o.last = 12 * MIB + 2 * PAGE;
	put_entry("d.vhdx", 0, &o);
	assert_places("d.vhdx", { PAGE, EXTENT_DATA, "d.vhdx", 12 * MIB },
		{ 2 * PAGE, EXTENT_ZERO, NULL, 0 }, { MIB, EXTENT_DAMAGED, NULL, 0 },
		{ 3 * MIB, EXTENT_ZERO, NULL, 0 });
	o.last = 14 * MIB;
	put_entry("d.vhdx", 0, &o);
	assert_places("d.vhdx", { PAGE, EXTENT_DATA, "d.vhdx", 12 * MIB },
		{ 3 * MIB, EXTENT_ZERO, NULL, 0 });
	o.flushed = 13 * MIB;
	put_entry("d.vhdx", 0, &o);
	assert_refused("d.vhdx", -EINVAL, "cut short");
	o.flushed = 0;
	o.last = 128 * TIB + 1;
	put_entry("d.vhdx", 0, &o);
	assert_refused("d.vhdx", -EINVAL, "more than 128 TiB");
	/* Pages behind the end make the file longer too. */
	o = ENTRY(9, 0, { .offset = 13 * MIB - PAGE, .first = 1 });
	put_entry("d.vhdx", 0, &o);
	assert_places("d.vhdx", { PAGE, EXTENT_DATA, "d.vhdx", 12 * MIB },
		{ MIB - PAGE, EXTENT_ZERO, NULL, 0 },
		{ MIB - PAGE + 8, EXTENT_DATA, "d.vhdx", LOG + 64 + 8 },
		{ MIB - 4, EXTENT_DATA, "d.vhdx", LOG + PAGE + 8 },
		{ MIB, EXTENT_DATA, "d.vhdx", LOG + 64 + 4 }, { 3 * MIB, EXTENT_ZERO, NULL, 0 });
}

/* ---- limits ---- */

static void log_fields(void **state)
{
	(void)state;
	make_dirty("d.vhdx", &plain);
	put_entry("d.vhdx", 0, &ENTRY(9, 0, BAT_PAGE(6)));
	store_poke_number("d.vhdx", HEADER_2 + 64, 2, 1);
	vhdx_seal("d.vhdx", HEADER_2, PAGE);
	assert_refused("d.vhdx", -ENOTSUP, "unknown version 1");
	/* Nobody minds where there is no log. */
	store_poke("d.vhdx", HEADER_2 + 48, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	vhdx_seal("d.vhdx", HEADER_2, PAGE);
	image_unref(open_image("d.vhdx"));
	make_dirty("d.vhdx", &plain);
	store_poke_number("d.vhdx", HEADER_2 + 68, 4, 0);
	vhdx_seal("d.vhdx", HEADER_2, PAGE);
	assert_refused("d.vhdx", -EINVAL, "has no room");
	make_dirty("d.vhdx", &plain);
	store_truncate("d.vhdx", 200 * MIB);
	store_poke_number("d.vhdx", HEADER_2 + 68, 4, 65 * MIB);
	store_poke_number("d.vhdx", HEADER_2 + 72, 8, 16 * MIB);
	vhdx_seal("d.vhdx", HEADER_2, PAGE);
	assert_refused("d.vhdx", -ENOTSUP, "larger than 64 MiB");
}

/* Every sector begins an entry that goes to the end of the ring: not looked at again and again. */
static void entries_inside_entries(void **state)
{
	(void)state;
	make_dirty("d.vhdx", &plain);
	for (uint64_t at = 0; at < MIB; at += PAGE) {
		put_entry("d.vhdx", at, &ENTRY(9, at, { .offset = BAT, .zeros = PAGE }));
		store_poke_number("d.vhdx", LOG + at + 8, 4, MIB);
	}
	assert_refused("d.vhdx", -EINVAL, "overlap");
}

/* An entry of a whole ring, all of them zeros in other places: more than is kept. */
static void too_many_pages(void **state)
{
	static uint8_t e[MIB] = "loge";
	unsigned count = sizeof(e) / 32 - 2;

	(void)state;
	for (unsigned i = 0; i < count; i++) {
		uint8_t *d = e + 64 + 32 * i;

		memcpy(d, "zero", 4);
		put_le64(d + 8, PAGE);
		put_le64(d + 16, 4 * MIB + 2 * i * PAGE);
		put_le64(d + 24, 3);
	}
	put_le32(e + 8, sizeof(e));
	put_le64(e + 16, 3);
	put_le32(e + 24, count);
	memcpy(e + 32, LOG_GUID, 16);
	put_le32(e + 4, crc32c(0, e, sizeof(e)));
	make_dirty("d.vhdx", &plain);
	store_poke("d.vhdx", LOG, e, sizeof(e));
	assert_refused("d.vhdx", -ENOTSUP, "more than 16384 pages");
}

static void nonsense(void **state)
{
	uint64_t random = 7;
	unsigned opened = 0;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t at = random_below(&random, 256) * PAGE, tail = at, next;
		uint64_t where = (random_below(&random, 3) ? 3 : 1) * MIB;

		make_dirty("d.vhdx", &plain);
		for (uint64_t k = 0; k < 3; k++) {
			struct entry_of o =
				ENTRY(9 + k, tail, BAT_PAGE(4 + random_below(&random, 10)),
					{ .offset = where + random_below(&random, 600) * PAGE,
						.zeros = random_below(&random, 3) * PAGE,
						.first = mix(random) });

			next = put_entry("d.vhdx", at, &o);
			if (random_below(&random, 3) == 0) {
				store_poke_number("d.vhdx", LOG + at + random_below(&random, 128),
					1 + random_below(&random, 8), mix(random));
				if (at + 2 * PAGE <= MIB)
					vhdx_seal("d.vhdx", LOG + at, 2 * PAGE);
			}
			at = next;
		}
		opened += survives("d.vhdx");
	}
	assert_true(opened > 100 && opened < 950);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(one_entry),
		store_test(sequences),
		store_test(bad_entries),
		store_test(padding),
		store_test(many_descriptors),
		store_test(ends_of_a_page),
		store_test(page_of_a_table),
		store_test(zeros),
		store_test(payload),
		store_test(longer_file),
		store_test(log_fields),
		store_test(entries_inside_entries),
		store_test(too_many_pages),
		store_test(nonsense),
	};

	return run_unit_tests(tests);
}
