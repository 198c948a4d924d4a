/* SPDX-License-Identifier: Apache-2.0 */
#include "viewoption.h"

#include <stdlib.h>
#include <string.h>

static bool set_number(struct view_options *o, const char *name, unsigned value)
{
	if (!strcmp(name, "hw_version"))
		o->hardware_version = value;
	else if (!strcmp(name, "tools_version"))
		o->tools_version = value;
	else if (!strcmp(name, "sector_size"))
		o->sector_size = value;
	else
		return false;
	return true;
}

static bool set_adapter(struct view_options *o, const char *word)
{
	static const char *const words[] = {
		[ADAPTER_LSILOGIC] = "lsilogic",
		[ADAPTER_BUSLOGIC] = "buslogic",
		[ADAPTER_IDE] = "ide",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(word, words[i]) != 0)
			continue;
		o->adapter = (enum vmdk_adapter)i;
		return true;
	}
	return false;
}

bool view_option_read(struct view_options *options, char *text)
{
	char *word = strchr(text, '=');

	if (!word)
		return false;
	*word++ = '\0';
	if (!strcmp(text, "adapter"))
		return set_adapter(options, word);
	if (!strcmp(text, "flat_type")) {
		options->monolithic_flat = !strcmp(word, "monolithicFlat");
		return options->monolithic_flat || !strcmp(word, "vmfs");
	}
	return set_number(options, text, (unsigned)strtoul(word, NULL, 10));
}
