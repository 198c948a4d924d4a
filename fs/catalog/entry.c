/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is told of a name: attributes, and a number that it holds from then on. */
#include <errno.h>
#include <string.h>

#include "catalog_private.h"
#include "imgfs/cleanup.h"
#include "imgfs/names.h"

/* A directory that has become something else, or that leads out now, is gone. */
int entry_directory_error(int r)
{
	if (r == -ELOOP || r == -EXDEV || r == -ENOTDIR)
		return -ENOENT;
	return r == -EBUSY ? -ESTALE : r;
}

/* Is the file at path shown as a directory? */
static bool is_directory_here(const struct catalog_parts *c, const char *path)
{
	return c->options.folders || name_is_archive(path_name(path));
}

/* Who may read it may list it. */
static void make_directory(struct stat *st)
{
	mode_t readable = st->st_mode & 0444;

	st->st_mode = S_IFDIR | readable | readable >> 2;
	st->st_nlink = 1;
	st->st_size = 0; /* du counts what a directory says */
	st->st_blocks = 0;
}

int entry_stat_directory(
	const struct catalog_parts *c, const char *path, struct stat *st, bool *is_file)
{
	int r = datastore_stat(c->images->datastore, path, st);

	*is_file = r == 0 && S_ISREG(st->st_mode) && is_directory_here(c, path);
	if (*is_file)
		make_directory(st);
	else if (r == 0 && !S_ISDIR(st->st_mode))
		r = -ENOTDIR;
	return entry_directory_error(r);
}

static void apply_owner(const struct catalog_parts *c, struct stat *st)
{
	if (c->options.set_uid)
		st->st_uid = c->options.uid;
	if (c->options.set_gid)
		st->st_gid = c->options.gid;
}

void entry_directory_stat(
	const struct catalog_parts *c, const struct stat *source, uint64_t id, struct stat *st)
{
	int mask = c->options.dmask;

	*st = *source;
	st->st_ino = id;
	st->st_dev = 0;
	st->st_mode = S_IFDIR | (mask >= 0 ? 0555 & ~(mode_t)mask : source->st_mode & 0555);
	apply_owner(c, st);
}

/* What cp and its like shall ask for in one read. */
#define VIEW_BLOCK (1 << 20)

void entry_view_stat(const struct catalog_parts *c, const struct facts *facts,
	const struct view_facts *view, uint64_t id, struct stat *st)
{
	int mask = c->options.fmask;

	*st = (struct stat) {
		.st_ino = id,
		.st_mode = S_IFREG | (mask >= 0 ? 0444 & ~(mode_t)mask : facts->mode),
		.st_nlink = 1,
		.st_uid = facts->uid,
		.st_gid = facts->gid,
		.st_size = (off_t)view->size,
		.st_blocks = (blkcnt_t)view->blocks,
		.st_blksize = VIEW_BLOCK,
		.st_mtim = facts->mtime,
		.st_atim = facts->mtime,
		.st_ctim = facts->ctime,
	};
	apply_owner(c, st);
}

static int enter_directory(const struct catalog_parts *c, char *path, struct stat *st)
{
	struct node node = { .path = path, .id = nodes_directory_id(path) };
	struct stat source;
	bool is_file;
	int r = entry_stat_directory(c, path, &source, &is_file);

	if (r < 0)
		return r;
	entry_directory_stat(c, &source, node.id, st);
	return nodes_enter(c->nodes, &node);
}

int entry_enter_directory(
	const struct catalog_parts *c, const char *parent, const char *name, struct stat *st)
{
	autofree char *path = path_join(parent, name);

	return path ? enter_directory(c, path, st) : -ENOMEM;
}

int entry_enter_item(const struct catalog_parts *c, struct item *item, struct stat *st)
{
	autofree char *path = strdup(item_path(item));

	return path ? enter_directory(c, path, st) : -ENOMEM;
}

int entry_enter_view(const struct catalog_parts *c, struct item *item, size_t view,
	const struct facts *facts, const struct view_facts *view_facts, struct stat *st)
{
	struct node node = {
		.item = item,
		.view = view,
		.generation = facts->generation,
		.id = nodes_view_id(
			item_path(item), &c->options.choices.list[view], facts->generation),
	};

	entry_view_stat(c, facts, view_facts, node.id, st);
	return nodes_enter(c->nodes, &node);
}
