/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "imgfs/checked.h"
#include "imgfs/view.h"

#define DEFAULT_CACHE_SIZE (64ull << 20)
#define MIN_CACHE_SIZE     (1ull << 20)

void complain(const char *fmt, ...)
{
	va_list args;

	fputs("imgfs: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static int add_rule(struct options *options, const char *pattern, size_t length, const char *format)
{
	struct format_rule *grown;
	const struct image_format *known = image_format_by_name(format);

	if (!known || length == 0) {
		complain("-o format=%.*s:%s: %s", (int)length, pattern, format,
			length == 0 ? "no pattern" : "no such format");
		options->bad = true;
		return 0;
	}
	grown = reallocarray(options->rules, options->rule_count + 1, sizeof(*grown));
	if (!grown)
		return -1;
	options->rules = grown;
	grown[options->rule_count].format = known;
	grown[options->rule_count].pattern = strndup(pattern, length);
	return grown[options->rule_count++].pattern ? 0 : -1;
}

int options_add_format(struct options *options, const char *value)
{
	const char *colon = strrchr(value, ':');

	if (colon)
		return add_rule(options, value, (size_t)(colon - value), colon + 1);
	complain("-o format=%s: it should be GLOB:FORMAT", value);
	options->bad = true;
	return 0;
}

int options_add_raw(struct options *options, const char *glob)
{
	return add_rule(options, glob, strlen(glob), "raw");
}

int options_add_ring(struct options *options, const char *argument)
{
	const char *depth = strchr(argument, '=');

	options->io_uring |= !depth;
	if (!depth)
		return 0;
	free(options->io_uring_depth);
	options->io_uring_depth = strdup(depth + 1);
	return options->io_uring_depth ? 0 : -1;
}

/* ---- values of options ---- */

static bool parse_number(
	const char *name, const char *text, int base, uint64_t max, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, base);
	if (errno == 0 && end != text && *end == '\0' && text[0] != '-' && *value <= max)
		return true;
	complain("-o %s=%s: not a number that can be used", name, text);
	return false;
}

static bool parse_size(const char *name, const char *text, uint64_t *value)
{
	static const char units[] = "KMGT";
	char *end;
	const char *unit;
	int shift = 0;

	errno = 0;
	*value = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		shift = (int)(unit - units + 1) * 10;
		end++;
	}
	if (errno == 0 && end != text && *end == '\0' && text[0] != '-' &&
		*value <= UINT64_MAX >> shift) {
		*value <<= shift;
		return true;
	}
	complain("-o %s=%s: not a size (64M, 1G)", name, text);
	return false;
}

/*
 * Which of the words, parted by bars? The first where nothing is said. *word is its number.
 */
static bool parse_word(const char *name, const char *text, const char *words, unsigned *word)
{
	size_t wanted = text ? strlen(text) : 0;
	const char *at = words;

	*word = 0;
	if (!text)
		return true;
	for (;; (*word)++) {
		size_t length = strcspn(at, "|");

		if (length == wanted && strncmp(at, text, length) == 0)
			return true;
		if (at[length] == '\0')
			break;
		at += length + 1;
	}
	complain("-o %s=%s: it should be one of %s", name, text, words);
	return false;
}

static bool parse_references(const char *text, enum reference_policy *policy)
{
	static const enum reference_policy policies[] = {
		REFERENCES_FAMILY,
		REFERENCES_NONE,
		REFERENCES_DATASTORE,
	};
	unsigned word;

	if (!parse_word("references", text, "family|none|datastore", &word))
		return false;
	*policy = policies[word];
	return true;
}

static bool parse_view_options(const struct options *options, struct view_options *v)
{
	static const enum vmdk_adapter adapters[] = {
		ADAPTER_LSILOGIC,
		ADAPTER_BUSLOGIC,
		ADAPTER_IDE,
	};
	uint64_t hardware = view_options_default.hardware_version;
	uint64_t tools = view_options_default.tools_version;
	unsigned adapter, sector, flat;

	if (!parse_word("adapter", options->adapter, "lsilogic|buslogic|ide", &adapter) ||
		!parse_word("sector_size", options->sector_size, "512|4096", &sector) ||
		!parse_word("flat_type", options->flat_type, "vmfs|monolithicFlat", &flat))
		return false;
	if (options->hw_version &&
		!parse_number("hw_version", options->hw_version, 10, 999, &hardware))
		return false;
	if (options->tools_version &&
		!parse_number("tools_version", options->tools_version, 10, INT32_MAX, &tools))
		return false;
	*v = (struct view_options) {
		.adapter = adapters[adapter],
		.hardware_version = (unsigned)hardware,
		.tools_version = (unsigned)tools,
		.sector_size = sector == 1 ? 4096 : 512,
		.monolithic_flat = flat == 1,
	};
	return true;
}

static bool parse_views(const struct options *options, struct catalog_options *c)
{
	static const char *const vmdk[] = { NULL, "flat", "stream" };
	static const char *const vhd[] = { NULL, "fixed" };
	const char *list = options->views ? options->views : CHOICES_DEFAULT;
	unsigned vmdk_flavour, vhd_flavour, layout;
	struct why why;

	if (!parse_view_options(options, &c->choices.options) ||
		!parse_word("vmdk", options->vmdk, "sparse|flat|stream", &vmdk_flavour) ||
		!parse_word("vhd", options->vhd, "dynamic|fixed", &vhd_flavour) ||
		!parse_word("layout", options->layout, "flat|dir", &layout))
		return false;
	c->folders = layout == 1;
	c->snapshots = options->snapshots;
	if (choices_parse(&c->choices, list, vmdk[vmdk_flavour], vhd[vhd_flavour], &why) == 0)
		return true;
	complain("-o views=%s: %s", list, why.text);
	return false;
}

static bool parse_catalog_options(const struct options *options, struct catalog_options *c)
{
	uint64_t value;

	*c = (struct catalog_options) { .fmask = -1, .dmask = -1 };
	if (options->uid) {
		if (!parse_number("uid", options->uid, 10, UINT32_MAX - 1, &value))
			return false;
		c->set_uid = true;
		c->uid = (uid_t)value;
	}
	if (options->gid) {
		if (!parse_number("gid", options->gid, 10, UINT32_MAX - 1, &value))
			return false;
		c->set_gid = true;
		c->gid = (gid_t)value;
	}
	if (options->fmask) {
		if (!parse_number("fmask", options->fmask, 8, 0777, &value))
			return false;
		c->fmask = (int)value;
	}
	if (options->dmask) {
		if (!parse_number("dmask", options->dmask, 8, 0777, &value))
			return false;
		c->dmask = (int)value;
	}
	return true;
}

static bool parse_choice(const char *name, const char *text, const char *yes, const char *no,
	bool otherwise, bool *value)
{
	*value = otherwise;
	if (!text)
		return true;
	*value = strcmp(text, yes) == 0;
	if (*value || strcmp(text, no) == 0)
		return true;
	complain("-o %s=%s: it should be %s or %s", name, text, yes, no);
	return false;
}

/* Eight where nothing is said, as in libfuse. */
static bool parse_ring(const struct options *options, struct settings *settings)
{
	uint64_t depth = 8;

	if (options->io_uring_depth &&
		!parse_number("io_uring_q_depth", options->io_uring_depth, 10, 1024, &depth))
		return false;
	if (depth == 0) {
		complain("-o io_uring_q_depth=0: a ring holds one request at least");
		return false;
	}
	settings->ring_depth = options->io_uring ? (unsigned)depth : 0;
	return true;
}

static bool parse_user(const char *text, struct settings *settings)
{
	const struct passwd *user;

	if (!text)
		return true;
	user = getpwnam(text);
	if (!user) {
		complain("-o run_as=%s: no such user", text);
		return false;
	}
	if (geteuid() != 0 && geteuid() != user->pw_uid) {
		complain("-o run_as=%s: only root can become somebody else", text);
		return false;
	}
	settings->run_as = geteuid() != user->pw_uid;
	settings->run_as_user = user->pw_uid;
	settings->run_as_group = user->pw_gid;
	return true;
}

bool options_read(const struct options *options, struct settings *settings)
{
	*settings = (struct settings) { .cache_size = DEFAULT_CACHE_SIZE };
	if (!parse_references(options->references, &settings->references) ||
		!parse_catalog_options(options, &settings->catalog) ||
		!parse_views(options, &settings->catalog) ||
		!parse_choice("in_use", options->in_use, "allow", "refuse", false,
			&settings->catalog.allow_in_use) ||
		!parse_choice("sandbox", options->sandbox, "on", "off", true, &settings->sandbox) ||
		!parse_user(options->run_as, settings) || !parse_ring(options, settings))
		return false;
	if (options->cache_size &&
		!parse_size("cache_size", options->cache_size, &settings->cache_size))
		return false;
	settings->cache_size = max_u64(settings->cache_size, MIN_CACHE_SIZE);
	return true;
}

void options_free(struct options *options)
{
	for (size_t i = 0; i < options->rule_count; i++)
		free(options->rules[i].pattern);
	free(options->rules);
	free(options->source);
	free(options->mountpoint);
	free(options->views);
	free(options->layout);
	free(options->vmdk);
	free(options->vhd);
	free(options->flat_type);
	free(options->adapter);
	free(options->hw_version);
	free(options->tools_version);
	free(options->sector_size);
	free(options->references);
	free(options->cache_size);
	free(options->uid);
	free(options->gid);
	free(options->fmask);
	free(options->dmask);
	free(options->in_use);
	free(options->run_as);
	free(options->sandbox);
	free(options->io_uring_depth);
}

static void print_formats(const char *title, bool views)
{
	printf("%s", title);
	for (size_t i = 0; views && view_formats[i]; i++)
		printf(" %s", view_formats[i]->suffix);
	for (size_t i = 0; !views && image_formats[i]; i++)
		printf(" %s", image_formats[i]->name);
	printf("\n");
}

void options_help(void)
{
	printf("usage: imgfs [options] DATASTORE MOUNTPOINT\n"
	       "\n"
	       "Shows every disk image beneath the directory DATASTORE, read-only, as\n"
	       "NAME.qcow2, NAME.raw and NAME.vmdk, or as the formats that views= names.\n"
	       "Copying one of them is the conversion.\n"
	       "Unmount with umount MOUNTPOINT.\n"
	       "\n"
	       "    -f                     stay in the foreground, log to standard error\n"
	       "    -d                     the same with debug output\n"
	       "    -s                     one thread\n"
	       "    -h, -V                 this help, the version\n"
	       "\n"
	       "    -o views=LIST          what each image is shown as, parted by colons\n"
	       "                           (" CHOICES_DEFAULT "); all views are named below\n"
	       "    -o vmdk=sparse|flat|stream\n"
	       "                           what NAME.vmdk is: one file (default); a descriptor\n"
	       "                           with NAME-flat.vmdk, for ESXi; streamOptimized\n"
	       "    -o vhd=dynamic|fixed   what NAME.vhd is, if views= asks for it\n"
	       "    -o layout=flat|dir     views beside each other (default), or a directory\n"
	       "                           for each image with its views in it\n"
	       "    -o snapshots           internal snapshots are shown too, NAME@SNAPSHOT.raw\n"
	       "                           and so on\n"
	       "    -o adapter=lsilogic|buslogic|ide, hw_version=N, tools_version=N,\n"
	       "       sector_size=512|4096, flat_type=vmfs|monolithicFlat\n"
	       "                           what VMDK descriptors say\n"
	       "    -o scan_gzip           show compressed images that do not tell their size\n"
	       "                           (gzip); the first look reads them from end to end\n"
	       "    -o references=none|family|datastore\n"
	       "                           what an image may name (backing files, extents):\n"
	       "                           nothing; files beside it that begin with its own\n"
	       "                           name (default); anything in the datastore\n"
	       "    -o format=GLOB:FORMAT  images whose name matches GLOB are FORMAT; may be\n"
	       "                           repeated\n"
	       "    -o raw=GLOB            the same as format=GLOB:raw\n"
	       "    -o follow_symlinks     follow symbolic links that stay in the datastore\n"
	       "    -o cache_size=SIZE     memory for unpacked clusters and tables (64M)\n"
	       "    -o detect_zeroes       leave what is allocated but all zero out of the qcow2\n"
	       "                           and vmdk views; their first stat reads all data\n"
	       "    -o uid=N, gid=N        owner of all files, instead of the sources'\n"
	       "    -o fmask=M, dmask=M    octal permission bits to clear on files, directories\n"
	       "    -o [no]allow_other     let other users in (default for root)\n"
	       "    -o zero_copy           reply from the sources' descriptors, or have the\n"
	       "                           kernel read them: less work, but only for sources\n"
	       "                           that nobody writes to meanwhile\n"
	       "    -o in_use=refuse|allow an image that a running QEMU may write to cannot be\n"
	       "                           opened (default), or is shown as it happens to be\n"
	       "    -o run_as=USER         serve as that user; root alone can say so\n"
	       "    -o sandbox=off         do not confine the process (Landlock, seccomp,\n"
	       "                           capabilities, limits)\n"
	       "    -o sandbox_selftest    mount, try to break out, tell, and end\n"
	       "    -o max_threads=N       reads at a time (10)\n"
	       "    -o io_uring            get requests by io_uring, where libfuse and the\n"
	       "                           kernel can; the sandbox then holds less (README)\n"
	       "    -o io_uring_q_depth=N  requests that a ring holds, one ring a processor (8)\n"
	       "\n");
	print_formats("    sources:", false);
	print_formats("    views:  ", true);
}
