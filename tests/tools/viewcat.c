/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viewcat: everything that a mount shows of one image, without a mount.
 *
 *     viewcat [-sz] [-r none|family|datastore] [-F GLOB:FORMAT]... [-n NAME] [-V OPTION=WORD]...
 *             ROOT PATH COMMAND [ARGS]
 *
 *     -z                    detect_zeroes
 *     -n NAME               by which the view is shown
 *     -V OPTION=WORD        adapter, hw_version, tools_version, sector_size, flat_type as a mount
 *                           has them
 *
 *     info                  format, size, files, and each view's size and blocks, and whether it
 *                           is the source as it is
 *     survey DIRECTORY      the same, and what of each view cannot be read (survey.h)
 *     cat VIEW              the whole view
 *     copy VIEW OUT         the same into a file, holes left out as `cp --sparse` does
 *     map VIEW              START END data|hole, a line each
 *     dump VIEW             the regions
 *     read VIEW OFF LEN     a part
 *     check VIEW SEED N     N random reads, and every hole, against one reading from end to end
 *
 * Exit status: 0; 1 check found a difference; 2 refused; 3 not an image; 4 a read failed;
 * 5 something on this side failed (output, memory); 64 usage.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "imgfs/cache.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/crew.h"
#include "imgfs/image.h"
#include "imgfs/view.h"
#include "formats.h"
#include "survey.h"
#include "viewoption.h"

#define STATUS_DIFFERENT 1
#define STATUS_REFUSED   2
#define STATUS_NO_IMAGE  3
#define STATUS_READ      4
#define STATUS_OWN       5
#define STATUS_USAGE     64

#define CACHE_BYTES      (16u << 20)
#define STEP             (1u << 20) /* how much one read asks for */
#define RULES_MAX        16

/* check: up to here the whole view is kept in memory; beyond, in a file; */
#define CHECK_IN_MEMORY (256ull << 20)
/* and beyond this the holes are believed instead of read from end to end. */
#define CHECK_BELIEVE_HOLES (1ull << 30)
#define CHECK_LONGEST       (200u << 10)

/* How a mount would show the views; set by the command line. */
static struct view_options view_options;
static const char *view_name;

static const char *errno_name(int err)
{
	const char *name = strerrorname_np(-err);

	return name ? name : "?";
}

static int own_failure(const char *what)
{
	fprintf(stderr, "viewcat: %s: %s\n", what, strerror(errno));
	return STATUS_OWN;
}

static int read_failure(int err, uint64_t offset)
{
	fprintf(stderr, "read: %s at %" PRIu64 "\n", errno_name(err), offset);
	return STATUS_READ;
}

static int refused(int err, const struct why *why)
{
	if (err == -ENOMEDIUM) {
		fprintf(stderr, "not an image\n");
		return STATUS_NO_IMAGE;
	}
	fprintf(stderr, "refused: %s: %s\n", errno_name(err), why->text);
	return STATUS_REFUSED;
}

/* ---- output ---- */

static int write_all(int fd, const uint8_t *bytes, uint64_t length)
{
	while (length > 0) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno != EINTR)
			return own_failure("write");
		if (n > 0) {
			bytes += n;
			length -= (uint64_t)n;
		}
	}
	return 0;
}

static int write_at(int fd, const uint8_t *bytes, uint64_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, bytes, length, (off_t)offset);

		if (n < 0 && errno != EINTR)
			return own_failure("write");
		if (n > 0) {
			bytes += n;
			length -= (uint64_t)n;
			offset += (uint64_t)n;
		}
	}
	return 0;
}

/* Reads [start, end) of the view a step at a time; to fd at the same offset, or to its end. */
static int transfer(const struct view *view, uint64_t start, uint64_t end, int fd, bool in_place)
{
	autofree uint8_t *buffer = malloc(STEP);

	if (!buffer)
		return own_failure("memory");
	while (start < end) {
		uint64_t done, length = min_u64(end - start, STEP);
		int status, err = view_read(view, start, length, buffer, &done);

		if (err)
			return read_failure(err, start);
		if (done != length) {
			fprintf(stderr, "read: %" PRIu64 " bytes of %" PRIu64 " at %" PRIu64 "\n",
				done, length, start);
			return STATUS_READ;
		}
		status = in_place ? write_at(fd, buffer, done, start) : write_all(fd, buffer, done);
		if (status)
			return status;
		start += done;
	}
	return 0;
}

/* ---- data and holes, by lseek's rules ---- */

typedef int range_visit(void *argument, uint64_t start, uint64_t end, bool data);

static int seek_failure(const char *what, int err, uint64_t offset)
{
	fprintf(stderr, "seek %s: %s at %" PRIu64 "\n", what, err ? errno_name(err) : "went astray",
		offset);
	return STATUS_READ;
}

/* Visits all ranges of the view in order. A visitor's status other than 0 ends it. */
static int each_range(const struct view *view, range_visit *visit, void *argument)
{
	uint64_t at = 0;

	while (at < view->size) {
		uint64_t data, hole;
		int status, err = view_seek_data(view, at, &data);

		if (err == -ENXIO)
			return visit(argument, at, view->size, false);
		if (err || data < at || data >= view->size)
			return seek_failure("data", err, at);
		err = view_seek_hole(view, data, &hole);
		if (err || hole <= data || hole > view->size)
			return seek_failure("hole", err, data);
		status = data > at ? visit(argument, at, data, false) : 0;
		if (!status)
			status = visit(argument, data, hole, true);
		if (status)
			return status;
		at = hole;
	}
	return 0;
}

static int print_range(void *argument, uint64_t start, uint64_t end, bool data)
{
	(void)argument;
	printf("%" PRIu64 " %" PRIu64 " %s\n", start, end, data ? "data" : "hole");
	return 0;
}

struct copy {
	const struct view *view;
	int fd;
};

static int copy_range(void *argument, uint64_t start, uint64_t end, bool data)
{
	const struct copy *copy = argument;

	return data ? transfer(copy->view, start, end, copy->fd, true) : 0;
}

static int copy_sparse(const struct view *view, int fd)
{
	struct copy copy = { view, fd };

	if (ftruncate(fd, (off_t)view->size) < 0)
		return own_failure("ftruncate");
	return each_range(view, copy_range, &copy);
}

/* ---- check ---- */

/* The view as one reading from end to end gave it. */
struct reference {
	const struct view *view;
	uint8_t *bytes; /* NULL: in the file */
	int fd;
	uint64_t random;
};

/* splitmix64 */
static uint64_t next_random(struct reference *ref)
{
	uint64_t z = ref->random += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint64_t below(struct reference *ref, uint64_t limit)
{
	return limit ? next_random(ref) % limit : 0;
}

static int reference_make(struct reference *ref)
{
	const struct view *view = ref->view;
	const char *dir = getenv("TMPDIR");
	uint64_t done;
	int err;

	if (view->size > CHECK_IN_MEMORY) {
		ref->fd = open(dir ? dir : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (ref->fd < 0)
			return own_failure("temporary file");
		if (view->size > CHECK_BELIEVE_HOLES)
			return copy_sparse(view, ref->fd);
		return transfer(view, 0, view->size, ref->fd, true);
	}
	ref->bytes = malloc(view->size + 1);
	if (!ref->bytes)
		return own_failure("memory");
	for (uint64_t at = 0; at < view->size; at += done) {
		err = view_read(view, at, min_u64(STEP, view->size - at), ref->bytes + at, &done);
		if (err)
			return read_failure(err, at);
		if (done == 0)
			return read_failure(-ENODATA, at);
	}
	return 0;
}

/* Bytes of the reference, in its memory or through buffer. NULL: cannot be read. */
static const uint8_t *reference_bytes(
	const struct reference *ref, uint64_t offset, uint64_t length, uint8_t *buffer)
{
	if (ref->bytes)
		return ref->bytes + offset;
	for (uint64_t got = 0; got < length;) {
		ssize_t n = pread(ref->fd, buffer + got, length - got, (off_t)(offset + got));

		if (n <= 0)
			return NULL;
		got += (uint64_t)n;
	}
	return buffer;
}

static int hole_is_zero(void *argument, uint64_t start, uint64_t end, bool data)
{
	const struct reference *ref = argument;
	autofree uint8_t *buffer = malloc(STEP);

	if (!buffer)
		return own_failure("memory");
	if (ref->view->size > CHECK_BELIEVE_HOLES)
		return 0;
	for (uint64_t at = start; !data && at < end;) {
		uint64_t length = min_u64(end - at, STEP);
		const uint8_t *bytes = reference_bytes(ref, at, length, buffer);

		if (!bytes)
			return own_failure("reference");
		for (uint64_t i = 0; i < length; i++) {
			if (bytes[i] == 0)
				continue;
			fprintf(stderr, "hole at %" PRIu64 ".. holds data at %" PRIu64 "\n", start,
				at + i);
			return STATUS_DIFFERENT;
		}
		at += length;
	}
	return 0;
}

/* An offset where things happen: around a border of regions, in any region, at the end. */
static uint64_t pick_offset(struct reference *ref)
{
	const struct view *view = ref->view;
	const struct region *region = NULL;
	uint64_t border, spread = 1ull << below(ref, 18);

	if (view->region_count > 0)
		region = &view->regions[below(ref, view->region_count)];
	switch (below(ref, 4)) {
	case 0:
		border = region ? region->start : view->size;
		break;
	case 1:
		return region ? region->start + below(ref, region->end - region->start) : 0;
	case 2:
		border = view->size;
		break;
	default:
		return below(ref, view->size);
	}
	border += below(ref, spread);
	border -= min_u64(border, below(ref, spread));
	return border;
}

/* The bits of the length are chosen first, so that short reads are as frequent as long ones. */
static uint64_t pick_length(struct reference *ref)
{
	return 1 + below(ref, min_u64(1ull << below(ref, 19), CHECK_LONGEST));
}

static int check_one(struct reference *ref, uint8_t *buffer, uint8_t *other)
{
	uint64_t offset = pick_offset(ref), length = pick_length(ref);
	uint64_t done, expected = 0;
	const uint8_t *bytes;
	int err;

	if (offset < ref->view->size)
		expected = min_u64(length, ref->view->size - offset);
	buffer[expected] = 0xa5; /* nothing may be written past what is reported */
	err = view_read(ref->view, offset, length, buffer, &done);
	if (err)
		return read_failure(err, offset);
	if (done != expected || buffer[expected] != 0xa5) {
		fprintf(stderr,
			"read of %" PRIu64 " at %" PRIu64 " gave %" PRIu64 ", expected %" PRIu64
			"\n",
			length, offset, done, expected);
		return STATUS_DIFFERENT;
	}
	bytes = reference_bytes(ref, offset, expected, other);
	if (!bytes)
		return own_failure("reference");
	for (uint64_t i = 0; i < expected; i++) {
		if (bytes[i] == buffer[i])
			continue;
		fprintf(stderr, "read of %" PRIu64 " at %" PRIu64 " differs at %" PRIu64 "\n",
			length, offset, offset + i);
		return STATUS_DIFFERENT;
	}
	return 0;
}

static int check(const struct view *view, uint64_t seed, uint64_t rounds)
{
	struct reference ref = { .view = view, .fd = -1, .random = seed };
	autofree uint8_t *buffer = malloc(CHECK_LONGEST + 1);
	autofree uint8_t *other = malloc(CHECK_LONGEST + 1);
	int status;

	if (!buffer || !other)
		return own_failure("memory");
	status = reference_make(&ref);
	if (!status)
		status = each_range(view, hole_is_zero, &ref);
	for (uint64_t i = 0; !status && i < rounds; i++)
		status = check_one(&ref, buffer, other);
	free(ref.bytes);
	if (ref.fd >= 0)
		close(ref.fd);
	return status;
}

/* ---- commands ---- */

static int print_view(struct image *image, const struct view_format *format)
{
	struct why why = { "" };
	struct view *view;
	uint64_t blocks;
	int err = view_open_as(image, format, view_name, &view_options, &view, &why);

	if (err == -EFBIG) {
		printf("absent %s %s\n", format->name, why.text);
		return 0;
	}
	if (err) {
		fprintf(stderr, "view %s: %s: %s\n", format->name, errno_name(err), why.text);
		return STATUS_READ;
	}
	err = view_blocks(view, &blocks);
	if (!err)
		printf("view %s %" PRIu64 " blocks %" PRIu64 "%s\n", format->name, view->size,
			blocks, view->identity ? " as-is" : "");
	else
		fprintf(stderr, "view %s blocks: %s\n", format->name, errno_name(err));
	view_close(view);
	return err ? STATUS_READ : 0;
}

static int info(struct image *image)
{
	printf("format %s\n", image_format_of(image)->name);
	printf("size %" PRIu64 "\n", image_size(image));
	printf("standalone %d\n", image_is_standalone(image));
	printf("files %zu\n", image_file_count(image));
	for (size_t i = 0; every_format(i); i++) {
		int status = print_view(image, every_format(i));

		if (status)
			return status;
	}
	return 0;
}

static bool number(const char *text, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 0);
	return !errno && end != text && !*end && text[0] != '-';
}

static int copy_out(const struct view *view, const char *path)
{
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	return fd < 0 ? own_failure(path) : copy_sparse(view, fd);
}

static int read_part(const struct view *view, uint64_t offset, uint64_t length)
{
	uint64_t end = view->size;

	if (offset < end && length < end - offset)
		end = offset + length;
	return transfer(view, offset, end, STDOUT_FILENO, false);
}

struct command {
	const char *name;
	int arguments; /* after VIEW */
};

static const struct command commands[] = {
	{ "cat", 0 },
	{ "copy", 1 },
	{ "map", 0 },
	{ "dump", 0 },
	{ "read", 2 },
	{ "check", 2 },
};

static int run_command(const struct view *view, const char *name, char **args)
{
	uint64_t a, b;

	if (!strcmp(name, "cat"))
		return transfer(view, 0, view->size, STDOUT_FILENO, false);
	if (!strcmp(name, "copy"))
		return copy_out(view, args[0]);
	if (!strcmp(name, "map"))
		return each_range(view, print_range, NULL);
	if (!strcmp(name, "dump")) {
		view_dump(view, stdout);
		return 0;
	}
	if (!number(args[0], &a) || !number(args[1], &b))
		return STATUS_USAGE;
	return !strcmp(name, "read") ? read_part(view, a, b) : check(view, a, b);
}

static int on_view(struct image *image, const char *name, char **args)
{
	const struct view_format *format = format_called(args[0]);
	struct why why = { "" };
	struct view *view;
	int status, err;

	if (!format) {
		fprintf(stderr, "viewcat: no view format %s\n", args[0]);
		return STATUS_USAGE;
	}
	err = view_open_as(image, format, view_name, &view_options, &view, &why);
	if (err)
		return refused(err, &why);
	status = run_command(view, name, args + 1);
	view_close(view);
	return status;
}

static int survey_all(struct image *image, const char *directory)
{
	int err, status = info(image);

	if (status)
		return status;
	err = survey(image, directory);
	if (err)
		fprintf(stderr, "survey: %s\n", errno_name(err));
	if (err == -EBADMSG)
		return STATUS_DIFFERENT;
	return err ? STATUS_OWN : 0;
}

/* Are these the arguments of a command? */
static bool command_ok(int argc, char **argv)
{
	if (argc < 1)
		return false;
	if (!strcmp(argv[0], "info"))
		return argc == 1;
	if (!strcmp(argv[0], "survey"))
		return argc == 2;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[0], commands[i].name))
			return argc == 2 + commands[i].arguments;
	}
	return false;
}

static int run(const struct image_context *context, const char *path, char **argv)
{
	struct why why = { "" };
	struct image *image;
	int status, err = image_open(context, path, &image, &why);

	if (err)
		return refused(err, &why);
	if (!strcmp(argv[0], "info"))
		status = info(image);
	else if (!strcmp(argv[0], "survey"))
		status = survey_all(image, argv[1]);
	else
		status = on_view(image, argv[0], argv + 1);
	image_unref(image);
	if (fflush(stdout) && !status)
		status = own_failure("output");
	return status;
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
		if (strcmp(text, names[i]))
			continue;
		*policy = (enum reference_policy)i;
		return true;
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

static int usage(void)
{
	fprintf(stderr,
		"usage: viewcat [-sz] [-r none|family|datastore] [-F GLOB:FORMAT]... [-n NAME]"
		" [-V OPTION=WORD]... ROOT PATH"
		" info|survey|cat|copy|map|dump|read|check [ARGS]\n");
	return STATUS_USAGE;
}

int main(int argc, char **argv)
{
	enum reference_policy policy = REFERENCES_FAMILY;
	struct format_rule rules[RULES_MAX];
	struct image_context context = { .rules = rules };
	struct why why = { "" };
	struct datastore ds;
	bool scan_gzip = false;
	int option, status, err;

	view_options = view_options_default;
	while ((option = getopt(argc, argv, "+szr:F:n:V:")) >= 0) {
		if (option == 'n') {
			view_name = optarg;
			continue;
		}
		if (option == 'V' && view_option_read(&view_options, optarg))
			continue;
		if (option == 'r' && parse_policy(optarg, &policy))
			continue;
		if (option == 's') {
			scan_gzip = true;
			continue;
		}
		if (option == 'z') {
			context.detect_zeroes = true;
			continue;
		}
		if (option == 'F' && context.rule_count < RULES_MAX &&
			parse_rule(optarg, &rules[context.rule_count])) {
			context.rule_count++;
			continue;
		}
		return usage();
	}
	argv += optind;
	argc -= optind;
	if (argc < 2 || !command_ok(argc - 2, argv + 2))
		return usage();

	err = datastore_open(&ds, argv[0], policy, &why);
	if (err)
		return refused(err, &why);
	context.datastore = &ds;
	context.cache = cache_new(CACHE_BYTES);
	ds.cache = context.cache;
	ds.scan_gzip = scan_gzip;
	context.crew = crew_new(2);
	status = context.cache && context.crew ? run(&context, argv[1], argv + 2)
					       : own_failure("memory");
	crew_free(context.crew);
	cache_free(context.cache);
	datastore_close(&ds);
	return status;
}
