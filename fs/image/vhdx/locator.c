/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parent locator (2.6.2.6), a metadata item of keys and values in UTF-16LE.
 *
 *   HEADER  0 GUID of the type, 18 pairs, then from 20 on
 *   PAIR    0 offset of the key, 4 of the value, 8 length of the key, 10 of the value, in bytes
 *
 * Of the paths only relative_path means anything here: the others begin with a volume or a drive
 * of the machine that wrote them. The parent is the right one if its data write GUID is
 * parent_linkage, or parent_linkage2.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/utf16.h"
#include "imgfs/wire.h"
#include "vhdx.h"

enum {
	PAIRS = 18,
	HEADER_BYTES = 20,
	VALUE_OFFSET = 4,
	KEY_LENGTH = 8,
	VALUE_LENGTH = 10,
	PAIR_BYTES = 12,
};

static const uint8_t vhdx_type[UUID_BYTES] = { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7,
	0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 };

struct text {
	const uint8_t *bytes; /* UTF-16LE; NULL: not there */
	size_t length;        /* bytes */
};

static bool is_key(struct text key, const char *name)
{
	size_t length = strlen(name);

	if (key.length != 2 * length)
		return false;
	for (size_t i = 0; i < length; i++) {
		if (get_le16(key.bytes + 2 * i) != (uint8_t)name[i])
			return false;
	}
	return true;
}

/* The value of a key, the first one where it is there twice. */
static struct text value_of(const uint8_t *item, size_t length, const char *name)
{
	size_t pairs = get_le16(item + PAIRS);

	for (size_t i = 0; i < pairs && (i + 1) * PAIR_BYTES <= length - HEADER_BYTES; i++) {
		const uint8_t *pair = item + HEADER_BYTES + i * PAIR_BYTES;
		uint32_t key = get_le32(pair), value = get_le32(pair + VALUE_OFFSET);
		uint16_t key_length = get_le16(pair + KEY_LENGTH);
		uint16_t value_length = get_le16(pair + VALUE_LENGTH);

		if (range_ok(key, key_length, length) && range_ok(value, value_length, length) &&
			is_key((struct text) { item + key, key_length }, name))
			return (struct text) { item + value, value_length };
	}
	return (struct text) { 0 };
}

static int name_parent(struct layer *layer, struct text path, struct why *why)
{
	autofree char *decoded = NULL;
	char *name;
	int r;

	if (!path.bytes)
		return why_set(why, -ENOTSUP,
			"it names its parent only by a path of the machine that wrote it");
	r = utf16_decode(path.bytes, path.length, false, &decoded);
	if (r < 0)
		return why_set(why, r,
			r == -EINVAL ? "the name of its parent is not UTF-16" : "out of memory");
	for (char *c = decoded; *c; c++) {
		if (*c == '\\')
			*c = '/';
	}
	for (name = decoded; name[0] == '.' && name[1] == '/';)
		name += 2;
	return layer_set_parent(layer, name, strlen(name), "vhdx", why);
}

/* Kept as text, which is compared with that of the parent's GUID. What is none is left out. */
static int add_linkage(struct vhdx *v, struct text text)
{
	char *linkage = v->linkages[v->linkage_count];
	autofree char *decoded = NULL;

	int r;

	if (text.length != 2 * (VHDX_LINKAGE - 1))
		return 0;
	r = utf16_decode(text.bytes, text.length, false, &decoded);
	if (r < 0)
		return r == -EINVAL ? 0 : r;
	if (strlen(decoded) != VHDX_LINKAGE - 1)
		return 0;
	memcpy(linkage, decoded, VHDX_LINKAGE);
	v->linkage_count++;
	return 0;
}

int vhdx_read_locator(
	struct layer *layer, struct vhdx *v, const struct vhdx_range *locator, struct why *why)
{
	autofree uint8_t *item = NULL;
	int r;

	if (locator->length < HEADER_BYTES)
		return why_set(why, -EINVAL, "its parent locator is cut short");
	item = malloc(locator->length); /* 1 MiB at most */
	if (!item)
		return why_set(why, -ENOMEM, "out of memory");
	r = vhdx_read(layer, v, item, locator->length, locator->start);
	if (r < 0)
		return why_set(why, r, "its parent locator cannot be read");
	if (!uuid_equal(item, vhdx_type))
		return why_set(why, -ENOTSUP, "its parent is not a VHDX file");
	r = add_linkage(v, value_of(item, locator->length, "parent_linkage"));
	if (r == 0)
		r = add_linkage(v, value_of(item, locator->length, "parent_linkage2"));
	if (r < 0)
		return why_set(why, r, "out of memory");
	if (v->linkage_count == 0)
		return why_set(why, -EINVAL, "it does not say which state of its parent it needs");
	return name_parent(layer, value_of(item, locator->length, "relative_path"), why);
}
