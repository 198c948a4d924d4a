/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "catalog_private.h"
#include "imgfs/archive.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Two changes within one tick of the file system's clock have the same time stamp. */
#define RACY_NANOSECONDS 20000000

/* A growing list of names. */
struct names {
	char **v;
	size_t count, room;
};

static int names_add(struct names *names, const char *name)
{
	if (names->count == names->room) {
		size_t room = names->room ? names->room * 2 : 32;
		char **grown = reallocarray(names->v, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		names->v = grown;
		names->room = room;
	}
	names->v[names->count] = strdup(name);
	return names->v[names->count++] ? 0 : -ENOMEM;
}

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->v[i]);
	free(names->v);
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void names_sort(struct names *names)
{
	if (names->count > 0)
		qsort(names->v, names->count, sizeof(*names->v), compare_strings);
}

/* Is that how it is, and not only how it went this time? */
static bool is_lasting(int err)
{
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV ||
	       err == -EACCES || err == -ENAMETOOLONG;
}

/* DT_DIR, DT_REG, or DT_UNKNOWN for what is not shown. -ENOMEM. */
static int entry_type(
	const struct datastore *datastore, struct folder *folder, const struct dirent *entry)
{
	autofree char *path = NULL;
	struct stat st;
	int r;

	if (entry->d_type == DT_DIR || entry->d_type == DT_REG)
		return entry->d_type;
	if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK)
		return DT_UNKNOWN;
	if (entry->d_type == DT_LNK && !datastore->follow_symlinks)
		return DT_UNKNOWN;
	path = path_join(folder->path, entry->d_name);
	if (!path)
		return -ENOMEM;
	r = datastore_stat(datastore, path, &st);
	if (r < 0) {
		folder->unsettled = folder->unsettled || !is_lasting(r);
		return DT_UNKNOWN;
	}
	return S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_UNKNOWN;
}

static int read_names(const struct datastore *datastore, struct folder *folder, DIR *stream,
	struct names *files, struct names *directories)
{
	const struct dirent *entry;

	for (;;) {
		int r;

		errno = 0;
		entry = readdir(stream);
		if (!entry && errno != 0)
			return -errno;
		if (!entry)
			break;
		if (entry->d_name[0] == '.')
			continue;
		r = entry_type(datastore, folder, entry);
		if (r == DT_DIR)
			r = names_add(directories, entry->d_name);
		else if (r == DT_REG)
			r = names_add(files, entry->d_name);
		if (r < 0)
			return r;
		if (files->count + directories->count > FOLDER_MAX_FILES) {
			log_limited("the directory %s is not shown: it has more than %u files",
				quote(*folder->path ? folder->path : ".").text, FOLDER_MAX_FILES);
			return -EFBIG;
		}
	}
	names_sort(files);
	names_sort(directories);
	return 0;
}

static bool is_racy(const struct stat *st)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - st->st_mtim.tv_sec) * 1000000000ll + now.tv_nsec -
		       st->st_mtim.tv_nsec <
	       RACY_NANOSECONDS;
}

static int compare_item(const void *key, const void *element)
{
	return strcmp(key, item_name(*(struct item *const *)element));
}

struct item *folder_item(const struct folder *folder, const char *name)
{
	struct item **found = NULL;

	if (folder && folder->item_count > 0)
		found = bsearch(name, folder->items, folder->item_count, sizeof(*folder->items),
			compare_item);
	return found ? *found : NULL;
}

/* Items of the files that are not hidden; naming is left with those alone. */
static int make_items(const struct catalog_parts *c, struct folder *folder, struct naming *naming,
	size_t count, const struct folder *before)
{
	folder->items = calloc(count + 1, sizeof(*folder->items));
	if (!folder->items)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct item *item;

		if (naming[i].hidden)
			continue;
		item = folder_item(before, naming[i].file);
		item = item ? item_ref(item) : item_new(c, folder->path, naming[i].file);
		if (!item)
			return -ENOMEM;
		naming[folder->item_count] = naming[i];
		folder->items[folder->item_count++] = item;
	}
	return 0;
}

static int decide_names(const struct catalog_parts *c, struct folder *folder,
	const struct names *files, const struct folder *before)
{
	autofree struct naming *naming = calloc(files->count + 1, sizeof(*naming));
	struct naming_rules rules = {
		.choices = &c->options.choices,
		.folders = c->options.folders,
		.directories = (const char *const *)folder->directories,
		.directory_count = folder->directory_count,
	};
	int r;

	if (!naming)
		return -ENOMEM;
	for (size_t i = 0; i < files->count; i++)
		naming[i].file = files->v[i];
	r = naming_decide(naming, files->count, &rules);
	if (r == 0)
		r = make_items(c, folder, naming, files->count, before);
	return r < 0 ? r : shown_fill(folder, naming);
}

static int fill_folder(
	const struct catalog_parts *c, struct folder *folder, const struct folder *before)
{
	const struct datastore *datastore = c->images->datastore;
	struct names files = { 0 }, directories = { 0 };
	int fd = datastore_open_dir(datastore, folder->path);
	struct stat st;
	DIR *stream;
	int r;

	if (fd < 0)
		return fd;
	stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	/* The state before the names are read: a change during that shows as one. */
	r = fstat(fd, &st) < 0 ? -errno : 0;
	if (r == 0) {
		file_state_from_stat(&folder->state, &st);
		folder->unsettled = is_racy(&st);
	}
	if (r == 0)
		r = read_names(datastore, folder, stream, &files, &directories);
	closedir(stream);
	folder->directories = directories.v;
	folder->directory_count = directories.count;
	if (r == 0)
		r = decide_names(c, folder, &files, before);
	names_free(&files);
	return r;
}

/* The disks of an archive are its files. */
static int add_disks(struct names *files, const struct archived *archived)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < archived_count(archived); i++) {
		const struct archived_file *file = archived_at(archived, i);

		if (file->is_disk)
			r = names_add(files, file->name);
	}
	names_sort(files);
	return r;
}

static int fill_from_archive(
	const struct catalog_parts *c, struct folder *folder, const struct folder *before)
{
	struct names files = { 0 };
	const struct archived *archived;
	struct why why;
	int r = datastore_archive(c->images->datastore, folder->path, &archived, &why);

	if (r < 0)
		return r == -ENOMEM || r == -EMFILE ? r : -ENOENT;
	r = add_disks(&files, archived);
	if (r == 0)
		r = decide_names(c, folder, &files, before);
	names_free(&files);
	archived_put(archived);
	return r;
}

static struct folder *folder_new(const struct catalog_parts *c, const char *path)
{
	struct folder *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	atomic_init(&f->refs, 1);
	f->choices = &c->options.choices;
	f->folders = c->options.folders;
	f->path = strdup(path);
	if (f->path)
		return f;
	folder_unref(f);
	return NULL;
}

int folder_read(const struct catalog_parts *c, const char *path, const struct folder *before,
	struct folder **folder)
{
	struct folder *f = folder_new(c, path);
	int r = f ? fill_folder(c, f, before) : -ENOMEM;

	if (r < 0)
		folder_unref(f);
	else
		*folder = f;
	return r;
}

int folder_of_archive(const struct catalog_parts *c, const char *path,
	const struct file_state *state, const struct folder *before, struct folder **folder)
{
	struct folder *f = folder_new(c, path);
	int r = -ENOMEM;

	if (f) {
		f->state = *state;
		r = fill_from_archive(c, f, before);
	}
	if (r < 0)
		folder_unref(f);
	else
		*folder = f;
	return r;
}

int folder_of_item(const struct catalog_parts *c, struct item *item, const struct file_state *state,
	struct folder **folder)
{
	struct folder *f = folder_new(c, item_path(item));
	int r = -ENOMEM;

	if (f) {
		f->folders = false;
		f->state = *state;
		f->items = calloc(1, sizeof(*f->items));
	}
	if (f && f->items) {
		f->items[f->item_count++] = item_ref(item);
		r = shown_fill_views(f);
	}
	if (r < 0)
		folder_unref(f);
	else
		*folder = f;
	return r;
}

struct folder *folder_ref(struct folder *folder)
{
	atomic_fetch_add(&folder->refs, 1);
	return folder;
}

void folder_unref(struct folder *folder)
{
	if (!folder || atomic_fetch_sub(&folder->refs, 1) != 1)
		return;
	for (size_t i = 0; i < folder->shown_count; i++)
		free(folder->shown[i].name);
	for (size_t i = 0; i < folder->item_count; i++)
		item_unref(folder->items[i]);
	for (size_t i = 0; i < folder->directory_count; i++)
		free(folder->directories[i]);
	free(folder->shown);
	free(folder->items);
	free(folder->directories);
	free(folder->path);
	free(folder);
}

bool folder_has_directory(const struct folder *folder, const char *name)
{
	return folder->directory_count > 0 &&
	       bsearch(&name, folder->directories, folder->directory_count,
		       sizeof(*folder->directories), compare_strings) != NULL;
}
