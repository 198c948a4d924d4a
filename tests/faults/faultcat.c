/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faultcat: is an image ever read wrong because something fails?
 *
 *     faultcat [-s] [-r none|family|datastore] [-F GLOB:FORMAT] ROOT PATH
 *
 * The image is read as every view while all goes well. Then system calls return short or fail,
 * every first, second, third, ... one, and allocations find no memory, each in turn. What is
 * read must be the same bytes, or an error of the kind that was made; and once nothing fails any
 * more, the same objects must read right from end to end, and leave nothing behind.
 *
 * Exit status: 0; 1 something was wrong, and standard error says what and under which fault;
 * 64 usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/datastore/keeper.h"
#include "imgfs/cache.h"
#include "imgfs/image.h"
#include "imgfs/view.h"
#include "tests/tools/formats.h"
#include "inject.h"
#include "samples.h"

#define MAX_VIEWS   16
#define CACHE_BYTES (1u << 20) /* small, so that it is full at times */

/* So many samples of each view where every allocation has its turn. */
#define FEW 6

struct subject {
	struct image_context context;
	const char *path;
	struct samples *expected[MAX_VIEWS]; /* NULL: there is no such view */

	/* Open at the moment, or NULL. */
	struct datastore *datastore; /* the same as the context's */
	struct image *image;
	struct view *views[MAX_VIEWS];
};

static void close_all(struct subject *s)
{
	for (size_t i = 0; every_format(i); i++) {
		view_close(s->views[i]);
		s->views[i] = NULL;
	}
	image_unref(s->image);
	s->image = NULL;
	cache_free(s->context.cache);
	s->context.cache = NULL;
	keeper_forget(s->datastore->keeper);
}

static bool take_samples(struct subject *s)
{
	struct why why = { "" };

	s->datastore->cache = s->context.cache = cache_new(CACHE_BYTES);
	if (!s->context.cache || image_open(&s->context, s->path, &s->image, &why) < 0) {
		fprintf(stderr, "%s: %s\n", s->path, why.text);
		return false;
	}
	for (size_t i = 0; every_format(i); i++) {
		int r = view_open(s->image, every_format(i), &s->views[i], &why);

		if (r == -EFBIG)
			continue;
		s->expected[i] = r == 0 ? samples_take(s->views[i]) : NULL;
		if (!s->expected[i]) {
			fprintf(stderr, "%s: %s\n", every_format(i)->name, why.text);
			return false;
		}
	}
	close_all(s);
	return true;
}

/* Opens what is not open, and holds every step-th sample against it. */
static bool look(struct subject *s, size_t wanted, struct tolerance *tolerance)
{
	struct why why = { "" };
	int r = 0;

	if (!s->image)
		r = image_open(&s->context, s->path, &s->image, &why);
	if (r < 0 && why.text[0] == '\0') {
		fprintf(stderr, "refused without a reason\n");
		return false;
	}
	if (!tolerated(tolerance, r, "open", 0))
		fprintf(stderr, "%s\n", why.text);
	if (r < 0)
		return r == tolerance->error;
	for (size_t i = 0; every_format(i); i++) {
		if (!s->expected[i])
			continue;
		if (!s->views[i])
			r = view_open(s->image, every_format(i), &s->views[i], &why);
		if (!tolerated(tolerance, r, every_format(i)->name, 0))
			return false;
		if (s->views[i] && !samples_hold(s->expected[i], s->views[i],
					   1 + s->expected[i]->count / wanted, tolerance))
			return false;
	}
	return true;
}

/* One life of the image: while calls fail, then without faults. */
static bool endure(struct subject *s, size_t wanted, int error, unsigned *errors)
{
	struct tolerance tolerance = { .error = error }, none = { 0 };
	bool good = look(s, wanted, &tolerance) && look(s, wanted, &tolerance);

	*errors = tolerance.errors;
	inject_nothing();
	if (good && !look(s, wanted, &none)) {
		fprintf(stderr, "after the faults had ended\n");
		good = false;
	}
	return good;
}

static bool begin(struct subject *s)
{
	s->datastore->cache = s->context.cache = cache_new(CACHE_BYTES);
	return s->context.cache != NULL;
}

struct fault {
	const char *name;
	enum inject_kind kind;
	int error;     /* of the call */
	int tolerated; /* what may come of it; 0: nothing */
	uint64_t from; /* it is bearable for every n-th call, n from here */
};

static const struct fault faults[] = {
	{ "short reads", INJECT_SHORT, 0, 0, 1 },
	{ "interrupted reads", INJECT_READ, EINTR, 0, 2 },
	{ "reads failing", INJECT_READ, EIO, -EIO, 1 },
	{ "fstat failing", INJECT_STAT, EIO, -EIO, 1 },
	{ "openat2 failing", INJECT_OPEN, EIO, -EIO, 1 },
	{ "openat2 to be repeated", INJECT_OPEN, EAGAIN, 0, 2 },
	{ "lseek failing", INJECT_SEEK, EIO, -EIO, 1 },
	{ "allocations failing", INJECT_ALLOC, ENOMEM, -ENOMEM, 1 },
};

static bool endure_fault(struct subject *s, const struct fault *fault, uint64_t every)
{
	int64_t before = inject_allocated();
	unsigned errors;
	bool good = begin(s);

	inject(fault->kind, every, 0, fault->error);
	/* Short and interrupted at once, too. */
	if (fault->kind == INJECT_SHORT && every > 1)
		inject(INJECT_READ, every + 1, 0, EINTR);
	good = good && endure(s, SAMPLES_MAX, fault->tolerated, &errors);
	close_all(s);
	if (good && inject_allocated() != before) {
		fprintf(stderr, "%" PRId64 " allocations left\n", inject_allocated() - before);
		good = false;
	}
	if (!good)
		fprintf(stderr, "%s: %s, every %" PRIu64 "th\n", s->path, fault->name, every);
	return good;
}

static bool endure_faults(struct subject *s)
{
	static const uint64_t every[] = { 1, 2, 3, 5, 7, 13 };

	for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++) {
		for (size_t i = 0; i < sizeof(every) / sizeof(every[0]); i++) {
			if (every[i] >= faults[f].from && !endure_fault(s, &faults[f], every[i]))
				return false;
		}
	}
	return true;
}

/* The n-th allocation alone fails, for each n, until there is none of that number. */
static bool endure_each_allocation(struct subject *s)
{
	bool found = true;

	for (uint64_t n = 1; found; n++) {
		int64_t before = inject_allocated();
		bool good = begin(s);

		inject(INJECT_ALLOC, n, 1, ENOMEM);
		good = good && look(s, FEW, &(struct tolerance) { .error = -ENOMEM });
		found = inject_faults(INJECT_ALLOC) > 0;
		inject_nothing();
		good = good && look(s, FEW, &(struct tolerance) { 0 });
		close_all(s);
		if (!good || inject_allocated() != before) {
			fprintf(stderr, "%s: allocation %" PRIu64 " failing; %" PRId64 " left\n",
				s->path, n, inject_allocated() - before);
			return false;
		}
	}
	return true;
}

/* ---- options ---- */

static bool parse_policy(const char *text, enum reference_policy *policy)
{
	static const char *const names[] = {
		[REFERENCES_NONE] = "none",
		[REFERENCES_FAMILY] = "family",
		[REFERENCES_DATASTORE] = "datastore",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*policy = (enum reference_policy)i;
			return true;
		}
	}
	return false;
}

/* GLOB:FORMAT; cuts the text in two. */
static bool parse_rule(char *text, struct format_rule *rule)
{
	char *colon = strrchr(text, ':');

	if (!colon)
		return false;
	*colon = '\0';
	rule->pattern = text;
	rule->format = image_format_by_name(colon + 1);
	return rule->format != NULL;
}

static int run(struct subject *s)
{
	bool good = take_samples(s) && endure_faults(s) && endure_each_allocation(s);

	close_all(s);
	for (size_t i = 0; every_format(i); i++)
		samples_free(s->expected[i]);
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	enum reference_policy policy = REFERENCES_FAMILY;
	struct format_rule rule;
	struct datastore ds;
	struct subject s = { .datastore = &ds, .context = { .datastore = &ds, .rules = &rule } };
	struct why why = { "" };
	bool scan_gzip = false;
	int option, status;

	while ((option = getopt(argc, argv, "+sr:F:")) >= 0) {
		bool good = option == 's' || (option == 'r' && parse_policy(optarg, &policy));

		scan_gzip = scan_gzip || option == 's';
		if (option == 'F' && parse_rule(optarg, &rule)) {
			s.context.rule_count = 1;
			good = true;
		}
		if (!good)
			argc = 0;
	}
	if (argc != optind + 2) {
		fprintf(stderr, "usage: faultcat [-s] [-r none|family|datastore] [-F GLOB:FORMAT]"
				" ROOT PATH\n");
		return 64;
	}
	if (datastore_open(&ds, argv[optind], policy, &why) < 0) {
		fprintf(stderr, "%s\n", why.text);
		return 1;
	}
	ds.scan_gzip = scan_gzip;
	s.path = argv[optind + 1];
	status = run(&s);
	datastore_close(&ds);
	return status;
}
