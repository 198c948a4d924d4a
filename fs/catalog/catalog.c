/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Without memory an element is not added, and its hh.tbl is NULL. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"

/* Directories whose names are remembered. */
#define MAX_FOLDERS 1024

struct known_folder {
	UT_hash_handle hh; /* by path, in order of last use */
	struct folder *folder;
};

struct catalog {
	struct catalog_parts parts;
	pthread_mutex_t lock; /* of what follows */
	struct known_folder *folders;
	size_t files;           /* in them */
	struct handle *handles; /* what the kernel holds; it does not always say when it ends */
	struct listing *listings;
};

struct handle {
	struct handle *prev, *next; /* in the catalog's list */
	struct pooled *pooled;
	const struct view *view;
	struct stat st;
	bool keeps_pages;
};

int catalog_new(const struct image_context *images, const struct catalog_options *options,
	struct catalog **catalog)
{
	struct catalog *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->parts.images = images;
	c->parts.options = *options;
	pthread_mutex_init(&c->lock, NULL);
	if (c->parts.options.choices.count == 0) {
		c->parts.options.choices.options = view_options_default;
		choices_parse(&c->parts.options.choices, CHOICES_DEFAULT, NULL, NULL, NULL);
	}
	c->parts.pool = pool_new(images, &c->parts.options.choices);
	c->parts.nodes = nodes_new();
	if (!c->parts.pool || !c->parts.nodes) {
		catalog_free(c);
		return -ENOMEM;
	}
	*catalog = c;
	return 0;
}

static void remove_folder(struct catalog *c, struct known_folder *known)
{
	HASH_DEL(c->folders, known);
	c->files -= known->folder->item_count;
	folder_unref(known->folder);
	free(known);
}

void catalog_free(struct catalog *catalog)
{
	struct known_folder *known, *next;

	if (!catalog)
		return;
	while (catalog->handles)
		catalog_close(catalog, catalog->handles);
	while (catalog->listings)
		listing_free(catalog, catalog->listings);
	HASH_ITER (hh, catalog->folders, known, next)
		remove_folder(catalog, known);
	nodes_free(catalog->parts.nodes);
	pool_free(catalog->parts.pool);
	pthread_mutex_destroy(&catalog->lock);
	free(catalog);
}

/* ---- folders ---- */

/* Puts it last in the order, or frees it where there is no memory for that. */
static void add_folder(struct catalog *c, struct known_folder *known)
{
	const char *path = known->folder->path;

	HASH_ADD_KEYPTR(hh, c->folders, path, strlen(path), known);
	if (known->hh.tbl)
		return;
	c->files -= known->folder->item_count;
	folder_unref(known->folder);
	free(known);
}

static struct folder *known_folder(struct catalog *c, const char *path)
{
	struct known_folder *known;
	struct folder *folder;
	LOCKED(&c->lock);

	HASH_FIND_STR(c->folders, path, known);
	if (!known)
		return NULL;
	folder = folder_ref(known->folder);
	HASH_DEL(c->folders, known);
	add_folder(c, known);
	return folder;
}

static void remember_folder(struct catalog *c, struct folder *folder)
{
	struct known_folder *known;
	LOCKED(&c->lock);

	HASH_FIND_STR(c->folders, folder->path, known);
	if (known)
		remove_folder(c, known);
	while (HASH_COUNT(c->folders) >= MAX_FOLDERS || c->files > KNOWN_MAX_FILES)
		remove_folder(c, c->folders);
	known = calloc(1, sizeof(*known));
	if (!known)
		return;
	known->folder = folder_ref(folder);
	c->files += folder->item_count;
	add_folder(c, known);
}

static bool is_current(const struct folder *folder, const struct stat *st)
{
	struct file_state now;

	file_state_from_stat(&now, st);
	return !folder->unsettled && file_state_equal(&now, &folder->state);
}

static int get_folder(struct catalog *c, const char *path, struct folder **folder);

/* The directory that the file at path is shown as: it is an item of the folder around it. */
static int read_item_folder(
	struct catalog *c, const char *path, const struct file_state *state, struct folder **folder)
{
	const char *name = path_name(path);
	autofree char *above = strndup(path, (size_t)(name > path ? name - path - 1 : 0));
	struct folder *around;
	struct item *item;
	int r = above ? get_folder(c, above, &around) : -ENOMEM;

	if (r < 0)
		return r;
	item = folder_item(around, name);
	r = item ? folder_of_item(&c->parts, item, state, folder) : -ENOENT;
	folder_unref(around);
	return r;
}

static int get_folder(struct catalog *c, const char *path, struct folder **folder)
{
	struct file_state state;
	struct folder *before;
	struct stat st;
	bool is_file;
	int r = entry_stat_directory(&c->parts, path, &st, &is_file);

	if (r < 0)
		return r;
	before = known_folder(c, path);
	if (before && is_current(before, &st)) {
		*folder = before;
		return 0;
	}
	file_state_from_stat(&state, &st);
	if (is_file && name_is_archive(path_name(path)))
		r = folder_of_archive(&c->parts, path, &state, before, folder);
	else if (is_file)
		r = read_item_folder(c, path, &state, folder);
	else
		r = folder_read(&c->parts, path, before, folder);
	folder_unref(before);
	if (r == 0)
		remember_folder(c, *folder);
	return entry_directory_error(r);
}

/* ---- lookup ---- */

/* Facts of an item and one of its views. A change between the two starts it again. */
static int examine(struct catalog *c, struct item *item, size_t view, struct facts *facts,
	struct view_facts *view_facts)
{
	int r = -ESTALE;

	for (int tries = 0; tries < 3 && r == -ESTALE; tries++) {
		r = item_facts(&c->parts, item, NULL, facts);
		if (r == 0)
			r = item_view_facts(&c->parts, item, view, facts, view_facts);
	}
	return r == -EFBIG ? -ENOENT : r;
}

static int enter_shown(struct catalog *c, struct item *item, size_t view, struct stat *st)
{
	struct view_facts view_facts;
	struct facts facts;
	int r;

	if (view == SHOWN_DIRECTORY) {
		r = item_facts(&c->parts, item, NULL, &facts);
		return r < 0 ? r : entry_enter_item(&c->parts, item, st);
	}
	r = examine(c, item, view, &facts, &view_facts);
	return r < 0 ? r : entry_enter_view(&c->parts, item, view, &facts, &view_facts, st);
}

static int enter_snapshot(
	struct catalog *c, const struct folder *folder, const char *name, struct stat *st)
{
	size_t view;
	struct item *item = snapshots_find(&c->parts, folder, name, &view);
	int r = item ? enter_shown(c, item, view, st) : -ENOENT;

	item_unref(item);
	return r;
}

int catalog_lookup(struct catalog *catalog, uint64_t directory, const char *name, struct stat *st)
{
	struct folder *folder;
	struct item *item;
	struct node node;
	size_t view;
	int r = nodes_get(catalog->parts.nodes, directory, &node);

	if (r < 0)
		return r;
	r = node.item ? -ENOTDIR : get_folder(catalog, node.path, &folder);
	if (r < 0) {
		node_release(&node);
		return r;
	}
	if (folder_has_directory(folder, name))
		r = entry_enter_directory(&catalog->parts, node.path, name, st);
	else if (shown_find(folder, name, &item, &view))
		r = enter_shown(catalog, item, view, st);
	else if (catalog->parts.options.snapshots)
		r = enter_snapshot(catalog, folder, name, st);
	else
		r = -ENOENT;
	folder_unref(folder);
	node_release(&node);
	return r;
}

void catalog_forget(struct catalog *catalog, uint64_t id, uint64_t count)
{
	nodes_forget(catalog->parts.nodes, id, count);
}

static int node_stat(struct catalog *c, const struct node *node, struct stat *st)
{
	struct view_facts view_facts;
	struct facts facts;
	struct stat source;
	bool is_file;
	int r;

	if (!node->item) {
		r = entry_stat_directory(&c->parts, node->path, &source, &is_file);
		if (r == 0)
			entry_directory_stat(&c->parts, &source, node->id, st);
		return r == -ENOENT ? -ESTALE : r;
	}
	r = examine(c, node->item, node->view, &facts, &view_facts);
	if (r == -ENOENT || (r == 0 && facts.generation != node->generation))
		return -ESTALE;
	if (r == 0)
		entry_view_stat(&c->parts, &facts, &view_facts, node->id, st);
	return r;
}

/* fstat(2) of what is open, after its node has been forgotten. */
static int open_stat(struct catalog *c, uint64_t id, struct stat *st)
{
	struct handle *h;
	LOCKED(&c->lock);

	DL_SEARCH_SCALAR(c->handles, h, st.st_ino, id);
	if (!h)
		return -ESTALE;
	*st = h->st;
	return image_verify(pooled_image(h->pooled));
}

int catalog_getattr(struct catalog *catalog, uint64_t id, struct stat *st)
{
	struct node node;
	int r = nodes_get(catalog->parts.nodes, id, &node);

	if (r == -ESTALE)
		return open_stat(catalog, id, st);
	if (r < 0)
		return r;
	r = node_stat(catalog, &node, st);
	node_release(&node);
	return r;
}

/* ---- open ---- */

static int check_use(const struct image *image)
{
	const struct file *file = image_in_use(image);

	if (!file)
		return 0;
	log_limited("%s is not opened: a QEMU may be writing to %s (-o in_use=allow would open it)",
		quote(image_path(image)).text, quote(file->path).text);
	return -EBUSY;
}

static int open_view(struct catalog *c, const struct node *node, struct handle *h)
{
	struct why why;
	int r;

	if (!node->item)
		return -EISDIR;
	r = node_stat(c, node, &h->st);
	/* What was learned right after a change is not what a handle may stand on. */
	if (r == 0 && age_wait(h->st.st_ctim))
		r = node_stat(c, node, &h->st);
	if (r < 0)
		return r;
	r = pool_get_again(c->parts.pool, item_path(node->item), &h->pooled, &why);
	if (r < 0)
		return r;
	if (image_generation(pooled_image(h->pooled)) != node->generation)
		r = -ESTALE;
	if (r == 0 && !c->parts.options.allow_in_use)
		r = check_use(pooled_image(h->pooled));
	if (r == 0)
		r = pooled_view(h->pooled, node->view, &h->view, &why);
	if (r < 0)
		pool_put(c->parts.pool, h->pooled);
	else if (age_is_old(age_at(age_clock(), h->st.st_ctim)))
		h->keeps_pages = nodes_open_old(c->parts.nodes, node->id);
	return r;
}

int catalog_open(struct catalog *catalog, uint64_t id, struct handle **handle)
{
	struct handle *h = calloc(1, sizeof(*h));
	struct node node;
	int r;

	if (!h)
		return -ENOMEM;
	r = nodes_get(catalog->parts.nodes, id, &node);
	if (r == 0) {
		r = open_view(catalog, &node, h);
		node_release(&node);
	}
	if (r < 0) {
		free(h);
		return r;
	}
	pthread_mutex_lock(&catalog->lock);
	DL_APPEND(catalog->handles, h);
	pthread_mutex_unlock(&catalog->lock);
	*handle = h;
	return 0;
}

void catalog_close(struct catalog *catalog, struct handle *handle)
{
	pthread_mutex_lock(&catalog->lock);
	DL_DELETE(catalog->handles, handle);
	pthread_mutex_unlock(&catalog->lock);
	pool_put(catalog->parts.pool, handle->pooled);
	free(handle);
}

const struct view *handle_view(const struct handle *handle)
{
	return handle->view;
}

const struct stat *handle_stat(const struct handle *handle)
{
	return &handle->st;
}

bool handle_keeps_pages(const struct handle *handle)
{
	return handle->keeps_pages;
}

/* ---- list ---- */

int catalog_list(struct catalog *catalog, uint64_t directory, struct listing **listing)
{
	struct folder *folder;
	struct listing *l;
	struct node node;
	int r = nodes_get(catalog->parts.nodes, directory, &node);

	if (r < 0)
		return r;
	r = node.item ? -ENOTDIR : get_folder(catalog, node.path, &folder);
	node_release(&node);
	if (r < 0)
		return r;
	r = listing_new(&catalog->parts, folder, &l);
	folder_unref(folder);
	if (r < 0)
		return r;
	pthread_mutex_lock(&catalog->lock);
	DL_APPEND(catalog->listings, l);
	pthread_mutex_unlock(&catalog->lock);
	*listing = l;
	return 0;
}

void listing_free(struct catalog *catalog, struct listing *listing)
{
	pthread_mutex_lock(&catalog->lock);
	DL_DELETE(catalog->listings, listing);
	pthread_mutex_unlock(&catalog->lock);
	listing_destroy(listing);
}
