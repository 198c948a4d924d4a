/* SPDX-License-Identifier: Apache-2.0 */
#include "confine.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "imgfs/log.h"

static void *wait_for_end(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/*
 * Some things of the C library are loaded when they are first used, which will be too late: the
 * unwinder that ends a cancelled thread, as libfuse ends its own, and the time zone of log lines.
 */
static void warm_up(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, wait_for_end, NULL) == 0) {
		pthread_cancel(thread);
		pthread_join(thread, NULL);
	}
	tzset();
}

static void tell(const struct confinement *c, int abi)
{
	char landlock[32] = "no Landlock";

	if (abi > 0)
		snprintf(landlock, sizeof(landlock), "Landlock %d", abi);
	log_info("confined: user %u, %s, seccomp, %s", geteuid(),
		geteuid() == 0 && !c->change_user ? "no capability but dac_read_search"
						  : "no capabilities",
		landlock);
	if (abi == 0)
		log_warning("this kernel has no Landlock: files outside the datastore are guarded "
			    "by the gate and by file permissions alone");
}

int confine(const struct confinement *confinement, struct why *why)
{
	int abi = 0;
	int r;

	warm_up();
	r = confine_privileges(confinement, why);
	if (r == 0)
		r = confine_resources(confinement, why);
	if (r == 0)
		r = confine_files(confinement, &abi, why);
	if (r == 0)
		r = confine_calls(confinement, why);
	if (r == 0)
		tell(confinement, abi);
	return r;
}
