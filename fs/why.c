/* SPDX-License-Identifier: Apache-2.0 */
#include "imgfs/why.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int why_set(struct why *why, int err, const char *fmt, ...)
{
	va_list args;

	if (!why)
		return err;
	va_start(args, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, args);
	va_end(args);
	return err;
}

void why_prefix(struct why *why, const char *fmt, ...)
{
	char reason[sizeof(why->text)];
	va_list args;
	size_t used;

	if (!why)
		return;
	memcpy(reason, why->text, sizeof(reason));
	va_start(args, fmt);
	vsnprintf(why->text, sizeof(why->text), fmt, args);
	va_end(args);
	used = strlen(why->text);
	snprintf(why->text + used, sizeof(why->text) - used, ": %s", reason);
}
