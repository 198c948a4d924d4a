/* SPDX-License-Identifier: Apache-2.0 */
/*
 * detect_zeroes: which allocated units hold nothing but zeros?
 *
 * All that is allocated is read once, by as many threads as there are processors. Each takes a
 * window of guest space, looks at it with buffers of its own, and takes the units of zeros out of
 * the occupancy; in which order does not matter. Nothing goes through the cache: what is seen here
 * is not needed again soon.
 *
 * The outcome follows from the content alone, for the layout of views does from it. So damage
 * counts as data, which reads as EIO later, while a file that cannot be read at the moment ends
 * the search: it would look another way the next time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_private.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/crew.h"
#include "imgfs/zero.h"
#include "unpack.h"

#define UNIT         ((uint64_t)OCCUPANCY_UNIT)
#define WINDOW_WORDS 4u /* of the occupancy: 256 units, 16 MiB */
#define WINDOW_UNITS (WINDOW_WORDS * 64u)
#define PAGE_WINDOWS (OCCUPANCY_PAGE_UNITS / WINDOW_UNITS)

/* Data shows in the first bytes of a unit, mostly; so they are read first. */
#define HEAD 4096u

/* What is read ahead of that, for where the data is not in memory. */
#define AHEAD (2u << 20)

/* Units larger than this are unpacked one at a time, so that memory stays bounded. */
#define LARGE_UNIT (1u << 20)

/*
 * Tables may use a few sectors again and again, and then a disk of any size has to be looked at.
 * An honest image has each byte once. So what is read, with something for each place that it is
 * read from, may be twice what the files take on their disk, and some more; a packed unit costs
 * what it takes to unpack it.
 */
#define COST_FREE     (1ull << 30)
#define COST_OF_PLACE 256u
#define UNPACK_FACTOR 64u

struct scan {
	const struct image *image;
	pthread_mutex_t lock; /* of all that follows */
	struct occupancy *o;
	uint64_t next; /* window: number of the page * PAGE_WINDOWS and place in it */
	uint64_t bytes_gone;
	uint64_t cost, cost_max;
	int error;
};

struct window {
	uint64_t first_word;
	uint64_t bits[WINDOW_WORDS];      /* units to look at */
	uint64_t data[WINDOW_WORDS];      /* of these, units that hold something */
	uint64_t allocated[WINDOW_UNITS]; /* guest bytes of each */
	uint64_t cost;
};

/* What one thread has. */
struct looker {
	const struct image *image;
	struct window window;
	uint8_t plain[OCCUPANCY_UNIT];

	/* A hole that was found in a file, and the data behind it: what is in the hole needs no
	 * read. */
	const struct file *hole_file;
	uint64_t hole_start, hole_end, data_end;

	const struct file *ahead_file;
	uint64_t ahead; /* of it, all before this has been asked for */
};

/* ---- a window ---- */

static uint64_t window_start(const struct window *w)
{
	return w->first_word * 64 * UNIT;
}

static unsigned unit_of(const struct window *w, uint64_t guest)
{
	return (unsigned)((guest - window_start(w)) / UNIT);
}

static bool test_unit(const uint64_t *bits, unsigned unit)
{
	return bits[unit / 64] >> unit % 64 & 1;
}

static void set_data(struct window *w, unsigned unit)
{
	w->data[unit / 64] |= 1ull << unit % 64;
}

/* The end of the part of [guest, end) that is in one unit. */
static uint64_t unit_end(uint64_t guest, uint64_t end)
{
	return min_u64(end, (guest / UNIT + 1) * UNIT);
}

/* ---- plain data ---- */

static int read_plain(struct looker *l, const struct file *file, uint64_t length, uint64_t offset)
{
	int r = file_read(file, l->plain, length, offset);

	l->window.cost += length;
	return r == -ERANGE ? -ESTALE : r;
}

static bool in_hole(const struct looker *l, const struct file *file, uint64_t offset, uint64_t end)
{
	return file == l->hole_file && offset >= l->hole_start && end <= l->hole_end;
}

/* Looks for a hole at offset, unless it is known what is there. */
static int find_hole(struct looker *l, const struct file *file, uint64_t offset)
{
	int r;

	if (file == l->hole_file && offset >= l->hole_start && offset < l->data_end)
		return 0;
	r = file_next_data(file, offset, &l->hole_end, &l->data_end);
	l->hole_file = r == 0 ? file : NULL;
	l->hole_start = offset;
	return r;
}

/* Has the kernel read what follows, while what is here is looked at. Only a hint. */
static void read_ahead(struct looker *l, const struct file *file, uint64_t offset, uint64_t end)
{
	bool near = file == l->ahead_file && offset <= l->ahead && l->ahead <= offset + AHEAD;

	if (near && (l->ahead >= end || l->ahead >= offset + AHEAD / 2))
		return;
	l->ahead_file = file;
	l->ahead = min_u64(end, offset + AHEAD);
	file_will_need(file, offset, l->ahead - offset);
}

/* Is there anything at [offset, offset + length) of the file, a unit at most? 1, 0 or -errno. */
static int holds_data(struct looker *l, const struct file *file, uint64_t offset, uint64_t length)
{
	uint64_t head = min_u64(length, HEAD);
	int r = read_plain(l, file, head, offset);

	if (r < 0 || !is_zero(l->plain, head))
		return r < 0 ? r : 1;
	if (head == length)
		return 0;
	r = read_plain(l, file, length - head, offset + head);
	return r < 0 ? r : !is_zero(l->plain, length - head);
}

static int look_at_plain(struct looker *l, const struct extent *e)
{
	struct window *w = &l->window;
	uint64_t file_end = e->offset + (e->end - e->start);

	for (uint64_t at = e->start, end; at < e->end; at = end) {
		uint64_t offset = e->offset + (at - e->start);
		int r;

		end = unit_end(at, e->end);
		if (test_unit(w->data, unit_of(w, at)))
			continue;
		r = find_hole(l, e->file, offset);
		if (r == 0 && in_hole(l, e->file, offset, offset + (end - at)))
			continue;
		if (r == 0) {
			read_ahead(l, e->file, offset, file_end);
			r = holds_data(l, e->file, offset, end - at);
		}
		if (r < 0)
			return r;
		if (r == 1)
			set_data(w, unit_of(w, at));
	}
	return 0;
}

/* ---- packed and damaged ---- */

static void all_data(struct window *w, const struct extent *e)
{
	for (uint64_t at = e->start; at < e->end; at = unit_end(at, e->end))
		set_data(w, unit_of(w, at));
}

static bool is_all_data(const struct window *w, const struct extent *e)
{
	for (uint64_t at = e->start; at < e->end; at = unit_end(at, e->end)) {
		if (!test_unit(w->data, unit_of(w, at)))
			return false;
	}
	return true;
}

static int unpack_and_look(struct looker *l, const struct extent *e)
{
	struct window *w = &l->window;
	autofree uint8_t *packed = NULL;
	autofree uint8_t *bytes = malloc(e->unit);
	size_t length;
	int r = bytes ? unit_read(e, &packed, &length) : -ENOMEM;

	if (r < 0)
		return r;
	w->cost += length + e->unit / UNPACK_FACTOR;
	r = unpack(e->codec, packed, length, bytes, e->unit, e->need);
	if (r == -EIO) {
		all_data(w, e);
		return 0;
	}
	for (uint64_t at = e->start, end; r == 0 && at < e->end; at = end) {
		end = unit_end(at, e->end);
		if (!is_zero(bytes + e->skip + (at - e->start), end - at))
			set_data(w, unit_of(w, at));
	}
	return r;
}

static int look_at_packed(struct looker *l, const struct extent *e)
{
	static pthread_mutex_t large = PTHREAD_MUTEX_INITIALIZER;

	if (is_all_data(&l->window, e))
		return 0;
	if (e->unit > LARGE_UNIT) {
		LOCKED(&large);
		return unpack_and_look(l, e);
	}
	return unpack_and_look(l, e);
}

/* ---- a window, from end to end ---- */

static void count_allocated(struct window *w, const struct extent *e)
{
	for (uint64_t at = e->start, end; at < e->end; at = end) {
		end = unit_end(at, e->end);
		w->allocated[unit_of(w, at)] += end - at;
	}
}

static int look_at_extent(struct looker *l, const struct extent *e)
{
	l->window.cost += COST_OF_PLACE;
	if (e->kind == EXTENT_ZERO)
		return 0;
	count_allocated(&l->window, e);
	if (e->kind == EXTENT_DATA)
		return look_at_plain(l, e);
	if (e->kind == EXTENT_PACKED)
		return look_at_packed(l, e);
	all_data(&l->window, e);
	return 0;
}

/* Guest bytes [start, end): units that are occupied. */
static int look_at(struct looker *l, uint64_t start, uint64_t end)
{
	struct extent e;

	for (uint64_t at = start; at < end; at = e.end) {
		int r = image_map(l->image, at, end - at, MAP_PLACE, &e);

		if (r == 0)
			r = look_at_extent(l, &e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int look_at_window(struct looker *l)
{
	const struct window *w = &l->window;
	uint64_t size = image_size(l->image);
	unsigned unit = 0, end;

	while (unit < WINDOW_UNITS) {
		int r;

		for (end = unit; end < WINDOW_UNITS && test_unit(w->bits, end);)
			end++;
		r = look_at(l, window_start(w) + unit * UNIT,
			min_u64(size, window_start(w) + end * UNIT));
		if (r < 0)
			return r;
		unit = end + 1;
	}
	return 0;
}

/* ---- all windows ---- */

/* The next one with anything in it. False: there is none, or something has gone wrong. */
static bool take_window(struct scan *s, struct window *w)
{
	LOCKED(&s->lock);
	uint64_t pages = occupancy_page_count(s->o);

	while (!s->error && s->next < pages * PAGE_WINDOWS) {
		uint64_t number = occupancy_page(s->o, s->next / PAGE_WINDOWS)->number;
		uint64_t place = s->next++ % PAGE_WINDOWS;
		uint64_t any = 0;

		*w = (struct window) {
			.first_word = (number * PAGE_WINDOWS + place) * WINDOW_WORDS,
		};
		for (unsigned i = 0; i < WINDOW_WORDS; i++) {
			w->bits[i] = occupancy_word(s->o, w->first_word + i);
			any |= w->bits[i];
		}
		if (any)
			return true;
	}
	return false;
}

static void fail(struct scan *s, int error)
{
	LOCKED(&s->lock);

	if (!s->error)
		s->error = error;
}

/* Takes out what holds nothing. */
static void settle_window(struct scan *s, const struct window *w)
{
	LOCKED(&s->lock);
	int r = 0;

	for (unsigned i = 0; r == 0 && i < WINDOW_WORDS; i++)
		r = occupancy_keep(s->o, w->first_word + i, w->data[i]);
	for (unsigned unit = 0; unit < WINDOW_UNITS; unit++) {
		if (!test_unit(w->data, unit))
			s->bytes_gone += w->allocated[unit];
	}
	s->cost += w->cost;
	if (r == 0 && s->cost > s->cost_max)
		r = -EFBIG;
	if (r < 0 && !s->error)
		s->error = r;
}

/* Does anybody wait for it, and is the source still the same? */
static int check(const struct image *image)
{
	int r = image_verify(image);

	if (r == 0 && image->context->interrupted && image->context->interrupted())
		r = -EINTR;
	return r;
}

/* Looks at windows until there are no more. The thread whose request it is also checks. */
static void look(struct scan *s, bool checks)
{
	struct looker *l = calloc(1, sizeof(*l));
	int r = l ? 0 : -ENOMEM;

	if (l)
		l->image = s->image;
	while (r == 0 && take_window(s, &l->window)) {
		if (checks)
			r = check(s->image);
		if (r == 0)
			r = look_at_window(l);
		if (r == 0)
			settle_window(s, &l->window);
	}
	/* Without memory a helper leaves it to the others. */
	if (r < 0 && (l || checks))
		fail(s, r);
	free(l);
}

/*
 * ---- threads ----
 *
 * Not the crew's: they are at it for as long as it takes to read the image, and reads of others
 * want the crew meanwhile. Over all images there are as many as the crew has.
 */

static void *help(void *scan)
{
	pthread_setname_np(pthread_self(), "imgfs-zeroes");
	look(scan, false);
	return NULL;
}

static atomic_uint helpers_at_work;

static bool take_turn(void)
{
	if (atomic_fetch_add(&helpers_at_work, 1) < crew_suggested())
		return true;
	atomic_fetch_sub(&helpers_at_work, 1);
	return false;
}

/* This thread does what there is to do, with those that there are turns and work for. */
static void look_together(struct scan *s)
{
	uint64_t windows = occupancy_count(s->o) / WINDOW_UNITS;
	uint64_t wanted = min_u64(crew_suggested(), windows);
	pthread_t threads[CREW_MAX];
	unsigned started = 0;

	while (started < wanted && take_turn()) {
		if (!crew_start_thread(&threads[started], help, s)) {
			atomic_fetch_sub(&helpers_at_work, 1);
			break;
		}
		started++;
	}
	look(s, true);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	atomic_fetch_sub(&helpers_at_work, started);
}

static uint64_t cost_max(const struct image *image)
{
	uint64_t sum = COST_FREE;

	for (size_t i = 0; i < image->member_count; i++)
		sum += 2 * 512 * image->members[i].file->blocks;
	return sum;
}

int zeroes_take_out(const struct image *image, struct occupancy *o)
{
	struct scan s = { .image = image, .o = o, .cost_max = cost_max(image) };
	int r;

	pthread_mutex_init(&s.lock, NULL);
	look_together(&s);
	pthread_mutex_destroy(&s.lock);
	/* What was seen counts only if it is of the state that was opened. */
	r = image_verify(image);
	if (r < 0)
		return r;
	if (s.error)
		return s.error;
	occupancy_refit(o, s.bytes_gone);
	return 0;
}
