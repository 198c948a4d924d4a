/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VMDK descriptor text (VMware "Virtual Disk Format 1.1", the descriptor file):
 *
 *	# Disk DescriptorFile            comments and blank lines anywhere
 *	version=1
 *	encoding="UTF-8"                 ignored: names are bytes
 *	CID=0123abcd                     hex; what a child's parentCID must repeat
 *	parentCID=ffffffff               no parent
 *	createType="twoGbMaxExtentSparse"
 *	parentFileNameHint="base.vmdk"   with a parent only
 *	RW 4192256 SPARSE "a-s001.vmdk"  ACCESS SECTORS TYPE ["FILE" [OFFSET …]]
 *	ddb.adapterType = "lsilogic"     the disk data base: for hypervisors
 *
 * Tools differ in what they write: CRLF, a byte order mark, blanks before lines, keys in any
 * case and order, keys that nobody else knows, NUL padding. All of that is read. A line that is
 * none of the above is not skipped, because it may be an extent, without which all later ones
 * would lie at the wrong place.
 */
#include "descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "imgfs/checked.h"
#include "imgfs/image.h"
#include "imgfs/log.h"

/* 1 to 3 are what hosted products and QEMU know; ESXi 7 writes 4 over the same grammar. */
#define VERSION_MAX 4

/* ---- lines and words ---- */

struct text {
	const char *at, *end;
	unsigned line; /* of the last line taken, from 1 */
};

static struct text text_open(const void *bytes, size_t length)
{
	struct text text = { .at = bytes, .end = (const char *)bytes + length };

	if (length >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0)
		text.at += 3;
	text.end = text.at + strnlen(text.at, (size_t)(text.end - text.at));
	return text;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static struct vmdk_slice trim(struct vmdk_slice s)
{
	while (s.length > 0 && is_blank(s.bytes[0])) {
		s.bytes++;
		s.length--;
	}
	while (s.length > 0 && is_blank(s.bytes[s.length - 1]))
		s.length--;
	return s;
}

static bool next_line(struct text *text, struct vmdk_slice *line)
{
	const char *newline;

	if (text->at == text->end)
		return false;
	newline = memchr(text->at, '\n', (size_t)(text->end - text->at));
	if (!newline)
		newline = text->end;
	*line = trim((struct vmdk_slice) { text->at, (size_t)(newline - text->at) });
	text->at = newline == text->end ? newline : newline + 1;
	text->line++;
	return true;
}

static bool same_word(struct vmdk_slice s, const char *word)
{
	return s.length == strlen(word) && strncasecmp(s.bytes, word, s.length) == 0;
}

static bool contains(struct vmdk_slice s, const char *word)
{
	size_t length = strlen(word);

	for (size_t i = 0; i + length <= s.length; i++) {
		if (strncasecmp(s.bytes + i, word, length) == 0)
			return true;
	}
	return false;
}

/* Takes a word, up to a blank or a quote, from the front of *s, and the blanks after it. */
static struct vmdk_slice take_word(struct vmdk_slice *s)
{
	struct vmdk_slice word = { s->bytes, 0 };

	while (word.length < s->length && !is_blank(s->bytes[word.length]) &&
		s->bytes[word.length] != '"')
		word.length++;
	*s = trim((struct vmdk_slice) { s->bytes + word.length, s->length - word.length });
	return word;
}

/* Takes "…" from the front of *s. */
static bool take_quoted(struct vmdk_slice *s, struct vmdk_slice *content)
{
	const char *close;

	if (s->length == 0 || s->bytes[0] != '"')
		return false;
	close = memchr(s->bytes + 1, '"', s->length - 1);
	if (!close)
		return false;
	*content = (struct vmdk_slice) { s->bytes + 1, (size_t)(close - s->bytes) - 1 };
	*s = trim((struct vmdk_slice) { close + 1, (size_t)(s->bytes + s->length - close) - 1 });
	return true;
}

static bool parse_decimal(struct vmdk_slice s, uint64_t *value)
{
	*value = 0;
	for (size_t i = 0; i < s.length; i++) {
		if (!is_digit(s.bytes[i]) || !checked_mul(*value, 10, value) ||
			!checked_add(*value, (uint64_t)(s.bytes[i] - '0'), value))
			return false;
	}
	return s.length > 0;
}

static bool parse_hex32(struct vmdk_slice s, uint32_t *value)
{
	*value = 0;
	for (size_t i = 0; i < s.length; i++) {
		char c = s.bytes[i];
		unsigned digit;

		if (is_digit(c))
			digit = (unsigned)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (unsigned)(c - 'a') + 10;
		else if (c >= 'A' && c <= 'F')
			digit = (unsigned)(c - 'A') + 10;
		else
			return false;
		*value = *value << 4 | digit;
	}
	return s.length > 0 && s.length <= 8;
}

static struct quoted shown(struct vmdk_slice s)
{
	return quote_bytes(s.bytes, s.length);
}

/* ---- key = value ---- */

static const struct {
	const char *name;
	enum vmdk_create_type type;
} create_types[] = {
	{ "monolithicSparse", VMDK_CREATE_SINGLE },
	{ "streamOptimized", VMDK_CREATE_SINGLE },
	{ "monolithicFlat", VMDK_CREATE_FILES },
	{ "twoGbMaxExtentSparse", VMDK_CREATE_FILES },
	{ "twoGbMaxExtentFlat", VMDK_CREATE_FILES },
	{ "2GbMaxExtentSparse", VMDK_CREATE_FILES },
	{ "2GbMaxExtentFlat", VMDK_CREATE_FILES },
	{ "vmfs", VMDK_CREATE_FILES },
	{ "vmfsThin", VMDK_CREATE_FILES },
	{ "vmfsPreallocated", VMDK_CREATE_FILES },
	{ "vmfsEagerZeroedThick", VMDK_CREATE_FILES },
	{ "vmfsSparse", VMDK_CREATE_FILES },
	{ "seSparse", VMDK_CREATE_FILES },
	{ "custom", VMDK_CREATE_FILES },
	/* Parts of it may be files; those that are devices are refused one by one. */
	{ "partitionedDevice", VMDK_CREATE_FILES },
	{ "fullDevice", VMDK_CREATE_DEVICE },
	{ "vmfsRaw", VMDK_CREATE_DEVICE },
	{ "vmfsRDM", VMDK_CREATE_DEVICE },
	{ "vmfsRDMP", VMDK_CREATE_DEVICE },
	{ "vmfsRawDeviceMap", VMDK_CREATE_DEVICE },
	{ "vmfsPassthroughRawDeviceMap", VMDK_CREATE_DEVICE },
};

static void find_create_type(struct vmdk_slice name, struct vmdk_descriptor *d)
{
	d->create_type = VMDK_CREATE_UNKNOWN;
	for (size_t i = 0; i < sizeof(create_types) / sizeof(create_types[0]); i++) {
		if (!same_word(name, create_types[i].name))
			continue;
		d->create_type = create_types[i].type;
		d->variant = create_types[i].name;
	}
}

static int twice(const char *key, unsigned line, struct why *why)
{
	return why_set(
		why, -EINVAL, "line %u: %s for the second time, with another value", line, key);
}

/* Readers disagree on which of two lines counts, so two that differ are refused. */
static int set_cid(const char *key, struct vmdk_slice value, unsigned line, bool *has,
	uint32_t *slot, struct why *why)
{
	uint32_t cid;

	if (!parse_hex32(value, &cid))
		return why_set(
			why, -EINVAL, "line %u: %s is not up to 8 hexadecimal digits", line, key);
	if (*has && *slot != cid)
		return twice(key, line, why);
	*has = true;
	*slot = cid;
	return 0;
}

static int set_text(const char *key, struct vmdk_slice value, unsigned line,
	struct vmdk_slice *slot, struct why *why)
{
	if (slot->bytes && (slot->length != value.length ||
				   memcmp(slot->bytes, value.bytes, value.length) != 0))
		return twice(key, line, why);
	*slot = value;
	return 0;
}

static int set_version(
	struct vmdk_descriptor *d, struct vmdk_slice value, unsigned line, struct why *why)
{
	uint64_t version;

	if (!parse_decimal(value, &version) || version == 0)
		return why_set(why, -EINVAL, "line %u: the version is not a number", line);
	if (version > VERSION_MAX)
		return why_set(why, -ENOTSUP, "line %u: descriptors of version %s are not known",
			line, shown(value).text);
	if (d->version != 0 && d->version != version)
		return twice("version", line, why);
	d->version = (uint32_t)version;
	return 0;
}

/* A key is one word. More of them before the '=' are a damaged extent whose file name holds one. */
static bool is_key(struct vmdk_slice s)
{
	struct vmdk_slice word = take_word(&s);

	return word.length > 0 && s.length == 0;
}

/* The value of a "key = value" line, without its quotes. */
static int split(struct vmdk_slice line, struct vmdk_slice *key, struct vmdk_slice *value)
{
	const char *equals = memchr(line.bytes, '=', line.length);
	struct vmdk_slice rest;

	if (!equals)
		return -EINVAL;
	*key = trim((struct vmdk_slice) { line.bytes, (size_t)(equals - line.bytes) });
	if (!is_key(*key))
		return -EINVAL;
	rest = trim((struct vmdk_slice) {
		equals + 1, (size_t)(line.bytes + line.length - equals) - 1 });
	*value = rest;
	if (rest.length > 0 && rest.bytes[0] == '"' && !take_quoted(&rest, value))
		return -EBADMSG;
	return 0;
}

static int parse_key(
	struct vmdk_descriptor *d, struct vmdk_slice text, unsigned line, struct why *why)
{
	struct vmdk_slice key, value;
	int r = split(text, &key, &value);

	if (r == -EBADMSG)
		return why_set(why, -EINVAL, "line %u: the quotes of %s are not closed", line,
			shown(key).text);
	if (r < 0)
		return why_set(why, -EINVAL,
			"line %u: neither a comment nor key=value nor an extent", line);
	if (same_word(key, "version"))
		return set_version(d, value, line, why);
	if (same_word(key, "CID"))
		return set_cid("CID", value, line, &d->has_cid, &d->cid, why);
	if (same_word(key, "parentCID"))
		return set_cid("parentCID", value, line, &d->has_parent_cid, &d->parent_cid, why);
	if (same_word(key, "createType")) {
		find_create_type(value, d);
		return set_text("createType", value, line, &d->create_name, why);
	}
	if (same_word(key, "parentFileNameHint"))
		return set_text("parentFileNameHint", value, line, &d->parent_hint, why);
	/* What vSphere leaves in the descriptor of a disk that it has encrypted. */
	if (same_word(key, "encryptionKeys") ||
		(same_word(key, "ddb.iofilters") && contains(value, "vmwarevmcrypt")))
		d->encrypted = true;
	return 0;
}

/* ---- extents ---- */

static bool find_access(struct vmdk_slice word, enum vmdk_access *access)
{
	static const char *const names[] = {
		[VMDK_RW] = "RW",
		[VMDK_RDONLY] = "RDONLY",
		[VMDK_NOACCESS] = "NOACCESS",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (same_word(word, names[i])) {
			*access = (enum vmdk_access)i;
			return true;
		}
	}
	return false;
}

static bool find_extent_type(struct vmdk_slice word, enum vmdk_extent_type *type)
{
	static const char *const names[] = {
		[VMDK_FLAT] = "FLAT",
		[VMDK_SPARSE] = "SPARSE",
		[VMDK_ZERO] = "ZERO",
		[VMDK_VMFS] = "VMFS",
		[VMDK_VMFSSPARSE] = "VMFSSPARSE",
		[VMDK_SESPARSE] = "SESPARSE",
		[VMDK_VMFSRDM] = "VMFSRDM",
		[VMDK_VMFSRAW] = "VMFSRAW",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (same_word(word, names[i])) {
			*type = (enum vmdk_extent_type)i;
			return true;
		}
	}
	return false;
}

/* The file name and the offset: everything after the type. */
static int parse_place(struct vmdk_slice rest, struct vmdk_extent_line *extent, struct why *why)
{
	bool flat = extent->type == VMDK_FLAT || extent->type == VMDK_VMFS;

	if (extent->type == VMDK_ZERO)
		return 0;
	if (rest.length > 0 && !take_quoted(&rest, &extent->name))
		return why_set(why, -EINVAL, "line %u: the extent's file name is not in quotes",
			extent->line);
	if (extent->access == VMDK_NOACCESS)
		return 0;
	if (extent->name.length == 0)
		return why_set(why, -EINVAL, "line %u: the extent names no file", extent->line);
	/* What follows the offset (a partition's UUID, a device's name) is for others. */
	if (rest.length > 0 && !parse_decimal(take_word(&rest), &extent->offset))
		return why_set(
			why, -EINVAL, "line %u: the extent's offset is not a number", extent->line);
	if (extent->offset != 0 && !flat)
		return why_set(why, -EINVAL, "line %u: a sparse extent at an offset", extent->line);
	return 0;
}

static int append_extent(
	struct vmdk_descriptor *d, const struct vmdk_extent_line *extent, struct why *why)
{
	struct vmdk_extent_line *grown;

	if (d->extent_count == IMAGE_MAX_FILES)
		return why_set(why, -EINVAL, "it has more than %d extents", IMAGE_MAX_FILES);
	if (!checked_add(d->sectors, extent->sectors, &d->sectors) ||
		d->sectors > (uint64_t)INT64_MAX / VMDK_SECTOR)
		return why_set(why, -EINVAL, "line %u: the disk would be larger than 2^63 bytes",
			extent->line);
	grown = reallocarray(d->extents, d->extent_count + 1, sizeof(*grown));
	if (!grown)
		return why_set(why, -ENOMEM, "out of memory");
	d->extents = grown;
	grown[d->extent_count++] = *extent;
	return 0;
}

static int parse_extent(struct vmdk_descriptor *d, enum vmdk_access access, struct vmdk_slice rest,
	unsigned line, struct why *why)
{
	struct vmdk_extent_line extent = { .line = line, .access = access };
	struct vmdk_slice word = take_word(&rest);
	int r;

	if (!parse_decimal(word, &extent.sectors) || extent.sectors == 0)
		return why_set(
			why, -EINVAL, "line %u: an extent of %s sectors", line, shown(word).text);
	word = take_word(&rest);
	if (!find_extent_type(word, &extent.type))
		return why_set(why, -ENOTSUP, "line %u: extents of type %s are not supported", line,
			shown(word).text);
	r = parse_place(rest, &extent, why);
	if (r < 0)
		return r;
	return append_extent(d, &extent, why);
}

static int parse_line(
	struct vmdk_descriptor *d, struct vmdk_slice text, unsigned line, struct why *why)
{
	struct vmdk_slice rest = text;
	enum vmdk_access access;

	if (text.length == 0 || text.bytes[0] == '#')
		return 0;
	if (find_access(take_word(&rest), &access) && !(rest.length > 0 && rest.bytes[0] == '='))
		return parse_extent(d, access, rest, line, why);
	return parse_key(d, text, line, why);
}

int vmdk_descriptor_parse(
	const void *bytes, size_t length, struct vmdk_descriptor *d, struct why *why)
{
	struct text text = text_open(bytes, length);
	struct vmdk_slice line;
	int r = 0;

	*d = (struct vmdk_descriptor) { .parent_cid = VMDK_NO_PARENT };
	while (r == 0 && next_line(&text, &line))
		r = parse_line(d, line, text.line, why);
	if (r < 0)
		vmdk_descriptor_free(d);
	return r;
}

void vmdk_descriptor_free(struct vmdk_descriptor *d)
{
	free(d->extents);
	d->extents = NULL;
	d->extent_count = 0;
}

/* ---- recognition ---- */

/* "# Disk DescriptorFile"; some write it without the first blank or with a third one. */
static bool is_title(struct vmdk_slice line)
{
	static const char title[] = "#diskdescriptorfile";
	size_t at = 0;

	for (size_t i = 0; i < line.length; i++) {
		if (is_blank(line.bytes[i]))
			continue;
		if (at == sizeof(title) - 1 || strncasecmp(&line.bytes[i], &title[at], 1) != 0)
			return false;
		at++;
	}
	return at == sizeof(title) - 1;
}

bool vmdk_descriptor_probe(const void *head, size_t length)
{
	struct text text = text_open(head, length);
	struct vmdk_slice line, key, value;
	uint64_t version;

	while (next_line(&text, &line)) {
		if (text.line == 1 && is_title(line))
			return true;
		if (line.length == 0 || line.bytes[0] == '#')
			continue;
		if (split(line, &key, &value) < 0)
			return false;
		if (!same_word(key, "encoding"))
			return same_word(key, "version") && parse_decimal(value, &version);
	}
	return false;
}

bool vmdk_descriptor_mentions_files(const void *bytes, size_t length)
{
	struct vmdk_slice all = { bytes, length };

	return contains(all, "parentFileNameHint") || contains(all, "changeTrackPath");
}
