/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OVA (DSP0243, 5.3): a tar archive of an OVF descriptor and the files that it refers to. A disk
 * is what the descriptor says is one, in the format that its name says. Nothing else of the
 * archive is there to be opened.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "imgfs/archive.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"
#include "imgfs/names.h"
#include "ovf.h"
#include "tar.h"

struct ova {
	const struct file *file;
	struct tar tar;
	struct ovf ovf;
	const struct tar_member *descriptor;
	struct archived *archived;
};

/* The first one that there is; in a good archive it is the first member. */
static const struct tar_member *find_descriptor(const struct tar *tar)
{
	const struct tar_member *found = NULL;

	for (size_t i = 0; i < tar->count; i++) {
		const struct tar_member *m = &tar->members[i];

		if (m->plain && name_has_suffix(m->name, "ovf") &&
			(!found || m->number < found->number))
			found = m;
	}
	return found;
}

static int read_descriptor(struct ova *ova, struct why *why)
{
	const struct tar_member *m = ova->descriptor;
	autofree char *text = NULL;
	int r;

	if (!m)
		return why_set(why, -EINVAL, "no OVF descriptor is in it");
	if (m->size > OVF_MAX_BYTES)
		return why_set(
			why, -EINVAL, "its descriptor is of more than %u MiB", OVF_MAX_BYTES >> 20);
	if (!range_ok(m->offset, m->size, ova->file->size))
		return why_set(why, -EINVAL, "it ends within its descriptor");
	text = malloc(m->size + 1);
	if (!text)
		return why_set(why, -ENOMEM, "out of memory");
	r = file_read(ova->file, text, m->size, m->offset);
	if (r < 0)
		return why_set(why, r, "reading it: %s", strerror(-r));
	return ovf_parse(text, m->size, &ova->ovf, why);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* An href is a URI: "my%20disk.vmdk". False: that is none, or is the same without. */
static bool decode(const char *href, char *decoded)
{
	bool any = false;

	while (*href) {
		int high = *href == '%' ? hex_digit(href[1]) : -1;
		int low = high >= 0 ? hex_digit(href[2]) : -1;

		if (low >= 0 && (high | low) != 0) {
			*decoded++ = (char)(high << 4 | low);
			href += 3;
			any = true;
		} else {
			*decoded++ = *href++;
		}
	}
	*decoded = '\0';
	return any;
}

/* The member of a name that is relative to the descriptor; `suffix` is a chunk's. */
static const struct tar_member *find(const struct ova *ova, const char *name, const char *suffix)
{
	const char *base = ova->descriptor->name;
	const char *slash = strrchr(base, '/');
	int directory = slash ? (int)(slash + 1 - base) : 0;
	char path[PATH_MAX];
	int length;

	while (name[0] == '.' && name[1] == '/')
		name += 2;
	length = snprintf(path, sizeof(path), "%.*s%s%s", directory, base, name, suffix);
	return length < (int)sizeof(path) ? tar_find(&ova->tar, path) : NULL;
}

/* Makes the member the next part of the file. */
static int add_part(const struct ova *ova, struct archived_file *file, const struct tar_member *m)
{
	if (m->doubled)
		archived_refuse(
			file, -EINVAL, "the archive has two members %s", quote(m->name).text);
	else if (!m->plain)
		archived_refuse(file, -ENOTSUP, "it is not a plain file in the archive");
	else if (!range_ok(m->offset, m->size, ova->file->size))
		archived_refuse(file, -EINVAL, "the archive ends before it does");
	else if (!archived_add_window(file, m->offset, m->size))
		return -ENOMEM;
	return 0;
}

static void refuse_missing(const struct ova *ova, struct archived_file *file, const char *href)
{
	archived_refuse(file, -ENOENT,
		ova->tar.damaged ? "its part %s was not found in the archive, which is damaged"
				 : "its part %s is not in the archive",
		quote(href).text);
}

/*
 * Chunks (DSP0243, 7.1) are members of their own, "disk.vmdk.000000000" and so on, of one size
 * but for the last.
 */
static int add_chunks(const struct ova *ova, struct archived_file *file, const struct ovf_file *ovf,
	const char *name)
{
	const struct tar_member *m;
	uint64_t last = 0, sum = 0;
	char suffix[16];
	int r = 0;

	for (unsigned i = 0; r == 0 && !file->error && i < TAR_MAX_MEMBERS; i++) {
		snprintf(suffix, sizeof(suffix), ".%09u", i);
		m = find(ova, name, suffix);
		if (!m)
			break;
		if ((i > 0 && last != ovf->chunk_size) || m->size > ovf->chunk_size)
			archived_refuse(file, -EINVAL, "a chunk of it has a wrong size");
		last = m->size;
		sum += m->size;
		r = add_part(ova, file, m);
	}
	if (file->window_count == 0)
		refuse_missing(ova, file, ovf->href);
	else if (ovf->has_size && sum != ovf->size)
		archived_refuse(
			file, -EINVAL, "its chunks are not of the size that they should be");
	return r;
}

static int add_named(const struct ova *ova, struct archived_file *file, const struct ovf_file *ovf,
	const char *name, bool *found)
{
	const struct tar_member *m = find(ova, name, "");

	*found = true;
	if (m)
		return add_part(ova, file, m);
	if (ovf->chunk_size > 0 && find(ova, name, ".000000000"))
		return add_chunks(ova, file, ovf, name);
	*found = false;
	return 0;
}

/* A path that would lead out of the archive if it were unpacked. */
static bool leads_out(const char *path)
{
	size_t length;

	if (*path == '/')
		return true;
	for (; *path; path += length + (path[length] == '/')) {
		length = strcspn(path, "/");
		if (length == 2 && path[0] == '.' && path[1] == '.')
			return true;
	}
	return false;
}

/* Finds its bytes: the href is taken as it is first, for many tools do not know that it is a URI.
 */
static int place(const struct ova *ova, struct archived_file *file, const struct ovf_file *ovf)
{
	autofree char *decoded = malloc(strlen(ovf->href) + 1);
	bool differs, found;
	int r;

	if (!decoded)
		return -ENOMEM;
	differs = decode(ovf->href, decoded);
	if (leads_out(ovf->href) || leads_out(decoded))
		archived_refuse(file, -EPERM, "its path %s leads out of the archive",
			quote(ovf->href).text);
	if (ovf->compression)
		archived_refuse(file, -ENOTSUP, "it is compressed (%s) within the archive",
			quote(ovf->compression).text);
	r = add_named(ova, file, ovf, ovf->href, &found);
	if (r == 0 && !found && differs)
		r = add_named(ova, file, ovf, decoded, &found);
	if (r == 0 && !found)
		refuse_missing(ova, file, ovf->href);
	return r;
}

/* What the file is called: the last component. False: nothing can be called so. */
static bool name_of(const char *href, char name[NAME_MAX + 1])
{
	const char *slash = strrchr(href, '/');
	const char *last = slash ? slash + 1 : href;
	char decoded[3 * NAME_MAX + 1];

	if (strlen(last) >= sizeof(decoded))
		return false;
	decode(last, decoded);
	if (*decoded == '\0' || strlen(decoded) > NAME_MAX || strchr(decoded, '/') ||
		strcmp(decoded, ".") == 0 || strcmp(decoded, "..") == 0)
		return false;
	strcpy(name, decoded);
	return true;
}

static int compare_files(const void *a, const void *b)
{
	const struct ovf_file *x = a, *y = b;
	int r = strcmp(x->href, y->href);

	return r != 0 ? r : strcmp(x->id, y->id);
}

/* The files, each once, though two disks may be in one and two elements say the same. */
static int add_files(struct ova *ova, struct why *why)
{
	struct ovf *ovf = &ova->ovf;
	char name[NAME_MAX + 1];
	int r = 0;

	if (ovf->count > 1)
		qsort(ovf->files, ovf->count, sizeof(*ovf->files), compare_files);
	for (size_t i = 0, next; r == 0 && i < ovf->count; i = next) {
		bool is_disk = ovf->files[i].is_disk;
		struct archived_file *file;

		for (next = i + 1;
			next < ovf->count && strcmp(ovf->files[i].href, ovf->files[next].href) == 0;
			next++)
			is_disk = is_disk || ovf->files[next].is_disk;
		if (!name_of(ovf->files[i].href, name))
			return why_set(why, -EINVAL, "its descriptor names a file %s",
				quote(ovf->files[i].href).text);
		file = archived_add(ova->archived, name);
		if (!file)
			return why_set(why, -ENOMEM, "out of memory");
		file->is_disk = is_disk;
		r = place(ova, file, &ovf->files[i]);
	}
	return r < 0 ? why_set(why, r, "%s", strerror(-r)) : 0;
}

static int ova_list(const struct file *file, struct archived *archived, struct why *why)
{
	struct ova ova = { .file = file, .archived = archived };
	int r = tar_list(file, &ova.tar, why);

	if (r < 0)
		return r;
	ova.descriptor = find_descriptor(&ova.tar);
	r = read_descriptor(&ova, why);
	if (r == 0)
		r = add_files(&ova, why);
	ovf_free(&ova.ovf);
	tar_free(&ova.tar);
	return r;
}

static const char *const ova_suffixes[] = { "ova", NULL };

const struct archive_format archive_format_ova = {
	.name = "ova",
	.suffixes = ova_suffixes,
	.list = ova_list,
};
