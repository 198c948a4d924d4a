/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor of an OVA (DSP0243, versions 1 and 2): which files there are, and which of them
 * hold disks.
 *
 *     Envelope
 *         References
 *             File  id, href, size, compression, chunkSize
 *         DiskSection
 *             Disk  diskId, fileRef, …
 *
 * Namespaces have changed from version to version and tools disagree about prefixes, so names
 * count without them. A document type could only bring entities, which nobody needs: refused.
 */
#include "ovf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <expat.h>

#include "imgfs/archive.h"

struct parse {
	XML_Parser parser;
	struct ovf *ovf;
	unsigned depth;
	bool in_references;
	int error; /* -errno; 0 where expat says what is wrong */
	const char *reason;
};

static void stop(struct parse *p, int error, const char *reason)
{
	p->error = error;
	p->reason = reason;
	XML_StopParser(p->parser, XML_FALSE);
}

/* The name without its prefix. */
static const char *local(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon ? colon + 1 : name;
}

static const char *attribute(const char **attributes, const char *name)
{
	for (; *attributes; attributes += 2) {
		if (strcmp(local(attributes[0]), name) == 0)
			return attributes[1];
	}
	return NULL;
}

static bool read_number(const char *text, uint64_t *number)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

/* Room for one more of `size` bytes each. False: out of memory. */
static bool grow(void *list, size_t count, size_t *capacity, size_t size)
{
	void **items = list;
	size_t more = *capacity ? *capacity * 2 : 8;
	void *grown;

	if (count < *capacity)
		return true;
	grown = reallocarray(*items, more, size);
	if (!grown)
		return false;
	*items = grown;
	*capacity = more;
	return true;
}

static void add_file(struct parse *p, const char **attributes)
{
	struct ovf *ovf = p->ovf;
	const char *id = attribute(attributes, "id");
	const char *href = attribute(attributes, "href");
	const char *size = attribute(attributes, "size");
	const char *chunk_size = attribute(attributes, "chunkSize");
	const char *compression = attribute(attributes, "compression");
	struct ovf_file *file;

	if (!id || !href)
		return stop(p, -EINVAL, "its descriptor has a file without a name");
	if (ovf->count == ARCHIVE_MAX_FILES)
		return stop(p, -EINVAL, "its descriptor names too many files");
	if (!grow(&ovf->files, ovf->count, &ovf->capacity, sizeof(*ovf->files)))
		return stop(p, -ENOMEM, "out of memory");
	file = &ovf->files[ovf->count++];
	*file = (struct ovf_file) { .id = strdup(id), .href = strdup(href) };
	if (compression && *compression && strcasecmp(compression, "identity") != 0) {
		file->compression = strdup(compression);
		if (!file->compression)
			return stop(p, -ENOMEM, "out of memory");
	}
	if (!file->id || !file->href)
		return stop(p, -ENOMEM, "out of memory");
	file->has_size = size && read_number(size, &file->size);
	if (chunk_size && !read_number(chunk_size, &file->chunk_size))
		stop(p, -EINVAL, "its descriptor has a chunk size that is no number");
}

/* A disk without a file is an empty one, which is made when the machine is. */
static void add_disk(struct parse *p, const char **attributes)
{
	struct ovf *ovf = p->ovf;
	const char *file = attribute(attributes, "fileRef");

	if (!file)
		return;
	if (ovf->disk_count == ARCHIVE_MAX_FILES)
		return stop(p, -EINVAL, "its descriptor has too many disks");
	if (!grow(&ovf->disks, ovf->disk_count, &ovf->disk_capacity, sizeof(*ovf->disks)))
		return stop(p, -ENOMEM, "out of memory");
	ovf->disks[ovf->disk_count] = strdup(file);
	if (!ovf->disks[ovf->disk_count])
		return stop(p, -ENOMEM, "out of memory");
	ovf->disk_count++;
}

static void XMLCALL on_start(void *argument, const char *element, const char **attributes)
{
	struct parse *p = argument;
	const char *name = local(element);

	p->depth++;
	if (p->depth == 1 && strcmp(name, "Envelope") != 0)
		stop(p, -EINVAL, "its descriptor is not one of OVF");
	else if (p->depth == 2)
		p->in_references = strcmp(name, "References") == 0;
	else if (p->depth == 3 && p->in_references && strcmp(name, "File") == 0)
		add_file(p, attributes);
	else if (p->depth == 3 && !p->in_references && strcmp(name, "Disk") == 0)
		add_disk(p, attributes);
}

static void XMLCALL on_end(void *argument, const char *element)
{
	struct parse *p = argument;

	(void)element;
	p->depth--;
}

static void XMLCALL on_doctype(void *argument, const char *name, const char *system_id,
	const char *public_id, int has_internal_subset)
{
	(void)name, (void)system_id, (void)public_id, (void)has_internal_subset;
	stop(argument, -EINVAL, "its descriptor has a document type");
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void mark_disks(struct ovf *ovf)
{
	if (ovf->disk_count == 0)
		return;
	qsort(ovf->disks, ovf->disk_count, sizeof(*ovf->disks), compare_strings);
	for (size_t i = 0; i < ovf->count; i++)
		ovf->files[i].is_disk = bsearch(&ovf->files[i].id, ovf->disks, ovf->disk_count,
						sizeof(*ovf->disks), compare_strings) != NULL;
}

int ovf_parse(const char *text, size_t length, struct ovf *ovf, struct why *why)
{
	struct parse p = { .ovf = ovf };
	enum XML_Status status;

	*ovf = (struct ovf) { 0 };
	p.parser = XML_ParserCreate(NULL);
	if (!p.parser)
		return why_set(why, -ENOMEM, "out of memory");
	XML_SetUserData(p.parser, &p);
	XML_SetElementHandler(p.parser, on_start, on_end);
	XML_SetStartDoctypeDeclHandler(p.parser, on_doctype);
	status = XML_Parse(p.parser, text, (int)length, XML_TRUE);
	if (status != XML_STATUS_OK && p.error == 0) {
		p.error = XML_GetErrorCode(p.parser) == XML_ERROR_NO_MEMORY ? -ENOMEM : -EINVAL;
		why_set(why, p.error, "its descriptor is no XML: %s",
			XML_ErrorString(XML_GetErrorCode(p.parser)));
	} else if (p.error < 0) {
		why_set(why, p.error, "%s", p.reason);
	}
	XML_ParserFree(p.parser);
	if (p.error == 0)
		mark_disks(ovf);
	return p.error;
}

void ovf_free(struct ovf *ovf)
{
	for (size_t i = 0; i < ovf->count; i++) {
		free(ovf->files[i].id);
		free(ovf->files[i].href);
		free(ovf->files[i].compression);
	}
	for (size_t i = 0; i < ovf->disk_count; i++)
		free(ovf->disks[i]);
	free(ovf->files);
	free(ovf->disks);
	*ovf = (struct ovf) { 0 };
}
