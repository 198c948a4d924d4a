/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/occupancy.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "imgfs/checked.h"
#include "imgfs/wire.h"

#define WORD_BITS  64u
#define PAGE_WORDS (OCCUPANCY_PAGE_UNITS / WORD_BITS)
#define PAGE_BYTES (PAGE_WORDS * sizeof(uint64_t))

struct occupancy {
	uint64_t size; /* guest bytes */
	uint64_t units;
	uint64_t count;
	uint64_t bytes;
	uint64_t next_unit; /* the last range ended in the unit before */
	struct occupancy_page *pages;
	size_t page_count, page_room;
	size_t memory;
};

/* ---- building ---- */

struct occupancy *occupancy_new(uint64_t size)
{
	struct occupancy *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->size = size;
	o->units = div_ceil(size, OCCUPANCY_UNIT);
	return o;
}

/* Of all bitmaps that there are. */
static atomic_size_t total_memory;

static int charge(struct occupancy *o, size_t bytes)
{
	if (o->memory + bytes > OCCUPANCY_MAX_MEMORY)
		return -EFBIG;
	if (atomic_fetch_add(&total_memory, bytes) + bytes > OCCUPANCY_TOTAL_MEMORY) {
		atomic_fetch_sub(&total_memory, bytes);
		return -ENOMEM;
	}
	o->memory += bytes;
	return 0;
}

static void discharge(struct occupancy *o, size_t bytes)
{
	o->memory -= bytes;
	atomic_fetch_sub(&total_memory, bytes);
}

size_t occupancy_total_memory(void)
{
	return atomic_load(&total_memory);
}

void occupancy_free(struct occupancy *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < o->page_count; i++)
		free(o->pages[i].bits);
	free(o->pages);
	discharge(o, o->memory);
	free(o);
}

static int add_page(struct occupancy *o, uint64_t number)
{
	int r = charge(o, sizeof(*o->pages));

	if (r < 0)
		return r;
	if (o->page_count == o->page_room) {
		size_t room = o->page_room ? o->page_room * 2 : 8;
		struct occupancy_page *grown = reallocarray(o->pages, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		o->pages = grown;
		o->page_room = room;
	}
	o->pages[o->page_count++] = (struct occupancy_page) { .number = number, .rank = o->count };
	return 0;
}

/* Units of the page that exist: fewer in the last one. */
static uint64_t page_units(const struct occupancy *o, uint64_t number)
{
	return min_u64(OCCUPANCY_PAGE_UNITS, o->units - number * OCCUPANCY_PAGE_UNITS);
}

static void set_bits(uint64_t *bits, uint64_t first, uint64_t last)
{
	for (uint64_t word = first / WORD_BITS; word * WORD_BITS < last; word++) {
		uint64_t from = max_u64(first, word * WORD_BITS) % WORD_BITS;
		uint64_t to = min_u64(last - word * WORD_BITS, WORD_BITS);

		bits[word] |= (~0ull >> (WORD_BITS - (to - from))) << from;
	}
}

static bool page_is_full(const struct occupancy *o, const struct occupancy_page *page)
{
	return o->count - page->rank == page_units(o, page->number);
}

/* The last page gets no more bits; full, it needs none. */
static void seal_page(struct occupancy *o)
{
	struct occupancy_page *page = &o->pages[o->page_count - 1];

	if (!page->bits || !page_is_full(o, page))
		return;
	free(page->bits);
	page->bits = NULL;
	discharge(o, PAGE_BYTES);
}

static int add_to_page(struct occupancy *o, uint64_t number, uint64_t first, uint64_t last)
{
	struct occupancy_page *page;
	bool fresh = o->page_count == 0 || o->pages[o->page_count - 1].number != number;

	if (fresh) {
		int r;

		if (o->page_count > 0)
			seal_page(o);
		r = add_page(o, number);
		if (r < 0)
			return r;
	}
	page = &o->pages[o->page_count - 1];
	if (fresh && last - first == page_units(o, number)) {
		o->count += last - first;
		return 0;
	}
	if (!page->bits) {
		int r = charge(o, PAGE_BYTES);

		if (r < 0)
			return r;
		page->bits = calloc(PAGE_WORDS, sizeof(*page->bits));
		if (!page->bits)
			return -ENOMEM;
	}
	set_bits(page->bits, first, last);
	o->count += last - first;
	return 0;
}

int occupancy_add(struct occupancy *o, uint64_t start, uint64_t end)
{
	uint64_t unit = max_u64(start / OCCUPANCY_UNIT, o->next_unit);
	uint64_t last = div_ceil(end, OCCUPANCY_UNIT);

	if (end <= start)
		return 0;
	o->bytes += end - start;
	while (unit < last) {
		uint64_t number = unit / OCCUPANCY_PAGE_UNITS;
		uint64_t page_start = number * OCCUPANCY_PAGE_UNITS;
		uint64_t stop = min_u64(last, page_start + OCCUPANCY_PAGE_UNITS);
		int r = add_to_page(o, number, unit - page_start, stop - page_start);

		if (r < 0)
			return r;
		unit = stop;
	}
	o->next_unit = max_u64(o->next_unit, last);
	return 0;
}

void occupancy_finish(struct occupancy *o)
{
	struct occupancy_page *fitted;

	if (o->page_count == 0)
		return;
	seal_page(o);
	fitted = reallocarray(o->pages, o->page_count, sizeof(*fitted));
	if (fitted) {
		o->pages = fitted;
		o->page_room = o->page_count;
	}
}

/* ---- taking out ---- */

/* The page of a word of all bits, or NULL; *in_page is the word's place there. */
static struct occupancy_page *page_of_word(
	const struct occupancy *o, uint64_t word, uint64_t *in_page)
{
	uint64_t number = word / PAGE_WORDS;
	size_t index = occupancy_page_find(o, number);

	*in_page = word % PAGE_WORDS;
	return index < o->page_count && o->pages[index].number == number ? &o->pages[index] : NULL;
}

/* A word of a full page: the last one of the last page may have fewer units. */
static uint64_t full_word(const struct occupancy *o, uint64_t number, uint64_t in_page)
{
	uint64_t units = page_units(o, number);
	uint64_t first = in_page * WORD_BITS;

	if (first >= units)
		return 0;
	return units - first >= WORD_BITS ? ~0ull : ~(~0ull << (units - first));
}

uint64_t occupancy_word(const struct occupancy *o, uint64_t word)
{
	uint64_t in_page;
	const struct occupancy_page *page = page_of_word(o, word, &in_page);

	if (!page)
		return 0;
	return page->bits ? page->bits[in_page] : full_word(o, page->number, in_page);
}

int occupancy_keep(struct occupancy *o, uint64_t word, uint64_t bits)
{
	uint64_t in_page;
	struct occupancy_page *page = page_of_word(o, word, &in_page);
	int r;

	if (!page || (occupancy_word(o, word) & ~bits) == 0)
		return 0;
	if (!page->bits) {
		r = charge(o, PAGE_BYTES);
		if (r < 0)
			return r;
		page->bits = calloc(PAGE_WORDS, sizeof(*page->bits));
		if (!page->bits)
			return -ENOMEM;
		set_bits(page->bits, 0, page_units(o, page->number));
	}
	page->bits[in_page] &= bits;
	return 0;
}

/* Units of the page; all of them where it has no bits. */
static uint64_t count_page(const struct occupancy *o, const struct occupancy_page *page)
{
	uint64_t count = 0;

	if (!page->bits)
		return page_units(o, page->number);
	for (size_t i = 0; i < PAGE_WORDS; i++)
		count += (uint64_t)__builtin_popcountll(page->bits[i]);
	return count;
}

void occupancy_refit(struct occupancy *o, uint64_t bytes_gone)
{
	size_t kept = 0;

	o->count = 0;
	for (size_t i = 0; i < o->page_count; i++) {
		struct occupancy_page page = o->pages[i];
		uint64_t count = count_page(o, &page);

		if (count == 0) {
			free(page.bits);
			discharge(o, PAGE_BYTES + sizeof(page));
			continue;
		}
		page.rank = o->count;
		o->count += count;
		o->pages[kept++] = page;
	}
	o->page_count = kept;
	o->bytes -= bytes_gone;
}

/* ---- questions ---- */

uint64_t occupancy_units(const struct occupancy *o)
{
	return o->units;
}

uint64_t occupancy_count(const struct occupancy *o)
{
	return o->count;
}

uint64_t occupancy_bytes(const struct occupancy *o)
{
	return o->bytes;
}

size_t occupancy_page_count(const struct occupancy *o)
{
	return o->page_count;
}

const struct occupancy_page *occupancy_page(const struct occupancy *o, size_t index)
{
	return &o->pages[index];
}

size_t occupancy_page_find(const struct occupancy *o, uint64_t number)
{
	size_t low = 0, high = o->page_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (o->pages[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The page that has the unit, or NULL; *in_page is its place there. */
static const struct occupancy_page *find_page(
	const struct occupancy *o, uint64_t unit, size_t *index, uint64_t *in_page)
{
	uint64_t number = unit / OCCUPANCY_PAGE_UNITS;

	*index = occupancy_page_find(o, number);
	*in_page = unit % OCCUPANCY_PAGE_UNITS;
	if (*index == o->page_count || o->pages[*index].number != number)
		return NULL;
	return &o->pages[*index];
}

static bool test_bit(const struct occupancy_page *page, uint64_t in_page)
{
	return !page->bits || (page->bits[in_page / WORD_BITS] >> in_page % WORD_BITS & 1);
}

bool occupancy_test(const struct occupancy *o, uint64_t unit)
{
	size_t index;
	uint64_t in_page;
	const struct occupancy_page *page = find_page(o, unit, &index, &in_page);

	return unit < o->units && page && test_bit(page, in_page);
}

static uint64_t rank_in_page(const struct occupancy_page *page, uint64_t in_page)
{
	uint64_t rank = 0;
	uint64_t words = in_page / WORD_BITS;

	if (!page->bits)
		return in_page;
	for (uint64_t i = 0; i < words; i++)
		rank += (uint64_t)__builtin_popcountll(page->bits[i]);
	if (in_page % WORD_BITS)
		rank += (uint64_t)__builtin_popcountll(
			page->bits[words] & ~(~0ull << in_page % WORD_BITS));
	return rank;
}

uint64_t occupancy_rank(const struct occupancy *o, uint64_t unit)
{
	size_t index;
	uint64_t in_page;
	const struct occupancy_page *page;

	if (unit >= o->units)
		return o->count;
	page = find_page(o, unit, &index, &in_page);
	if (page)
		return page->rank + rank_in_page(page, in_page);
	return index == o->page_count ? o->count : o->pages[index].rank;
}

/* The place of the k-th set bit (from 0) of a word that has so many. */
static uint64_t select_in_word(uint64_t word, uint64_t k)
{
	while (k-- > 0)
		word &= word - 1;
	return (uint64_t)__builtin_ctzll(word);
}

static uint64_t select_in_page(const struct occupancy_page *page, uint64_t k)
{
	uint64_t word = 0;

	if (!page->bits)
		return k;
	for (;; word++) {
		uint64_t set = (uint64_t)__builtin_popcountll(page->bits[word]);

		if (k < set)
			break;
		k -= set;
	}
	return word * WORD_BITS + select_in_word(page->bits[word], k);
}

uint64_t occupancy_select(const struct occupancy *o, uint64_t k)
{
	size_t low = 0, high = o->page_count - 1;
	const struct occupancy_page *page;

	/* The last page whose rank is <= k. */
	while (low < high) {
		size_t middle = high - (high - low) / 2;

		if (o->pages[middle].rank <= k)
			low = middle;
		else
			high = middle - 1;
	}
	page = &o->pages[low];
	return page->number * OCCUPANCY_PAGE_UNITS + select_in_page(page, k - page->rank);
}

uint64_t occupancy_next(const struct occupancy *o, uint64_t unit)
{
	uint64_t rank = occupancy_rank(o, unit);

	return rank < o->count ? occupancy_select(o, rank) : o->units;
}

bool occupancy_any(const struct occupancy *o, uint64_t first, uint64_t last)
{
	return first < last && occupancy_next(o, first) < min_u64(last, o->units);
}

static uint64_t hash_page(const struct occupancy_page *page, uint64_t seed)
{
	uint8_t bytes[8 + PAGE_BYTES];
	size_t used = 8;

	put_le64(bytes, page->number);
	for (size_t i = 0; page->bits && i < PAGE_WORDS; i++, used += 8)
		put_le64(bytes + used, page->bits[i]);
	return XXH3_64bits_withSeed(bytes, used, seed);
}

uint64_t occupancy_hash(const struct occupancy *o)
{
	uint8_t size[8];
	uint64_t hash;

	put_le64(size, o->size);
	hash = XXH3_64bits(size, sizeof(size));
	for (size_t i = 0; i < o->page_count; i++)
		hash = hash_page(&o->pages[i], hash);
	return hash;
}
