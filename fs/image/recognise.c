/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which format is a file?
 *
 * A guest can write any header into its raw disk, so content alone never gives an image the
 * right to name files, and a file whose suffix declares a format is that or nothing: a damaged
 * qcow2 served as raw would boot as garbage.
 */
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <string.h>
#include <strings.h>

#include "image_private.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Suffixes that declare a format which this build may not read. */
static const char *const foreign_suffixes[] = { "ova" };

/* Suffixes of raw disks, though a file that bears one may be anything. */
static const char *const raw_suffixes[] = { "img", "dd", "iso" };

/* What must never be taken for a raw disk, because its reader would see garbage. */
static const struct {
	unsigned offset;
	unsigned length;
	const char *bytes;
	const char *what;
} foreign_magics[] = {
	{ 0, 4, "QFI\xfb", "qcow of an unsupported version" },
	{ 0, 6, "LUKS\xba\xbe", "a LUKS container" },
	{ 0, 22, "Bochs Virtual HD Image", "a Bochs image" },
	{ 0, 16, "#!/bin/sh\n#V2.0 ", "a cloop image" },
	{ 0, 4, "kdmv", "a VMDK that was never finished" },
	{ 257, 5, "ustar", "a tar archive" },
	{ 0, 2, "\x1f\x8b", "compressed with gzip" },
	{ 0, 6,
		"\xfd"
		"7zXZ\0",
		"compressed with xz" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "compressed with zstd" },
	{ 0, 3, "BZh", "compressed with bzip2" },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct probe_bytes {
	uint8_t head[PROBE_BYTES];
	uint8_t tail[512];
	struct probe probe;
};

static int read_head(const struct file *file, struct probe_bytes *p, struct why *why)
{
	int r;

	p->probe = (struct probe) {
		.head = p->head,
		.head_length = min_u64(PROBE_BYTES, file->size),
		.size = file->size,
	};
	r = file_read(file, p->head, p->probe.head_length, 0);
	return r < 0 ? why_set(why, r, "reading it: %s", strerror(-r)) : 0;
}

static int read_tail(const struct file *file, struct probe_bytes *p, struct why *why)
{
	int r;

	if (file->size < sizeof(p->tail))
		return 0;
	r = file_read(file, p->tail, sizeof(p->tail), file->size - sizeof(p->tail));
	if (r < 0)
		return why_set(why, r, "reading it: %s", strerror(-r));
	p->probe.tail = p->tail;
	return 0;
}

static int read_probe(const struct file *file, struct probe_bytes *p, struct why *why)
{
	int r = read_head(file, p, why);

	return r < 0 ? r : read_tail(file, p, why);
}

const struct image_format *image_format_by_name(const char *name)
{
	for (const struct image_format *const *f = image_formats; *f; f++) {
		if (strcmp((*f)->name, name) == 0 ||
			((*f)->alias && strcmp((*f)->alias, name) == 0))
			return *f;
	}
	return NULL;
}

static bool is_raw(const struct image_format *format)
{
	return strcmp(format->name, "raw") == 0;
}

static const struct image_format *format_by_rule(
	const struct image_context *context, const char *path)
{
	const char *slash = strrchr(path, '/');

	for (size_t i = 0; i < context->rule_count; i++) {
		const struct format_rule *rule = &context->rules[i];

		if (fnmatch(rule->pattern, path, 0) == 0 ||
			(slash && fnmatch(rule->pattern, slash + 1, 0) == 0))
			return rule->format;
	}
	return NULL;
}

static bool is_in(const char *suffix, const char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (strcasecmp(suffix, list[i]) == 0)
			return true;
	}
	return false;
}

bool format_has_suffix(const struct image_format *format, const char *suffix)
{
	for (const char *const *s = format->suffixes; *s; s++) {
		if (strcasecmp(*s, suffix) == 0)
			return true;
	}
	return false;
}

/* One suffix may declare several formats (.qcow both of that name); their magic tells which. */
static int format_by_suffix(const struct file *file, const char *suffix,
	const struct image_format **format, struct why *why)
{
	struct probe_bytes bytes;
	int r;

	*format = NULL;
	for (const struct image_format *const *f = image_formats; *f; f++) {
		if (!format_has_suffix(*f, suffix))
			continue;
		if (!*format) {
			*format = *f;
			continue;
		}
		r = read_head(file, &bytes, why);
		if (r < 0)
			return r;
		if ((*f)->probe(&bytes.probe) >= 100)
			*format = *f;
	}
	return 0;
}

static const char *foreign_magic(const struct probe *probe)
{
	for (size_t i = 0; i < COUNT(foreign_magics); i++) {
		size_t end = foreign_magics[i].offset + foreign_magics[i].length;

		if (probe->head_length >= end &&
			memcmp(probe->head + foreign_magics[i].offset, foreign_magics[i].bytes,
				foreign_magics[i].length) == 0)
			return foreign_magics[i].what;
	}
	if (probe->tail && memcmp(probe->tail, "koly", 4) == 0)
		return "a DMG image";
	return NULL;
}

static const struct image_format *format_by_magic(const struct probe *probe)
{
	const struct image_format *best = NULL;
	int best_score = 1; /* raw's: it is not found by content */

	for (const struct image_format *const *f = image_formats; *f; f++) {
		int score = (*f)->probe(probe);

		if (score > best_score) {
			best = *f;
			best_score = score;
		}
	}
	return best;
}

/* No suffix, or one that says nothing: a number ("disk.0") or a long hash. */
static bool is_anonymous(const char *suffix)
{
	size_t length = strspn(suffix, "0123456789abcdefABCDEF");

	if (suffix[length] != '\0')
		return false;
	return length == 0 || length >= 16 || strspn(suffix, "0123456789") == length;
}

static bool looks_like_text(const struct probe *probe)
{
	for (size_t i = 0; i < probe->head_length; i++) {
		uint8_t c = probe->head[i];

		if (c < 0x20 && !isspace(c))
			return false;
	}
	return true;
}

/* A file without magic whose name does not say that it is a disk must at least look like one. */
static bool could_be_raw(const char *suffix, const struct probe *probe)
{
	if (is_in(suffix, raw_suffixes, COUNT(raw_suffixes)))
		return true;
	return is_anonymous(suffix) && probe->size > 0 && probe->size % 512 == 0 &&
	       !looks_like_text(probe);
}

static int recognise_by_content(const struct file *file, const char *suffix,
	const struct image_format **format, struct why *why)
{
	struct probe_bytes bytes;
	const char *foreign;
	int r = read_probe(file, &bytes, why);

	if (r < 0)
		return r;
	*format = format_by_magic(&bytes.probe);
	if (*format)
		return 0;
	if (!could_be_raw(suffix, &bytes.probe))
		return why_set(why, -ENOMEDIUM, "it is not a disk image");
	foreign = foreign_magic(&bytes.probe);
	if (foreign)
		return why_set(why, -ENOTSUP,
			"it is %s, which is not supported (-o format=GLOB:raw would show it as it "
			"is)",
			foreign);
	*format = image_format_by_name("raw");
	return 0;
}

int recognise_as(const struct file *file, const struct image_format *format, struct why *why)
{
	const struct image_format *other;
	struct probe_bytes bytes;
	const char *foreign;
	int r;

	if (is_raw(format))
		return 0;
	r = read_head(file, &bytes, why);
	if (r < 0)
		return r;
	if (format->probe(&bytes.probe) >= 100)
		return 0;
	r = read_tail(file, &bytes, why);
	if (r < 0)
		return r;
	if (format->probe(&bytes.probe) >= 100)
		return 0;
	other = format_by_magic(&bytes.probe);
	if (other)
		return why_set(
			why, -EINVAL, "it should be %s, but it is %s", format->name, other->name);
	foreign = foreign_magic(&bytes.probe);
	if (foreign)
		return why_set(
			why, -EINVAL, "it should be %s, but it is %s", format->name, foreign);
	return why_set(
		why, -EINVAL, "it should be %s, but it does not begin like one", format->name);
}

int recognise(const struct image_context *context, const struct file *file,
	const struct image_format **format, bool *declared, struct why *why)
{
	const char *last = path_name(file->path);
	const char *compression = name_compression(last);
	/* Of a compressed file that counts which is in it. */
	autofree char *name =
		strndup(last, compression ? (size_t)(compression - last) - 1 : strlen(last));
	const char *suffix;

	if (!name)
		return why_set(why, -ENOMEM, "out of memory");
	suffix = name_suffix(name);
	*format = format_by_rule(context, file->path);
	if (!*format) {
		int r = format_by_suffix(file, suffix, format, why);

		if (r < 0)
			return r;
	}
	*declared = *format != NULL;
	if (*format)
		return recognise_as(file, *format, why);
	if (is_in(suffix, foreign_suffixes, COUNT(foreign_suffixes)))
		return why_set(why, -ENOTSUP, "images of the format .%s are not supported", suffix);
	return recognise_by_content(file, suffix, format, why);
}
