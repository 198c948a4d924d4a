/* SPDX-License-Identifier: Apache-2.0 */
/* imgfs DATASTORE MOUNTPOINT: options, and the order in which things are set up and undone. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "front.h"
#include "imgfs/cache.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"

/* Exit statuses as mount(8) has them. */
enum {
	EXIT_OK = 0,
	EXIT_USAGE = 1,
	EXIT_SYSTEM = 2,
	EXIT_MOUNT = 32,
};

#define DEFAULT_CACHE_SIZE (64ull << 20)
#define MIN_CACHE_SIZE     (1ull << 20)

struct options {
	char *source;
	char *mountpoint;
	char *references;
	char *cache_size;
	char *uid, *gid, *fmask, *dmask;
	int follow_symlinks;
	int zero_copy;
	int allow_other; /* 1 yes, 0 no, -1 as the user's rights suggest */
	struct format_rule *rules;
	size_t rule_count;
	bool bad; /* a line about it has been printed */
};

enum {
	KEY_FORMAT,
	KEY_RAW,
	KEY_WRITABLE,
	KEY_IGNORED,
};

#define OPTION(text, member)                              \
	{                                                 \
		text, offsetof(struct options, member), 1 \
	}
#define KEYED(text, key)            \
	{                           \
		text, UINT_MAX, key \
	} /* FUSE_OPT_KEY, without its conversion */
#define IGNORED(text) KEYED(text, KEY_IGNORED)

static const struct fuse_opt option_table[] = {
	OPTION("references=%s", references),
	OPTION("cache_size=%s", cache_size),
	OPTION("uid=%s", uid),
	OPTION("gid=%s", gid),
	OPTION("fmask=%s", fmask),
	OPTION("dmask=%s", dmask),
	OPTION("follow_symlinks", follow_symlinks),
	OPTION("zero_copy", zero_copy),
	OPTION("allow_other", allow_other),
	{ "noallow_other", offsetof(struct options, allow_other), 0 },
	KEYED("format=", KEY_FORMAT),
	KEYED("raw=", KEY_RAW),
	KEYED("rw", KEY_WRITABLE),

	/* Forced in any case, whatever fstab and mount.fuse3 add of them. */
	IGNORED("ro"),
	IGNORED("suid"),
	IGNORED("nosuid"),
	IGNORED("dev"),
	IGNORED("nodev"),
	IGNORED("exec"),
	IGNORED("noexec"),
	IGNORED("default_permissions"),

	/* Words of fstab that mean something to others. */
	IGNORED("defaults"),
	IGNORED("auto"),
	IGNORED("noauto"),
	IGNORED("user"),
	IGNORED("nouser"),
	IGNORED("users"),
	IGNORED("nofail"),
	IGNORED("_netdev"),
	FUSE_OPT_END,
};

__attribute__((format(printf, 1, 2))) static void complain(const char *fmt, ...)
{
	va_list args;

	fputs("imgfs: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

static void print_formats(const char *title, bool views)
{
	printf("%s", title);
	for (size_t i = 0; views && view_formats[i]; i++)
		printf(" %s", view_formats[i]->name);
	for (size_t i = 0; !views && image_formats[i]; i++)
		printf(" %s", image_formats[i]->name);
	printf("\n");
}

static void print_help(void)
{
	printf("usage: imgfs [options] DATASTORE MOUNTPOINT\n"
	       "\n"
	       "Shows every disk image beneath the directory DATASTORE, read-only, as\n"
	       "NAME.qcow2, NAME.raw and NAME.vmdk. Copying one of them is the conversion.\n"
	       "Unmount with umount MOUNTPOINT.\n"
	       "\n"
	       "    -f                     stay in the foreground, log to standard error\n"
	       "    -d                     the same with debug output\n"
	       "    -s                     one thread\n"
	       "    -h, -V                 this help, the version\n"
	       "\n"
	       "    -o references=none|family|datastore\n"
	       "                           what an image may name (backing files, extents):\n"
	       "                           nothing; files beside it that begin with its own\n"
	       "                           name (default); anything in the datastore\n"
	       "    -o format=GLOB:FORMAT  images whose name matches GLOB are FORMAT; may be\n"
	       "                           repeated\n"
	       "    -o raw=GLOB            the same as format=GLOB:raw\n"
	       "    -o follow_symlinks     follow symbolic links that stay in the datastore\n"
	       "    -o cache_size=SIZE     memory for unpacked clusters and tables (64M)\n"
	       "    -o uid=N, gid=N        owner of all files, instead of the sources'\n"
	       "    -o fmask=M, dmask=M    octal permission bits to clear on files, directories\n"
	       "    -o [no]allow_other     let other users in (default for root)\n"
	       "    -o zero_copy           reply from the sources' descriptors: less work, but\n"
	       "                           only for sources that nobody writes to meanwhile\n"
	       "    -o max_threads=N       reads at a time (10)\n"
	       "\n");
	print_formats("    sources:", false);
	print_formats("    views:  ", true);
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

static int add_format_rule(struct options *options, const char *value)
{
	const char *colon = strrchr(value, ':');

	if (colon)
		return add_rule(options, value, (size_t)(colon - value), colon + 1);
	complain("-o format=%s: it should be GLOB:FORMAT", value);
	options->bad = true;
	return 0;
}

static int positional_argument(struct options *options, const char *argument)
{
	char **slot = options->source ? &options->mountpoint : &options->source;

	if (options->mountpoint) {
		complain("one argument too many: %s", quote(argument).text);
		options->bad = true;
		return 0;
	}
	*slot = strdup(argument);
	return *slot ? 0 : -1;
}

/* 0 takes the argument, 1 leaves it to libfuse. */
static int option_found(void *data, const char *argument, int key, struct fuse_args *args)
{
	struct options *options = data;

	(void)args;
	switch (key) {
	case KEY_FORMAT:
		return add_format_rule(options, strchr(argument, '=') + 1);
	case KEY_RAW:
		argument = strchr(argument, '=') + 1;
		return add_rule(options, argument, strlen(argument), "raw");
	case KEY_WRITABLE:
		complain("-o rw: views can only be read; mount with -o ro");
		options->bad = true;
		return 0;
	case KEY_IGNORED:
		return 0;
	case FUSE_OPT_KEY_NONOPT:
		return positional_argument(options, argument);
	case FUSE_OPT_KEY_OPT:
		/* "x-systemd.automount" and its like: for others who read fstab. */
		return strncmp(argument, "x-", 2) == 0 ? 0 : 1;
	default:
		return 1;
	}
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

static bool parse_references(const char *text, enum reference_policy *policy)
{
	static const char *const names[] = {
		[REFERENCES_NONE] = "none",
		[REFERENCES_FAMILY] = "family",
		[REFERENCES_DATASTORE] = "datastore",
	};

	*policy = REFERENCES_FAMILY;
	if (!text)
		return true;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(text, names[i]) == 0) {
			*policy = (enum reference_policy)i;
			return true;
		}
	}
	complain("-o references=%s: it should be none, family or datastore", text);
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

/* ---- mount options ---- */

static int add_mount_options(
	struct fuse_args *args, const struct options *options, const struct datastore *datastore)
{
	autofree char *text = strdup("ro,nosuid,nodev,noexec,default_permissions,subtype=imgfs");
	autofree char *fsname = malloc(strlen(datastore->root_path) + 8);
	bool allow_other = options->allow_other >= 0 ? options->allow_other : geteuid() == 0;

	if (!text || !fsname)
		return -1;
	sprintf(fsname, "fsname=%s", datastore->root_path);
	if (fuse_opt_add_opt_escaped(&text, fsname) < 0 ||
		(allow_other && fuse_opt_add_opt(&text, "allow_other") < 0))
		return -1;
	return fuse_opt_add_arg(args, "-o") < 0 || fuse_opt_add_arg(args, text) < 0 ? -1 : 0;
}

static bool is_beneath(const char *path, const char *root)
{
	size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

	return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* The mount must not show itself. A mountpoint of /dev/fd/N comes from mount.fuse3. */
static int check_mountpoint(const char *mountpoint, const struct datastore *datastore)
{
	autofree char *canonical = NULL;
	struct stat st;

	if (strncmp(mountpoint, "/dev/fd/", 8) == 0)
		return 0;
	canonical = realpath(mountpoint, NULL);
	if (canonical && stat(canonical, &st) == 0 && !S_ISDIR(st.st_mode)) {
		complain("mount point %s: %s", quote(mountpoint).text, strerror(ENOTDIR));
		return -1;
	}
	if (!canonical) {
		complain("mount point %s: %s", quote(mountpoint).text, strerror(errno));
		return -1;
	}
	if (is_beneath(canonical, datastore->root_path)) {
		complain("the mount point %s is inside the datastore", quote(mountpoint).text);
		return -1;
	}
	if (is_beneath(datastore->root_path, canonical)) {
		complain("the datastore is inside the mount point %s", quote(mountpoint).text);
		return -1;
	}
	return 0;
}

/* libfuse says some lines in several pieces; each ends with a newline all the same. */
static void fuse_message(enum fuse_log_level level, const char *fmt, va_list args)
{
	static _Thread_local char line[512];
	size_t used = strlen(line);

	vsnprintf(line + used, sizeof(line) - used, fmt, args);
	used = strlen(line);
	if (used + 1 < sizeof(line) && (used == 0 || line[used - 1] != '\n'))
		return;
	line[strcspn(line, "\n")] = '\0';
	log_line(level <= FUSE_LOG_ERR       ? LOG_LEVEL_ERROR
		 : level <= FUSE_LOG_WARNING ? LOG_LEVEL_WARNING
		 : level <= FUSE_LOG_INFO    ? LOG_LEVEL_INFO
					     : LOG_LEVEL_DEBUG,
		"%s", line);
	line[0] = '\0';
}

/* ---- the run, from the inside out ---- */

static int serve(struct fuse_session *session, const struct fuse_cmdline_opts *cmdline)
{
	struct fuse_loop_config *loop;
	int r;

	if (cmdline->singlethread)
		return fuse_session_loop(session);
	loop = fuse_loop_cfg_create();
	if (!loop)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(loop, (unsigned)cmdline->clone_fd);
	fuse_loop_cfg_set_max_threads(loop, cmdline->max_threads);
	if (cmdline->max_idle_threads != UINT_MAX) /* given */
		fuse_loop_cfg_set_idle_threads(loop, cmdline->max_idle_threads);
	r = fuse_session_loop_mt(session, loop);
	fuse_loop_cfg_destroy(loop);
	return r;
}

static int mount_and_serve(struct front *front, struct fuse_args *args, const char *mountpoint,
	const struct fuse_cmdline_opts *cmdline)
{
	struct fuse_session *session =
		fuse_session_new(args, &front_operations, sizeof(front_operations), front);
	int status = EXIT_MOUNT;

	if (!session)
		return EXIT_USAGE;
	if (fuse_set_signal_handlers(session) != 0)
		goto destroy;
	if (fuse_session_mount(session, mountpoint) != 0) {
		complain("mounting on %s failed", quote(mountpoint).text);
		goto remove_handlers;
	}
	if (fuse_daemonize(cmdline->foreground) != 0)
		goto unmount;
	log_open(!cmdline->foreground, cmdline->debug);
	/* A signal that ends the loop is a positive number, and a clean end. */
	status = serve(session, cmdline) >= 0 ? EXIT_OK : EXIT_SYSTEM;
unmount:
	fuse_session_unmount(session);
remove_handlers:
	fuse_remove_signal_handlers(session);
destroy:
	fuse_session_destroy(session);
	return status;
}

static int run(const struct options *options, struct fuse_args *args,
	const struct fuse_cmdline_opts *cmdline, struct datastore *datastore,
	const struct catalog_options *catalog_options, uint64_t cache_size)
{
	struct image_context images = {
		.datastore = datastore,
		.rules = options->rules,
		.rule_count = options->rule_count,
	};
	struct front front = { .datastore = datastore, .zero_copy = options->zero_copy };
	int status = EXIT_SYSTEM;

	images.cache = cache_new(cache_size);
	if (images.cache && catalog_new(&images, catalog_options, &front.catalog) == 0)
		status = mount_and_serve(&front, args, options->mountpoint, cmdline);
	else
		complain("out of memory");
	catalog_free(front.catalog);
	cache_free(images.cache);
	return status;
}

static int start(const struct options *options, struct fuse_args *args,
	const struct fuse_cmdline_opts *cmdline)
{
	struct catalog_options catalog_options;
	enum reference_policy references;
	uint64_t cache_size = DEFAULT_CACHE_SIZE;
	struct datastore datastore;
	struct why why;
	int status = EXIT_MOUNT;

	if (!parse_references(options->references, &references) ||
		!parse_catalog_options(options, &catalog_options) ||
		(options->cache_size &&
			!parse_size("cache_size", options->cache_size, &cache_size)))
		return EXIT_USAGE;
	if (cache_size < MIN_CACHE_SIZE)
		cache_size = MIN_CACHE_SIZE;
	if (datastore_open(&datastore, options->source, references, &why) < 0) {
		complain("datastore %s", why.text);
		return EXIT_SYSTEM;
	}
	datastore.follow_symlinks = options->follow_symlinks;
	if (check_mountpoint(options->mountpoint, &datastore) == 0 &&
		add_mount_options(args, options, &datastore) == 0)
		status = run(options, args, cmdline, &datastore, &catalog_options, cache_size);
	datastore_close(&datastore);
	return status;
}

static int parse_and_start(struct options *options, struct fuse_args *args)
{
	struct fuse_cmdline_opts cmdline;
	int status;

	if (fuse_opt_parse(args, options, option_table, option_found) < 0 ||
		fuse_parse_cmdline(args, &cmdline) < 0)
		return EXIT_USAGE;
	if (cmdline.show_help) {
		print_help();
		status = EXIT_OK;
	} else if (cmdline.show_version) {
		printf("imgfs %s\nlibfuse %s\n", IMGFS_VERSION, fuse_pkgversion());
		status = EXIT_OK;
	} else if (options->bad) {
		status = EXIT_USAGE;
	} else if (!options->mountpoint) {
		complain("usage: imgfs [options] DATASTORE MOUNTPOINT (imgfs -h tells more)");
		status = EXIT_USAGE;
	} else {
		status = start(options, args, &cmdline);
	}
	free(cmdline.mountpoint);
	return status;
}

static void free_options(struct options *options)
{
	for (size_t i = 0; i < options->rule_count; i++)
		free(options->rules[i].pattern);
	free(options->rules);
	free(options->source);
	free(options->mountpoint);
	free(options->references);
	free(options->cache_size);
	free(options->uid);
	free(options->gid);
	free(options->fmask);
	free(options->dmask);
}

/*
 * Blocks of the cache come and go in a few large sizes from many threads. Left alone, glibc makes
 * an arena per thread and raises its threshold for mmap, and what is freed never goes back.
 */
static void tame_malloc(void)
{
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 256 << 10);
	mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct options options = { .allow_other = -1 };
	int status;

	tame_malloc();
	log_open(false, false);
	fuse_set_log_func(fuse_message);
	status = parse_and_start(&options, &args);
	free_options(&options);
	fuse_opt_free_args(&args);
	return status;
}
