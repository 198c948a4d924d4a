/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "catalog_private.h"
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

/* A name that something follows. */
struct stretch {
	const char *name;
	size_t length;
};

static int compare_item(const void *key, const void *element)
{
	const struct stretch *wanted = key;
	const char *name = item_name(*(struct item *const *)element);
	int r = strncmp(wanted->name, name, wanted->length);

	return r != 0 ? r : name[wanted->length] == '\0' ? 0 : -1;
}

/* The item whose name is the first `length` bytes of name. */
static struct item *find_item(const struct folder *folder, const char *name, size_t length)
{
	struct stretch wanted = { name, length };
	struct item **found;

	if (!folder || folder->item_count == 0)
		return NULL;
	found = bsearch(
		&wanted, folder->items, folder->item_count, sizeof(*folder->items), compare_item);
	return found ? *found : NULL;
}

static int add_shown(struct folder *folder, struct item *item, bool whole, size_t view)
{
	char *name;
	int r = naming_view_name(item_name(item), whole, view_formats[view]->suffix, &name);

	if (r < 0)
		return r == -ENAMETOOLONG ? 0 : r;
	if (folder_has_directory(folder, name)) {
		free(name);
		return 0;
	}
	folder->shown[folder->shown_count++] = (struct shown) { name, item, view };
	return 0;
}

/* By name; where two have one name, the source file of just that name first. */
static int compare_shown(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;
	int r = strcmp(x->name, y->name);
	bool x_is_file, y_is_file;

	if (r != 0)
		return r;
	x_is_file = strcmp(x->name, item_name(x->item)) == 0;
	y_is_file = strcmp(y->name, item_name(y->item)) == 0;
	if (x_is_file != y_is_file)
		return x_is_file ? -1 : 1;
	return strcmp(item_name(x->item), item_name(y->item));
}

static void drop_duplicates(struct folder *folder)
{
	size_t kept = 0;

	for (size_t i = 0; i < folder->shown_count; i++) {
		struct shown *s = &folder->shown[i];

		if (kept > 0 && strcmp(folder->shown[kept - 1].name, s->name) == 0) {
			log_debug("%s: its view %s is hidden by another file",
				quote(item_path(s->item)).text, quote(s->name).text);
			free(s->name);
			continue;
		}
		folder->shown[kept++] = *s;
	}
	folder->shown_count = kept;
}

static int show_names(struct folder *folder, const struct naming *naming, size_t count,
	const struct folder *before)
{
	size_t views = view_count();

	folder->items = calloc(count + 1, sizeof(*folder->items));
	folder->shown = calloc(count * views + 1, sizeof(*folder->shown));
	if (!folder->items || !folder->shown)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct item *item;

		if (naming[i].hidden)
			continue;
		item = find_item(before, naming[i].file, strlen(naming[i].file));
		item = item ? item_ref(item) : item_new(folder->path, naming[i].file);
		if (!item)
			return -ENOMEM;
		folder->items[folder->item_count++] = item;
		for (size_t view = 0; view < views; view++) {
			int r = add_shown(folder, item, naming[i].whole, view);

			if (r < 0)
				return r;
		}
	}
	qsort(folder->shown, folder->shown_count, sizeof(*folder->shown), compare_shown);
	drop_duplicates(folder);
	return 0;
}

static int decide_names(
	struct folder *folder, const struct names *files, const struct folder *before)
{
	autofree struct naming *naming = calloc(files->count + 1, sizeof(*naming));
	int r;

	if (!naming)
		return -ENOMEM;
	for (size_t i = 0; i < files->count; i++)
		naming[i].file = files->v[i];
	r = naming_decide(naming, files->count, (const char *const *)folder->directories,
		folder->directory_count);
	if (r < 0)
		return r;
	return show_names(folder, naming, files->count, before);
}

static int fill_folder(
	const struct datastore *datastore, struct folder *folder, const struct folder *before)
{
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
		r = decide_names(folder, &files, before);
	names_free(&files);
	return r;
}

int folder_read(const struct datastore *datastore, const char *path, const struct folder *before,
	struct folder **folder)
{
	struct folder *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	atomic_init(&f->refs, 1);
	f->path = strdup(path);
	r = f->path ? fill_folder(datastore, f, before) : -ENOMEM;
	if (r < 0) {
		folder_unref(f);
		return r;
	}
	*folder = f;
	return 0;
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

static int compare_shown_name(const void *key, const void *element)
{
	return strcmp(key, ((const struct shown *)element)->name);
}

/* "a.qcow2.raw" is the raw view of a.qcow2 whether the listing says so or not. */
static bool find_whole_name(
	const struct folder *folder, const char *name, struct item **item, size_t *view)
{
	const char *suffix = name_suffix(name);
	size_t stem = (size_t)(suffix - name) - (*suffix != '\0');

	for (size_t i = 0; view_formats[i]; i++) {
		*view = i;
		*item = NULL;
		if (strcmp(suffix, view_formats[i]->suffix) == 0)
			*item = find_item(folder, name, stem);
		if (!*item && name_has_suffix(name, view_formats[i]->suffix))
			*item = find_item(folder, name, strlen(name));
		if (*item)
			return true;
	}
	return false;
}

bool folder_find(const struct folder *folder, const char *name, struct item **item, size_t *view)
{
	const struct shown *shown = NULL;

	if (folder->shown_count > 0)
		shown = bsearch(name, folder->shown, folder->shown_count, sizeof(*folder->shown),
			compare_shown_name);
	if (!shown)
		return find_whole_name(folder, name, item, view);
	*item = shown->item;
	*view = shown->view;
	return true;
}
