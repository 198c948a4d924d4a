/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives as directories: what is in them is found out once for each state of the file, and
 * remembered.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate.h"
#include "imgfs/archive.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"
#include "keeper.h"
#include "windows.h"

struct archived {
	struct finding finding;
	struct archived_file *files;
	size_t count, capacity;
	int error; /* it cannot be told what is in it, for the reason */
	char *reason;
};

/* ---- what an archive format adds ---- */

struct archived_file *archived_add(struct archived *archived, const char *name)
{
	struct archived_file *file;

	if (archived->count == archived->capacity) {
		size_t capacity = archived->capacity ? archived->capacity * 2 : 4;

		file = reallocarray(archived->files, capacity, sizeof(*file));
		if (!file)
			return NULL;
		archived->files = file;
		archived->capacity = capacity;
	}
	file = &archived->files[archived->count];
	*file = (struct archived_file) { .name = strdup(name) };
	if (!file->name)
		return NULL;
	archived->count++;
	return file;
}

bool archived_add_window(struct archived_file *file, uint64_t offset, uint64_t length)
{
	struct file_window *grown =
		reallocarray(file->windows, file->window_count + 1, sizeof(*grown));

	if (!grown)
		return false;
	file->windows = grown;
	grown[file->window_count++] = (struct file_window) { offset, length };
	return true;
}

void archived_refuse(struct archived_file *file, int error, const char *fmt, ...)
{
	char reason[sizeof(((struct why *)0)->text)];
	va_list arguments;

	if (file->error)
		return;
	file->error = error;
	va_start(arguments, fmt);
	vsnprintf(reason, sizeof(reason), fmt, arguments);
	va_end(arguments);
	file->reason = strdup(reason);
}

/* ---- what is in one ---- */

static void archived_free(struct finding *finding)
{
	struct archived *archived = (struct archived *)finding;

	for (size_t i = 0; i < archived->count; i++) {
		free(archived->files[i].name);
		free(archived->files[i].reason);
		free(archived->files[i].windows);
	}
	free(archived->files);
	free(archived->reason);
	free(archived);
}

static int compare_files(const void *a, const void *b)
{
	return strcmp(
		((const struct archived_file *)a)->name, ((const struct archived_file *)b)->name);
}

/* Puts them in order and takes stock. */
static void finish(struct archived *archived)
{
	struct archived_file *files = archived->files;

	if (archived->count > 1)
		qsort(files, archived->count, sizeof(*files), compare_files);
	for (size_t i = 1; i < archived->count; i++) {
		if (strcmp(files[i - 1].name, files[i].name) != 0)
			continue;
		archived_refuse(&files[i - 1], -EINVAL, "the archive has two files of its name");
		archived_refuse(&files[i], -EINVAL, "the archive has two files of its name");
	}
	for (size_t i = 0; i < archived->count; i++) {
		if (name_compression(files[i].name))
			archived_refuse(&files[i], -ENOTSUP, "it is compressed within the archive");
	}
	archived->finding.memory = sizeof(*archived) + archived->capacity * sizeof(*files);
	for (size_t i = 0; i < archived->count; i++)
		archived->finding.memory += strlen(files[i].name) +
					    (files[i].reason ? strlen(files[i].reason) : 0) +
					    files[i].window_count * sizeof(files[i].windows[0]);
}

static bool has_suffix_of(const char *name, const struct archive_format *format)
{
	for (const char *const *suffix = format->suffixes; *suffix; suffix++) {
		if (name_has_suffix(name, *suffix))
			return true;
	}
	return false;
}

static const struct archive_format *format_of(const char *name)
{
	for (const struct archive_format *const *f = archive_formats; *f; f++) {
		if (has_suffix_of(name, *f))
			return *f;
	}
	return NULL;
}

bool name_is_archive(const char *name)
{
	return format_of(name) != NULL;
}

/* One at a time is looked through, for what that takes in memory. */
static pthread_mutex_t listing = PTHREAD_MUTEX_INITIALIZER;

/* That an archive is no good follows from its bytes and is as good to know as what is in it. */
static bool is_lasting(int error)
{
	return error == -EINVAL || error == -ENOTSUP;
}

static int list(void *argument, struct finding **finding, struct why *why)
{
	const struct file *file = argument;
	struct archived *archived = calloc(1, sizeof(*archived));
	struct why reason = { "" };
	int r, changed;
	LOCKED(&listing);

	if (!archived)
		return why_set(why, -ENOMEM, "out of memory");
	atomic_init(&archived->finding.refs, 1);
	archived->finding.free = archived_free;
	r = format_of(path_name(file->path))->list(file, archived, &reason);
	/* Half of one state and half of another is nothing. */
	changed = file_verify(file);
	if (changed < 0)
		r = why_set(&reason, changed, "%s",
			changed == -ESTALE ? "it changes while it is read" : strerror(-changed));
	if (r < 0 && is_lasting(r)) {
		archived->error = r;
		archived->reason = strdup(reason.text);
		r = archived->reason ? 0 : -ENOMEM;
	}
	if (r < 0) {
		archived_free(&archived->finding);
		return why_set(why, r, "%s", reason.text);
	}
	finish(archived);
	*finding = &archived->finding;
	return 0;
}

/* What is known of it, if anything is: *archived, which may be NULL. 0 or what was wrong then. */
static int known(struct finding *finding, const struct archived **archived, struct why *why)
{
	struct archived *found = (struct archived *)finding;
	int r = found ? found->error : 0;

	if (r < 0) {
		why_set(why, r, "%s", found->reason);
		finding_unref(finding);
		found = NULL;
	}
	*archived = found;
	return r;
}

/* What is in an open archive. */
static int look_inside(const struct datastore *ds, struct file *file,
	const struct archived **archived, struct why *why)
{
	struct finding *finding;
	int r = keeper_get(ds->keeper, file->path, &file->state, list, file, &finding, why);

	return r < 0 ? r : known(finding, archived, why);
}

int datastore_archive(const struct datastore *ds, const char *path,
	const struct archived **archived, struct why *why)
{
	struct file_state state;
	struct file *file;
	struct stat st;
	int r = gate_stat(ds, path, &st);

	if (!name_is_archive(path_name(path)))
		return why_set(why, -ENOTDIR, "it is not an archive");
	if (r == 0 && S_ISREG(st.st_mode)) {
		file_state_from_stat(&state, &st);
		r = known(keeper_look(ds->keeper, path, &state), archived, why);
		if (r < 0 || *archived)
			return r;
	}
	r = gate_open(ds, path, &file, why);
	if (r < 0)
		return r;
	r = look_inside(ds, file, archived, why);
	file_unref(file);
	return r;
}

void archived_put(const struct archived *archived)
{
	if (archived)
		finding_unref((struct finding *)(uintptr_t)archived);
}

size_t archived_count(const struct archived *archived)
{
	return archived->count;
}

const struct archived_file *archived_at(const struct archived *archived, size_t index)
{
	return &archived->files[index];
}

const struct archived_file *archived_find(const struct archived *archived, const char *name)
{
	struct archived_file key = { .name = (char *)(uintptr_t)name };

	if (archived->count == 0)
		return NULL;
	return bsearch(&key, archived->files, archived->count, sizeof(key), compare_files);
}

/* ---- files in archives, by their paths ---- */

/* "dir/x.ova" of "dir/x.ova/disk.vmdk", from malloc. -ENOTDIR where it is no archive's name. */
static int archive_path(const char *path, char **archive)
{
	const char *slash = strrchr(path, '/');
	autofree char *prefix = slash ? strndup(path, (size_t)(slash - path)) : NULL;

	if (!slash)
		return -ENOTDIR;
	if (!prefix)
		return -ENOMEM;
	if (!name_is_archive(path_name(prefix)))
		return -ENOTDIR;
	*archive = steal_ptr(prefix);
	return 0;
}

/* The plain file that the archive is becomes the file in it that is at path. */
static int narrow(
	struct file *file, const struct archived *archived, const char *path, struct why *why)
{
	const struct archived_file *member = archived_find(archived, path_name(path));
	int r;

	if (!member)
		return why_set(why, -ENOENT, "the archive has no such file");
	if (member->error)
		return why_set(why, member->error, "%s",
			member->reason ? member->reason : strerror(-member->error));
	r = file_set_path(file, path);
	if (r == 0)
		r = windows_set(file, member->windows, member->window_count);
	file->part = 1 + (uint64_t)(member - archived->files);
	return r < 0 ? why_set(why, r, "%s", strerror(-r)) : 0;
}

int archive_open_file(
	const struct datastore *ds, const char *path, struct file **file, struct why *why)
{
	const struct archived *archived;
	autofree char *archive = NULL;
	struct file *opened;
	int r = archive_path(path, &archive);

	if (r < 0)
		return why_set(why, r, "%s", strerror(-r));
	r = gate_open(ds, archive, &opened, why);
	if (r < 0)
		return r;
	r = look_inside(ds, opened, &archived, why);
	if (r == 0) {
		r = narrow(opened, archived, path, why);
		archived_put(archived);
	}
	if (r == 0)
		*file = file_ref(opened);
	file_unref(opened);
	return r;
}

int archive_stat(const struct datastore *ds, const char *path, struct stat *st)
{
	const struct archived *archived;
	autofree char *archive = NULL;
	struct why why;
	int r = archive_path(path, &archive);

	if (r == 0)
		r = gate_stat(ds, archive, st);
	if (r == 0 && !S_ISREG(st->st_mode))
		r = -ENOTDIR;
	if (r == 0)
		r = datastore_archive(ds, archive, &archived, &why);
	if (r < 0)
		return r;
	r = archived_find(archived, path_name(path)) ? 0 : -ENOENT;
	archived_put(archived);
	return r;
}
