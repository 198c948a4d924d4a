/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the members of a tar archive are. libarchive reads the headers, for there are many kinds
 * (ustar, GNU, pax; DSP0243 asks for the first, and tools write all of them); what is between
 * them is skipped.
 */
#include "tar.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include "imgfs/checked.h"

struct reader {
	const struct file *file;
	uint64_t position;
	uint64_t allowance; /* bytes that may still be read */
	int error;
	uint8_t buffer[8192];
};

static la_ssize_t read_some(struct archive *a, void *argument, const void **bytes)
{
	struct reader *reader = argument;
	uint64_t length = min_u64(sizeof(reader->buffer), reader->file->size - reader->position);

	(void)a;
	reader->error = 0;
	if (length > reader->allowance)
		reader->error = -EFBIG;
	else if (length > 0)
		reader->error = file_read(reader->file, reader->buffer, length, reader->position);
	if (reader->error < 0)
		return ARCHIVE_FATAL;
	reader->position += length;
	reader->allowance -= length;
	*bytes = reader->buffer;
	return (la_ssize_t)length;
}

static la_int64_t skip_some(struct archive *a, void *argument, la_int64_t request)
{
	struct reader *reader = argument;
	uint64_t length = min_u64((uint64_t)request, reader->file->size - reader->position);

	(void)a;
	reader->position += length;
	return (la_int64_t)length;
}

/* A reader of tar and of nothing else, at the beginning. NULL out of memory. */
static struct archive *open_archive(struct reader *reader)
{
	struct archive *a = archive_read_new();

	if (!a)
		return NULL;
	if (archive_read_support_format_tar(a) == ARCHIVE_OK &&
		archive_read_set_read_callback(a, read_some) == ARCHIVE_OK &&
		archive_read_set_skip_callback(a, skip_some) == ARCHIVE_OK &&
		archive_read_set_callback_data(a, reader) == ARCHIVE_OK)
		return a;
	archive_read_free(a);
	return NULL;
}

static bool is_plain(struct archive_entry *entry)
{
	return archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry) &&
	       archive_entry_sparse_reset(entry) == 0 && archive_entry_size(entry) >= 0;
}

/* Its bytes begin where the headers have ended. */
static int add_member(struct tar *tar, struct archive *a, struct archive_entry *entry)
{
	const char *name = archive_entry_pathname(entry);
	la_int64_t size = archive_entry_size(entry);
	struct tar_member *member;

	if (tar->count == tar->capacity) {
		size_t capacity = tar->capacity ? tar->capacity * 2 : 8;

		member = reallocarray(tar->members, capacity, sizeof(*member));
		if (!member)
			return -ENOMEM;
		tar->members = member;
		tar->capacity = capacity;
	}
	while (name && name[0] == '.' && name[1] == '/')
		name += 2;
	member = &tar->members[tar->count];
	*member = (struct tar_member) {
		.name = strdup(name ? name : ""),
		.offset = (uint64_t)archive_filter_bytes(a, 0),
		.size = size < 0 ? 0 : (uint64_t)size,
		.plain = is_plain(entry),
		.number = tar->count,
	};
	if (!member->name)
		return -ENOMEM;
	tar->count++;
	return 0;
}

/* Why did libarchive give up? 0 where the archive is no good from here on. */
static int explain(struct archive *a, const struct reader *reader, struct why *why)
{
	if (reader->error == -EFBIG)
		return why_set(
			why, -EINVAL, "its headers are of more than %u MiB", TAR_MAX_READ >> 20);
	if (reader->error < 0)
		return why_set(why, reader->error, "reading it: %s", strerror(-reader->error));
	return archive_errno(a) == ENOMEM ? why_set(why, -ENOMEM, "out of memory") : 0;
}

/* Goes through the headers. 0 at the end of the archive, or where its headers are damaged. */
static int walk(struct tar *tar, struct archive *a, const struct reader *reader, struct why *why)
{
	struct archive_entry *entry;
	int status = archive_read_open1(a);

	while (status == ARCHIVE_OK || status == ARCHIVE_WARN) {
		status = archive_read_next_header(a, &entry);
		if (status == ARCHIVE_EOF)
			return 0;
		if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
			break;
		if (tar->count == TAR_MAX_MEMBERS)
			return why_set(
				why, -EINVAL, "it has more than %d members", TAR_MAX_MEMBERS);
		if (add_member(tar, a, entry) < 0)
			return why_set(why, -ENOMEM, "out of memory");
	}
	tar->damaged = true;
	return explain(a, reader, why);
}

static int compare_members(const void *a, const void *b)
{
	const struct tar_member *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r != 0 ? r : (x->number > y->number) - (x->number < y->number);
}

static void sort(struct tar *tar)
{
	if (tar->count > 1)
		qsort(tar->members, tar->count, sizeof(*tar->members), compare_members);
	for (size_t i = 1; i < tar->count; i++) {
		if (strcmp(tar->members[i - 1].name, tar->members[i].name) == 0)
			tar->members[i - 1].doubled = tar->members[i].doubled = true;
	}
}

int tar_list(const struct file *file, struct tar *tar, struct why *why)
{
	struct reader *reader = calloc(1, sizeof(*reader));
	struct archive *a = reader ? open_archive(reader) : NULL;
	int r;

	*tar = (struct tar) { 0 };
	if (!a) {
		free(reader);
		return why_set(why, -ENOMEM, "out of memory");
	}
	reader->file = file;
	reader->allowance = TAR_MAX_READ;
	r = walk(tar, a, reader, why);
	if (r == 0 && tar->count == 0)
		r = why_set(why, -EINVAL, "it is not a tar archive");
	archive_read_free(a);
	free(reader);
	if (r < 0)
		tar_free(tar);
	else
		sort(tar);
	return r;
}

void tar_free(struct tar *tar)
{
	for (size_t i = 0; i < tar->count; i++)
		free(tar->members[i].name);
	free(tar->members);
	*tar = (struct tar) { 0 };
}

static int compare_name(const void *key, const void *element)
{
	return strcmp(key, ((const struct tar_member *)element)->name);
}

const struct tar_member *tar_find(const struct tar *tar, const char *name)
{
	if (tar->count == 0)
		return NULL;
	return bsearch(name, tar->members, tar->count, sizeof(*tar->members), compare_name);
}
