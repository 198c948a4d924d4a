/* SPDX-License-Identifier: Apache-2.0 */
/* imgfs DATASTORE MOUNTPOINT: options, and the order in which things are set up and undone. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "config.h"
#include "front.h"
#include "imgfs/cache.h"
#include "imgfs/cleanup.h"
#include "imgfs/crew.h"
#include "imgfs/log.h"
#include "mountpoint.h"
#include "options.h"
#include "process/background.h"
#include "process/companion.h"
#include "process/confine.h"
#include "process/readahead.h"

/* Exit statuses as mount(8) has them. */
enum {
	EXIT_OK = 0,
	EXIT_USAGE = 1,
	EXIT_SYSTEM = 2,
	EXIT_MOUNT = 32,
};

enum {
	KEY_FORMAT,
	KEY_RAW,
	KEY_WRITABLE,
	KEY_RING,
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
	OPTION("views=%s", views),
	OPTION("layout=%s", layout),
	OPTION("vmdk=%s", vmdk),
	OPTION("vhd=%s", vhd),
	OPTION("flat_type=%s", flat_type),
	OPTION("adapter=%s", adapter),
	OPTION("hw_version=%s", hw_version),
	OPTION("tools_version=%s", tools_version),
	OPTION("sector_size=%s", sector_size),
	OPTION("snapshots", snapshots),
	OPTION("scan_gzip", scan_gzip),
	OPTION("references=%s", references),
	OPTION("cache_size=%s", cache_size),
	OPTION("uid=%s", uid),
	OPTION("gid=%s", gid),
	OPTION("fmask=%s", fmask),
	OPTION("dmask=%s", dmask),
	OPTION("in_use=%s", in_use),
	OPTION("run_as=%s", run_as),
	OPTION("sandbox=%s", sandbox),
	OPTION("sandbox_selftest", sandbox_selftest),
	OPTION("follow_symlinks", follow_symlinks),
	OPTION("zero_copy", zero_copy),
	OPTION("detect_zeroes", detect_zeroes),
	OPTION("allow_other", allow_other),
	{ "noallow_other", offsetof(struct options, allow_other), 0 },
	KEYED("format=", KEY_FORMAT),
	KEYED("raw=", KEY_RAW),
	KEYED("rw", KEY_WRITABLE),
	KEYED("io_uring", KEY_RING),
	KEYED("io_uring_q_depth=", KEY_RING),

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

/* libfuse does it, and is to see it too; what there is to do here is to let it. */
static int ring_option(struct options *options, const char *argument)
{
	if (!HAVE_IO_URING) {
		complain("-o %s: this libfuse has no io_uring", quote(argument).text);
		options->bad = true;
		return 0;
	}
	return options_add_ring(options, argument) < 0 ? -1 : 1;
}

/* 0 takes the argument, 1 leaves it to libfuse. */
static int option_found(void *data, const char *argument, int key, struct fuse_args *args)
{
	struct options *options = data;

	(void)args;
	switch (key) {
	case KEY_FORMAT:
		return options_add_format(options, strchr(argument, '=') + 1);
	case KEY_RAW:
		return options_add_raw(options, strchr(argument, '=') + 1);
	case KEY_WRITABLE:
		complain("-o rw: views can only be read; mount with -o ro");
		options->bad = true;
		return 0;
	case KEY_RING:
		return ring_option(options, argument);
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

/*
 * The first request, FUSE_INIT: it has been waiting since the mount. Threads that libfuse makes
 * for rings get no signals, which are for this one.
 */
static void answer_first(struct fuse_session *session)
{
	struct fuse_buf request = { 0 };
	sigset_t all, before;
	int r;

	do
		r = fuse_session_receive_buf(session, &request);
	while (r == -EINTR && !fuse_session_exited(session));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (r > 0)
		fuse_session_process_buf(session, &request);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	free(request.mem);
}

static int serve(
	struct fuse_session *session, const struct fuse_cmdline_opts *cmdline, int readahead)
{
	struct fuse_loop_config *loop;
	int r;

	if (readahead >= 0) {
		answer_first(session);
		r = readahead_raise(readahead);
		if (r < 0)
			log_debug("the kernel's readahead stays as it is: %s", strerror(-r));
	}
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

/* What a run is made of; nothing of it changes while it lasts. */
struct run {
	const struct options *options;
	const struct settings *settings;
	const struct fuse_cmdline_opts *cmdline;
	struct fuse_args *args;
	struct datastore *datastore;
	char *mountpoint; /* canonical */
};

/* What a server with that many threads and that cache may need, generously. */
#define BASE_MEMORY   (256ull << 20)
#define THREAD_MEMORY (16ull << 20) /* stack and buffers */
#define SLOT_MEMORY   (2ull << 20)  /* a request in a ring, and its reply */

/* Does root ask for what a companion does to let the kernel read by itself? */
static bool wants_backing(const struct run *run)
{
	return HAVE_PASSTHROUGH && run->options->zero_copy && geteuid() == 0;
}

static int confine_run(const struct run *run, const struct companion *companion, struct why *why)
{
	/* libfuse makes a ring, and a thread for it, for each processor that there could be. */
	unsigned rings = run->settings->ring_depth > 0 ? (unsigned)get_nprocs_conf() : 0;
	struct confinement confinement = {
		.root = run->datastore->root,
		.change_user = run->settings->run_as,
		.user = run->settings->run_as_user,
		.group = run->settings->run_as_group,
		.memory = BASE_MEMORY + run->settings->cache_size +
			  THREAD_MEMORY * run->cmdline->max_threads +
			  rings * (THREAD_MEMORY + SLOT_MEMORY * run->settings->ring_depth),
		.clone_fd = run->cmdline->clone_fd,
		.orders = wants_backing(run) ? companion->orders : -1,
		.rings = rings,
	};

	return run->settings->sandbox ? confine(&confinement, why)
				      : confine_privileges(&confinement, why);
}

/* From the mount to the first request. The caller is still there to hear what goes wrong. */
static int settle(const struct run *run, struct fuse_session *session,
	struct background *background, struct companion *companion)
{
	struct why why;
	int r = 0;

	if (!run->cmdline->foreground)
		r = background_enter(background, EXIT_SYSTEM);
	log_open(!run->cmdline->foreground, run->cmdline->debug);
	if (!run->settings->sandbox && !run->settings->run_as)
		return r;
	if (r == 0 && !mountpoint_is_handed_over(run->mountpoint))
		r = companion_start(companion, run->mountpoint,
			wants_backing(run) ? fuse_session_fd(session) : -1);
	if (r < 0) {
		complain("starting a process: %s", strerror(-r));
		return r;
	}
	r = confine_run(run, companion, &why);
	if (r < 0)
		complain("confining the process: %s (-o sandbox=off does without)", why.text);
	return r;
}

/* Is the mount still there? After umount(8) another one may be in its place. */
static bool is_mounted(struct fuse_session *session)
{
	struct pollfd connection = { .fd = fuse_session_fd(session) };

	return poll(&connection, 1, 0) != 1 || !(connection.revents & POLLERR);
}

static void unmount(struct fuse_session *session, struct companion *companion)
{
	int r;

	if (companion->orders < 0) {
		fuse_session_unmount(session);
		return;
	}
	r = is_mounted(session) ? companion_unmount(companion) : 0;
	if (r < 0)
		log_error("cannot unmount: %s", strerror(-r));
	companion_stop(companion);
}

/* Mounted; until it is not. */
static int serve_mounted(const struct run *run, struct fuse_session *session, struct front *front)
{
	struct background background = { -1, -1 };
	struct companion companion = { -1 };
	autoclose int readahead = readahead_open(run->mountpoint);
	int status = EXIT_SYSTEM;

#if HAVE_PASSTHROUGH
	if (front->zero_copy)
		front->passthrough = passthrough_new(&companion, fuse_session_fd(session));
#else
	(void)front;
#endif
	if (settle(run, session, &background, &companion) == 0) {
		if (background.caller >= 0)
			background_done(&background, EXIT_OK);
		/* A signal that ends the loop is a positive number, and a clean end. */
		if (run->options->sandbox_selftest)
			status =
				confine_selftest(run->datastore->root) == 0 ? EXIT_OK : EXIT_SYSTEM;
		else
			status = serve(session, run->cmdline, steal_fd(&readahead)) >= 0
					 ? EXIT_OK
					 : EXIT_SYSTEM;
	}
	unmount(session, &companion);
	passthrough_free(front->passthrough);
	front->passthrough = NULL;
	return status;
}

static int mount_and_serve(const struct run *run, struct front *front)
{
	struct fuse_session *session =
		fuse_session_new(run->args, &front_operations, sizeof(front_operations), front);
	int status = EXIT_MOUNT;

	if (!session)
		return EXIT_USAGE;
	front->session = session;
	if (fuse_set_signal_handlers(session) != 0)
		goto destroy;
	if (fuse_session_mount(session, run->mountpoint) == 0)
		status = serve_mounted(run, session, front);
	else
		complain("mounting on %s failed", quote(run->mountpoint).text);
	fuse_remove_signal_handlers(session);
destroy:
	fuse_session_destroy(session);
	return status;
}

static int open_and_serve(const struct run *run)
{
	struct image_context images = {
		.datastore = run->datastore,
		.rules = run->options->rules,
		.rule_count = run->options->rule_count,
		.detect_zeroes = run->options->detect_zeroes,
		.interrupted = front_interrupted,
	};
	struct front front = {
		.datastore = run->datastore,
		.zero_copy = run->options->zero_copy,
		.slow_looks = run->options->detect_zeroes,
		.ring_wanted = run->options->io_uring,
	};
	int status = EXIT_SYSTEM;

	images.cache = cache_new(run->settings->cache_size);
	images.crew = crew_new(crew_suggested());
	run->datastore->cache = images.cache;
	run->datastore->scan_gzip = run->options->scan_gzip;
	run->datastore->interrupted = front_interrupted;
	if (images.cache && images.crew &&
		catalog_new(&images, &run->settings->catalog, &front.catalog) == 0)
		status = mount_and_serve(run, &front);
	else
		complain("out of memory");
	catalog_free(front.catalog);
	crew_free(images.crew);
	cache_free(images.cache);
	return status;
}

static int start(
	const struct options *options, struct fuse_args *args, struct fuse_cmdline_opts *cmdline)
{
	struct datastore datastore;
	struct settings settings;
	struct run run = { options, &settings, cmdline, args, &datastore, NULL };
	struct why why;
	int status = EXIT_MOUNT;

	if (!options_read(options, &settings))
		return EXIT_USAGE;
	if (options->sandbox_selftest)
		cmdline->foreground = 1;
	if (datastore_open(&datastore, options->source, settings.references, &why) < 0) {
		complain("datastore %s", why.text);
		return EXIT_SYSTEM;
	}
	datastore.follow_symlinks = options->follow_symlinks;
	if (mountpoint_check(options->mountpoint, &datastore, &run.mountpoint, &why) < 0)
		complain("%s", why.text);
	else if (add_mount_options(args, options, &datastore) == 0)
		status = open_and_serve(&run);
	free(run.mountpoint);
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
		options_help();
		status = EXIT_OK;
	} else if (cmdline.show_version) {
		printf("imgfs %s\nlibfuse %s%s%s\n", IMGFS_VERSION, fuse_pkgversion(),
			HAVE_PASSTHROUGH ? ", passthrough" : "", HAVE_IO_URING ? ", io_uring" : "");
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
	options_free(&options);
	fuse_opt_free_args(&args);
	return status;
}
