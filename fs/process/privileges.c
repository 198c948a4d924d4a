/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cap-ng.h>

#include "confine.h"

/* The bounding set says what could ever come back; a process without CAP_SETPCAP has to leave it.
 */
static capng_select_t sets_in_reach(void)
{
	return capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) ? CAPNG_SELECT_ALL
								   : CAPNG_SELECT_CAPS;
}

static int change_user(const struct confinement *c, struct why *why)
{
	/* This gives up the capabilities too: none is asked to be kept. */
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_change_id((int)c->user, (int)c->group,
		    CAPNG_INIT_SUPP_GRP | CAPNG_CLEAR_BOUNDING | CAPNG_CLEAR_AMBIENT) != 0)
		return why_set(why, -EPERM, "cannot become user %u", c->user);
	return 0;
}

static int drop_capabilities(struct why *why)
{
	capng_select_t sets;

	if (capng_get_caps_process() != 0)
		return why_set(why, -EPERM, "cannot read the capabilities of the process");
	sets = sets_in_reach();
	if (geteuid() == 0 && capng_have_capability(CAPNG_PERMITTED, CAP_DAC_READ_SEARCH)) {
		capng_clear(CAPNG_SELECT_ALL);
		capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
			CAP_DAC_READ_SEARCH, -1);
	} else {
		capng_clear(CAPNG_SELECT_ALL);
	}
	if (capng_apply(sets) != 0)
		return why_set(why, -EPERM, "cannot give up capabilities");
	return 0;
}

int confine_privileges(const struct confinement *c, struct why *why)
{
	int r = c->change_user ? change_user(c, why) : drop_capabilities(why);

	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return why_set(why, -errno, "no_new_privs: %s", strerror(errno));
	return 0;
}

static int set_limit(__rlimit_resource_t resource, rlim_t value, const char *name, struct why *why)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0)
		return why_set(why, -errno, "limit of %s: %s", name, strerror(errno));
	/* What the administrator has set lower stays. */
	if (limit.rlim_max > value)
		limit.rlim_max = value;
	if (limit.rlim_cur > value)
		limit.rlim_cur = value;
	if (setrlimit(resource, &limit) < 0)
		return why_set(why, -errno, "limit of %s: %s", name, strerror(errno));
	return 0;
}

int confine_resources(const struct confinement *c, struct why *why)
{
	int r = set_limit(RLIMIT_CORE, 0, "core dumps", why);

	if (r == 0)
		r = set_limit(RLIMIT_NOFILE, CONFINE_MAX_DESCRIPTORS + 2 * (rlim_t)c->rings,
			"descriptors", why);
	if (r == 0)
		r = set_limit(RLIMIT_DATA, c->memory, "data", why);
	return r;
}
