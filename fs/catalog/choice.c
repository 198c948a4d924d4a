/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/choice.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "imgfs/log.h"
#include "imgfs/wire.h"

static const struct view_format *format_by_name(const char *name)
{
	for (const struct view_format *const *v = view_formats; *v; v++) {
		if (strcmp((*v)->name, name) == 0)
			return *v;
	}
	return NULL;
}

static const struct view_format *format_by_suffix(const char *suffix)
{
	for (const struct view_format *const *v = view_formats; *v; v++) {
		if (strcmp((*v)->suffix, suffix) == 0)
			return *v;
	}
	return NULL;
}

/* Whatever bytes may depend on beside the image. */
static uint64_t seed_of(const struct choice *c, const struct view_options *options)
{
	uint8_t bytes[20];
	uint64_t seed;

	put_le32(bytes, options->adapter);
	put_le32(bytes + 4, options->hardware_version);
	put_le32(bytes + 8, options->tools_version);
	put_le32(bytes + 12, options->sector_size);
	put_le32(bytes + 16, options->monolithic_flat);
	seed = XXH3_64bits_withSeed(bytes, sizeof(bytes), c->base);
	seed = XXH3_64bits_withSeed(c->suffix, strlen(c->suffix), seed);
	return XXH3_64bits_withSeed(c->format->name, strlen(c->format->name), seed);
}

static int add(struct choices *choices, const struct view_format *format, const char *suffix,
	enum choice_base base, struct why *why)
{
	struct choice *c = &choices->list[choices->count];

	if (choices->count == CHOICES_MAX)
		return why_set(why, -EINVAL, "more than %d kinds of files", CHOICES_MAX);
	for (size_t i = 0; i < choices->count; i++) {
		if (strcmp(choices->list[i].suffix, suffix) == 0 && choices->list[i].base == base)
			return why_set(why, -EINVAL, "'%s' is said twice", suffix);
	}
	*c = (struct choice) { .format = format, .base = base };
	snprintf(c->suffix, sizeof(c->suffix), "%s", suffix);
	c->seed = seed_of(c, &choices->options);
	choices->count++;
	return 0;
}

/* "vmdk" is beside "-flat.vmdk", "x.vmdk" beside "x-flat.vmdk". */
static int add_pair(struct choices *choices, const struct view_format *format, const char *suffix,
	enum choice_base base, struct why *why)
{
	int stem = (int)strlen(suffix) - (int)strlen("vmdk") - 1;
	char second[sizeof(choices->list[0].suffix) + sizeof("-flat.vmdk")];
	int r = add(choices, format, suffix, base, why);

	snprintf(second, sizeof(second), "%.*s-flat.vmdk", stem < 0 ? 0 : stem, suffix);
	return r < 0 ? r : add(choices, format->second, second, base, why);
}

static int add_word(struct choices *choices, const char *word, const char *vmdk, const char *vhd,
	struct why *why)
{
	const struct view_format *format = format_by_suffix(word);
	const char *flavour = strcmp(word, "vmdk") == 0  ? vmdk
			      : strcmp(word, "vhd") == 0 ? vhd
							 : NULL;
	char name[64];
	int r;

	if (flavour) {
		snprintf(name, sizeof(name), "%s-%s", word, flavour);
		format = format_by_name(name);
	}
	if (!format)
		return why_set(why, -EINVAL, "there is no view %s", quote(word).text);
	if (!format->second)
		return add(choices, format, word, BASE_ANY, why);
	r = add_pair(choices, format, word, BASE_STEM, why);
	return r < 0 ? r : add_pair(choices, format, word, BASE_WHOLE, why);
}

int choices_parse(struct choices *choices, const char *list, const char *vmdk, const char *vhd,
	struct why *why)
{
	choices->count = 0;
	while (*list) {
		size_t length = strcspn(list, ":");
		char word[sizeof(choices->list[0].suffix)];
		int r;

		if (length == 0 || length >= sizeof(word))
			return why_set(why, -EINVAL, "it should be names of views and colons");
		snprintf(word, sizeof(word), "%.*s", (int)length, list);
		r = add_word(choices, word, vmdk, vhd, why);
		if (r < 0)
			return r;
		list += length;
		list += *list == ':';
	}
	if (choices->count == 0)
		return why_set(why, -EINVAL, "it should be names of views and colons");
	return 0;
}
