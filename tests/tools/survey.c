/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at everything that an image shows, for images with damage in them: a failed read does
 * not end it, but is asked for again in sectors, until what is lost is known exactly.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "survey.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/view.h"
#include "formats.h"

#define STEP   (1u << 20)
#define SHORT  65536u
#define SECTOR 512u
#define BAD    0xbd /* what is kept of a sector that cannot be read */

/* Of a longer range only both ends are read, and at last nothing more. */
#define RANGE_MAX (8u << 20)
#define END_BYTES (1u << 20)
#define READ_MAX  (64u << 20)

struct range {
	uint64_t start, end;
	int err;
};

struct look {
	const struct view *view;
	int fd;
	uint64_t read;      /* bytes so far */
	struct range asked; /* one line of output each, once it cannot grow */
	struct range bad;
	uint8_t buffer[STEP], other[SHORT];
};

static int astray(const struct look *l, const char *what, uint64_t at)
{
	fprintf(stderr, "%s: %s at %" PRIu64 "\n", l->view->format->name, what, at);
	return -EBADMSG;
}

/* ---- reporting ---- */

static void print_range(const struct look *l, const char *word, const struct range *r)
{
	if (r->start == r->end)
		return;
	printf("%s %s %" PRIu64 " %" PRIu64, word, l->view->format->name, r->start, r->end);
	if (r->err)
		printf(" %s", strerrorname_np(-r->err));
	printf("\n");
}

static void grow(const struct look *l, const char *word, struct range *r, uint64_t start,
	uint64_t end, int err)
{
	if (r->end != start || r->err != err) {
		print_range(l, word, r);
		*r = (struct range) { start, start, err };
	}
	r->end = end;
}

/* ---- reading ---- */

static bool is_zero(const uint8_t *bytes, uint64_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

/* Zeros stay holes: a view may be larger than a file can be. */
static int keep(struct look *l, uint64_t start, uint64_t length)
{
	ssize_t n;

	if (is_zero(l->buffer, length))
		return 0;
	n = pwrite(l->fd, l->buffer, length, (off_t)start);
	if (n < 0)
		return -errno;
	return (uint64_t)n == length ? 0 : -EIO;
}

static int keep_bad(struct look *l, uint64_t start, uint64_t length, int err)
{
	grow(l, "bad", &l->bad, start, start + length, err);
	memset(l->buffer, BAD, length);
	return keep(l, start, length);
}

/* From long reads down to sectors, as far as it takes. */
static int look_at(struct look *l, uint64_t start, uint64_t length, uint64_t step)
{
	for (uint64_t at = start, end = start + length; at < end; at += step) {
		uint64_t done = 0, want = min_u64(step, end - at);
		int err = view_read(l->view, at, want, l->buffer, &done);
		int r = 0;

		if (!err && done != want)
			return astray(l, "a short read", at);
		if (!err)
			r = keep(l, at, want);
		else if (step > SECTOR)
			r = look_at(l, at, want, step > SHORT ? SHORT : SECTOR);
		else
			r = keep_bad(l, at, want, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The bytes that are kept, zeros past their end. */
static int kept(struct look *l, uint64_t start, uint64_t length)
{
	ssize_t n = pread(l->fd, l->other, length, (off_t)start);

	if (n < 0)
		return -errno;
	memset(l->other + n, 0, length - (uint64_t)n);
	return 0;
}

/*
 * Again in short reads that begin in the middle of a unit: what holds for a byte does not depend on
 * what else is asked for.
 */
static int look_again(struct look *l, uint64_t start, uint64_t end)
{
	uint64_t want = SHORT / 2;

	for (uint64_t at = start; at < end; at += want, want = SHORT) {
		uint64_t done;
		int err, r = kept(l, at, want = min_u64(want, end - at));

		if (r < 0)
			return r;
		err = view_read(l->view, at, want, l->buffer, &done);
		if (err && !memchr(l->other, BAD, want))
			return astray(l, "a short read fails that a long one did not", at);
		if (!err && (done != want || memcmp(l->buffer, l->other, want) != 0))
			return astray(l, "a short read differs from a long one", at);
	}
	return 0;
}

static int look_between(struct look *l, uint64_t start, uint64_t end)
{
	int r;

	if (l->read >= READ_MAX)
		return 0;
	l->read += end - start;
	grow(l, "read", &l->asked, start, end, 0);
	r = look_at(l, start, end - start, STEP);
	return r < 0 ? r : look_again(l, start, end);
}

static int check_hole(struct look *l, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end; at += SHORT) {
		uint64_t want = min_u64(SHORT, end - at);
		int r = kept(l, at, want);

		if (r < 0)
			return r;
		if (!is_zero(l->other, want))
			return astray(l, "a hole holds data", at);
	}
	return 0;
}

static int look_over(struct look *l, uint64_t start, uint64_t end, bool data)
{
	struct range range = { start, end, 0 };
	uint64_t first = min_u64(end - start, end - start > RANGE_MAX ? END_BYTES : RANGE_MAX);
	int r = look_between(l, start, start + first);

	if (r == 0 && first < end - start)
		r = look_between(l, end - END_BYTES, end);
	if (r < 0 || data)
		return r;
	print_range(l, "hole", &range);
	if (first == end - start)
		return check_hole(l, start, end);
	r = check_hole(l, start, start + first);
	return r < 0 ? r : check_hole(l, end - END_BYTES, end);
}

/* ---- the views ---- */

static int look_through(struct look *l)
{
	uint64_t size = l->view->size, at = 0;
	int r = 0;

	while (at < size && r == 0) {
		uint64_t data, hole;
		int err = view_seek_data(l->view, at, &data);

		if (err == -ENXIO)
			return look_over(l, at, size, false);
		if (err || data < at || data >= size)
			return astray(l, "seeking data", at);
		err = view_seek_hole(l->view, data, &hole);
		if (err || hole <= data || hole > size)
			return astray(l, "seeking a hole", data);
		r = data > at ? look_over(l, at, data, false) : 0;
		if (r == 0)
			r = look_over(l, data, hole, true);
		at = hole;
	}
	return r;
}

static int survey_view(const struct view *view, const char *directory)
{
	autofree struct look *l = calloc(1, sizeof(*l));
	autofree char *path = NULL;
	autoclose int fd = -1;
	int r;

	if (!l || asprintf(&path, "%s/%s", directory, view->format->name) < 0)
		return -ENOMEM;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	l->view = view;
	l->fd = fd;
	r = look_through(l);
	print_range(l, "read", &l->asked);
	print_range(l, "bad", &l->bad);
	return r;
}

int survey(struct image *image, const char *directory)
{
	struct why why = { "" };
	struct view *view;
	int r = 0;

	for (size_t i = 0; every_format(i) && r == 0; i++) {
		r = view_open(image, every_format(i), &view, &why);
		if (r == -EFBIG) {
			r = 0;
			continue;
		}
		if (r < 0)
			return r;
		r = survey_view(view, directory);
		view_close(view);
	}
	return r;
}
