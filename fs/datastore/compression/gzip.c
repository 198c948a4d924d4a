/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip (RFC 1952): members, each one deflate stream from end to end. Neither how much is in one
 * nor where its blocks begin is written anywhere, so all of it is inflated once, where that is
 * allowed, and the inflater's state is noted every now and then: the place, to the bit, and the
 * 32 KiB before it, which is all that a deflate stream refers to (as zlib's examples/zran.c does).
 * That pass verifies the checksums too.
 *
 * Reads come in order for the most part. So inflaters that have come somewhere are kept for a
 * while, with the last that they gave: concurrent readers of one file ask a little out of order.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/compression.h"
#include "inflater.h"

#define WINDOW 32768u
#define BLOCK  (256u << 10) /* what is given to the cache at once */

/* Points are so far apart, in bytes of output, and twice as far whenever they take too much. */
#define SPAN_MIN (1u << 20)
#define ROOM_MIN (64u << 10)

struct point {
	uint64_t out, in;       /* in: the first byte of which all bits are still to come */
	uint32_t window_length; /* of the compressed window; 0: a member begins here */
	uint8_t bits;           /* of the byte before that are still to come as well */
	uint8_t *window;
};

struct points {
	size_t count, capacity;
	struct point *v;
	uint64_t span;
	size_t room; /* bytes that they may take */
	size_t taken;
	pthread_mutex_t lock; /* one inflates at a time */
};

static bool gzip_probe(const uint8_t *head, size_t length)
{
	return length >= 3 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8;
}

/* ---- the pass that finds the points ---- */

static size_t memory_of(const struct point *point)
{
	return sizeof(*point) + point->window_length;
}

/* Leaves every other point out. */
static void thin(struct points *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->count; i++) {
		if (i % 2 == 0) {
			p->v[kept++] = p->v[i];
		} else {
			p->taken -= memory_of(&p->v[i]);
			free(p->v[i].window);
		}
	}
	p->count = kept;
	p->span *= 2;
}

static int add_point(struct points *p, const struct point *point)
{
	if (p->count == p->capacity) {
		size_t capacity = p->capacity ? p->capacity * 2 : 16;
		struct point *grown = reallocarray(p->v, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		p->v = grown;
		p->capacity = capacity;
	}
	p->v[p->count++] = *point;
	p->taken += memory_of(point);
	while (p->taken > p->room && p->count > 1)
		thin(p);
	return 0;
}

struct scan {
	struct inflater inflater;
	struct points *points;
	uint8_t window[WINDOW]; /* a ring: the byte of output n is at n % WINDOW */
	uint8_t straight[WINDOW];
	uint8_t shrunk[WINDOW + (WINDOW >> 8) + 64];
};

/* The window of the point as it is to be given to an inflater, compressed. */
static int keep_window(struct scan *s, struct point *point)
{
	uint32_t at = (uint32_t)(point->out % WINDOW);
	uLongf length = sizeof(s->shrunk);

	memcpy(s->straight, s->window + at, WINDOW - at);
	memcpy(s->straight + WINDOW - at, s->window, at);
	if (compress2(s->shrunk, &length, s->straight, WINDOW, Z_BEST_SPEED) != Z_OK)
		return -ENOMEM;
	point->window = malloc(length);
	if (!point->window)
		return -ENOMEM;
	memcpy(point->window, s->shrunk, length);
	point->window_length = (uint32_t)length;
	return 0;
}

static bool is_due(const struct points *p, uint64_t out)
{
	return p->count == 0 || out - p->v[p->count - 1].out >= p->span;
}

/* The inflater is between two blocks of a member, or before a member. */
static int note_point(struct scan *s, bool member)
{
	const z_stream *z = &s->inflater.z;
	struct point point = { .out = s->inflater.out, .in = inflater_place(&s->inflater) };
	int r;

	if (!is_due(s->points, point.out))
		return 0;
	if (!member) {
		point.bits = z->data_type & 7;
		r = keep_window(s, &point);
		if (r < 0)
			return r;
	}
	r = add_point(s->points, &point);
	if (r < 0)
		free(point.window);
	return r;
}

/* Inflates up to the end of a deflate block, of the ring, or of the input. 1 at the end of all. */
static int scan_step(struct scan *s)
{
	struct inflater *f = &s->inflater;
	uint32_t at = (uint32_t)(f->out % WINDOW);
	int status, r = inflater_fill(f);

	if (r < 0)
		return r;
	if (f->z.avail_in == 0)
		return DAMAGED; /* in the middle of a member */
	f->z.next_out = s->window + at;
	f->z.avail_out = WINDOW - at;
	status = inflate(&f->z, Z_BLOCK);
	f->out += WINDOW - at - f->z.avail_out;
	if (status == Z_STREAM_END) {
		r = inflater_next_member(f);
		if (r <= 0)
			return r < 0 ? r : 1;
		return note_point(s, true);
	}
	if (status != Z_OK && status != Z_BUF_ERROR)
		return status == Z_MEM_ERROR ? -ENOMEM : DAMAGED;
	/* 128: at the end of a block (or header); 64: of the last one, where nothing can begin. */
	if ((f->z.data_type & 0xc0) == 0x80 && s->points->count > 0)
		return note_point(s, false);
	return 0;
}

static int scan(struct scan *s, const struct packed *packed)
{
	uint64_t looked = 0;
	int r = note_point(s, true);

	while (r == 0) {
		r = scan_step(s);
		if (s->inflater.out - looked >= 64 * SPAN_MIN) {
			looked = s->inflater.out;
			if (packed_interrupted(packed))
				return -EINTR;
		}
	}
	return r < 0 ? r : 0;
}

static void free_points(struct points *p)
{
	for (size_t i = 0; i < p->count; i++)
		free(p->v[i].window);
	free(p->v);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int find_points(const struct file *file, struct packed *packed, struct points *p)
{
	struct scan *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->points = p;
	r = inflater_start(&s->inflater, file, INFLATER_GZIP);
	if (r == 0)
		r = scan(s, packed);
	inflater_stop(&s->inflater);
	packed->size = s->inflater.out;
	free(s);
	return r;
}

/* What they take in the end, instead of what they might have taken. False: too much. */
static bool charge_points(struct packed *packed, const struct points *p)
{
	size_t memory = sizeof(*p) + p->taken + (p->capacity - p->count) * sizeof(*p->v);

	packed_discharge(packed, packed->memory);
	return packed_charge(packed, memory);
}

static int gzip_open(const struct file *file, struct packed *packed, struct why *why)
{
	struct points *p;
	int r;

	if (!packed->datastore->scan_gzip)
		return why_set(why, -ENOTSUP,
			"gzip does not say how much is in it and where, so all of it has to be "
			"read "
			"to know (-o scan_gzip allows that)");
	p = calloc(1, sizeof(*p));
	if (!p)
		return why_set(why, -ENOMEM, "out of memory");
	pthread_mutex_init(&p->lock, NULL);
	p->span = SPAN_MIN;
	/* Of what is left half, so that there is some for the next one. */
	p->room = packed_room(packed) / 2;
	if (p->room < ROOM_MIN || !packed_charge(packed, p->room)) {
		free_points(p);
		return why_set(
			why, -ENOMEM, "the indexes of compressed files take too much memory");
	}
	r = find_points(file, packed, p);
	if (r == 0 && !charge_points(packed, p))
		r = -ENOMEM;
	if (r == 0) {
		packed->state = p;
		return 0;
	}
	free_points(p);
	if (r == DAMAGED)
		return why_set(why, -EINVAL, "its gzip data are damaged");
	return why_set(why, r, "reading it: %s", strerror(-r));
}

static void gzip_find(const struct packed *packed, uint64_t offset, struct packed_block *block)
{
	block->start = offset - offset % BLOCK;
	block->length = min_u64(BLOCK, packed->size - block->start);
}

/* ---- inflaters that have come somewhere ---- */

#define CURSORS 8
#define PASSED  2 /* blocks that each has given last */

struct cursor {
	const struct points *points; /* whose it is; NULL: nobody's */
	struct inflater inflater;
	uint64_t passed_start[PASSED]; /* UINT64_MAX: none */
	unsigned next_passed;
	uint8_t *passed[PASSED];
	uint64_t used;
};

static struct cursor *cursors[CURSORS];
static uint64_t uses;
static pthread_mutex_t cursors_lock = PTHREAD_MUTEX_INITIALIZER;

static void free_cursor(struct cursor *c)
{
	if (!c)
		return;
	inflater_stop(&c->inflater);
	for (int i = 0; i < PASSED; i++)
		free(c->passed[i]);
	free(c);
}

/* Copies the block if a cursor has given it a moment ago. */
static bool find_passed(const struct points *p, const struct packed_block *block, uint8_t *bytes)
{
	LOCKED(&cursors_lock);

	for (int i = 0; i < CURSORS; i++) {
		for (int j = 0; cursors[i] && cursors[i]->points == p && j < PASSED; j++) {
			if (cursors[i]->passed_start[j] == block->start) {
				memcpy(bytes, cursors[i]->passed[j], block->length);
				return true;
			}
		}
	}
	return false;
}

/* Takes the cursor out that has come nearest to `out`, from `from` on; NULL for none. */
static struct cursor *take_cursor(const struct points *p, uint64_t from, uint64_t out)
{
	struct cursor *c;
	int best = -1;
	LOCKED(&cursors_lock);

	for (int i = 0; i < CURSORS; i++) {
		if (!cursors[i] || cursors[i]->points != p || cursors[i]->inflater.out < from ||
			cursors[i]->inflater.out > out)
			continue;
		if (best < 0 || cursors[i]->inflater.out > cursors[best]->inflater.out)
			best = i;
	}
	if (best < 0)
		return NULL;
	c = cursors[best];
	cursors[best] = NULL;
	return c;
}

/* Puts it back, in the place of the one that has not been used for longest. */
static void put_cursor(struct cursor *c)
{
	int oldest = 0;
	LOCKED(&cursors_lock);

	for (int i = 1; i < CURSORS && cursors[oldest]; i++) {
		if (!cursors[i] || cursors[i]->used < cursors[oldest]->used)
			oldest = i;
	}
	free_cursor(cursors[oldest]);
	c->used = ++uses;
	cursors[oldest] = c;
}

static void drop_cursors(const struct points *p)
{
	LOCKED(&cursors_lock);

	for (int i = 0; i < CURSORS; i++) {
		if (cursors[i] && cursors[i]->points == p) {
			free_cursor(cursors[i]);
			cursors[i] = NULL;
		}
	}
}

static const struct point *point_before(const struct points *p, uint64_t out)
{
	size_t low = 0, high = p->count - 1;

	while (low < high) {
		size_t middle = high - (high - low) / 2;

		if (p->v[middle].out <= out)
			low = middle;
		else
			high = middle - 1;
	}
	return &p->v[low];
}

/* Lets the inflater begin at a point. */
static int start_at(struct inflater *f, const struct file *file, const struct point *point)
{
	autofree uint8_t *window = malloc(WINDOW);
	uLongf length = WINDOW;
	uint8_t byte;
	int r = inflater_start(f, file, point->window_length > 0 ? INFLATER_RAW : INFLATER_GZIP);

	if (r < 0)
		return r;
	f->in = point->in;
	f->out = point->out;
	if (point->window_length == 0)
		return 0;
	if (point->bits > 0) {
		r = packed_read_stored(file, &byte, 1, point->in - 1);
		if (r < 0)
			return r;
		if (inflatePrime(&f->z, point->bits, byte >> (8 - point->bits)) != Z_OK)
			return DAMAGED;
	}
	if (!window || uncompress(window, &length, point->window, point->window_length) != Z_OK ||
		inflateSetDictionary(&f->z, window, WINDOW) != Z_OK)
		return -ENOMEM;
	return 0;
}

static int new_cursor(const struct points *p, const struct file *file, const struct point *point,
	struct cursor **cursor)
{
	struct cursor *c = calloc(1, sizeof(*c));
	int r = c ? start_at(&c->inflater, file, point) : -ENOMEM;

	for (int i = 0; r == 0 && i < PASSED; i++) {
		c->passed_start[i] = UINT64_MAX;
		c->passed[i] = malloc(BLOCK);
		if (!c->passed[i])
			r = -ENOMEM;
	}
	if (r < 0) {
		free_cursor(c);
		return r;
	}
	c->points = p;
	*cursor = c;
	return 0;
}

/* Goes on up to the block, and through it. Whole blocks on the way are remembered. */
static int inflate_to(struct cursor *c, const struct packed_block *block, uint8_t *bytes)
{
	struct inflater *f = &c->inflater;

	while (f->out < block->start) {
		uint64_t end = min_u64((f->out / BLOCK + 1) * BLOCK, block->start);
		unsigned slot = c->next_passed;
		bool whole = f->out % BLOCK == 0;
		int r;

		c->passed_start[slot] = UINT64_MAX;
		if (whole)
			c->next_passed = (slot + 1) % PASSED;
		end -= f->out;
		r = inflater_read(f, c->passed[slot], end);
		if (r < 0)
			return r;
		if (whole)
			c->passed_start[slot] = f->out - end;
	}
	return inflater_read(f, bytes, block->length);
}

static int unpack(const struct points *p, const struct file *file, const struct packed_block *block,
	uint8_t *bytes)
{
	const struct point *point = point_before(p, block->start);
	/* Who is but a little behind goes on, though a point may be nearer: it passes blocks. */
	uint64_t near = block->start - min_u64(block->start, PASSED * BLOCK);
	struct cursor *c;
	int r = 0;

	if (find_passed(p, block, bytes))
		return 0;
	c = take_cursor(p, min_u64(point->out, near), block->start);
	if (!c)
		r = new_cursor(p, file, point, &c);
	if (r < 0)
		return r;
	/* It may have been another opening of the same file that it came so far with. */
	c->inflater.file = file;
	r = inflate_to(c, block, bytes);
	if (r == 0)
		put_cursor(c);
	else
		free_cursor(c);
	return r;
}

static int gzip_unpack(const struct packed *packed, const struct file *file,
	const struct packed_block *block, uint8_t *bytes)
{
	struct points *p = packed->state;
	LOCKED(&p->lock);
	int r = unpack(p, file, block, bytes);

	return r == DAMAGED ? -EIO : r;
}

static void gzip_close(struct packed *packed)
{
	drop_cursors(packed->state);
	free_points(packed->state);
}

const struct compression compression_gzip = {
	.name = "gzip",
	.suffix = "gz",
	.probe = gzip_probe,
	.open = gzip_open,
	.find = gzip_find,
	.unpack = gzip_unpack,
	.close = gzip_close,
};
