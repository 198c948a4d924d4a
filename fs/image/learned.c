/* SPDX-License-Identifier: Apache-2.0 */
/* What an image knows of where it has data: learned when it is first asked for, then kept. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image_private.h"
#include "imgfs/checked.h"
#include "imgfs/cleanup.h"
#include "imgfs/log.h"

static int build(const struct image *image, struct occupancy *o, struct why *why)
{
	uint64_t size = image_size(image);
	uint64_t work = 0;
	struct extent e;

	for (uint64_t at = 0; at < size; at = e.end) {
		int r = image_map_work(image, at, size - at, MAP_KIND, &e, &work);

		if (r < 0)
			return why_set(why, r, "its tables cannot be read: %s", strerror(-r));
		if (work > MAP_WORK_MAX)
			return why_set(why, -EFBIG, "its tables take too long to go through");
		if (e.kind == EXTENT_ZERO)
			continue;
		r = occupancy_add(o, e.start, e.end);
		if (r < 0)
			return why_set(why, r,
				r == -EFBIG ? "its map is too scattered"
					    : "the maps of the open images take too much memory");
	}
	occupancy_finish(o);
	return 0;
}

/* Derives it. That there can be none follows from the image, and is remembered like the map. */
static int derive(struct image *image, struct why *why)
{
	struct occupancy *o = occupancy_new(image_size(image));
	struct why reason = { "out of memory" };
	int r = o ? build(image, o, &reason) : -ENOMEM;

	if (r == 0) {
		image->learned.occupancy = o;
		image->learned.allocated = occupancy_bytes(o);
		atomic_store(&image->allocated, occupancy_bytes(o) + 1);
		return 0;
	}
	occupancy_free(o);
	if (r == -EFBIG)
		image->learned.reason = strdup(reason.text);
	return why_set(why, r, "%s", reason.text);
}

/* Lock held. What the tables say, at least. */
static int learn(struct image *image, struct why *why)
{
	const struct learned *l = &image->learned;

	if (l->reason)
		return why_set(why, -EFBIG, "%s", l->reason);
	return l->occupancy ? 0 : derive(image, why);
}

/* Lock held. What the tables say has been learned; nobody has seen it yet. */
static int leave_out_zeroes(struct image *image, struct why *why)
{
	struct learned *l = &image->learned;
	int r = zeroes_take_out(image, l->occupancy);

	if (r < 0) {
		occupancy_free(l->occupancy);
		l->occupancy = NULL;
	}
	if (r == -EFBIG) {
		log_limited("%s: its zeros are not looked for, that would take too long",
			quote(image->path).text);
		r = derive(image, why);
	} else if (r < 0) {
		why_set(why, r, "its data cannot be looked at for zeros: %s", strerror(-r));
	}
	l->without_zeroes = r == 0;
	return r;
}

int image_occupancy(struct image *image, const struct occupancy **occupancy, struct why *why)
{
	LOCKED(&image->occupancy_lock);
	int r = learn(image, why);

	if (r == 0 && image->context->detect_zeroes && !image->learned.without_zeroes)
		r = leave_out_zeroes(image, why);
	*occupancy = image->learned.occupancy;
	return r;
}

int image_allocated(struct image *image, uint64_t *bytes)
{
	uint64_t known = atomic_load(&image->allocated);
	int r = 0;

	/* No lock where it is known: another thread may be at work on the zeros for long. */
	if (known == 0) {
		LOCKED(&image->occupancy_lock);
		r = learn(image, NULL);
		known = image->learned.allocated + 1;
	}
	*bytes = known - 1;
	return r;
}

uint64_t image_known_hole(struct image *image, uint64_t guest)
{
	uint64_t unit = guest / OCCUPANCY_UNIT;
	const struct occupancy *o;

	/* What is left out for its zeros is no hole. */
	if (image->context->detect_zeroes || pthread_mutex_trylock(&image->occupancy_lock) != 0)
		return 0;
	o = image->learned.occupancy; /* which stays as long as the image */
	pthread_mutex_unlock(&image->occupancy_lock);
	if (!o || occupancy_test(o, unit))
		return 0;
	return min_u64(occupancy_next(o, unit) * OCCUPANCY_UNIT, image_size(image));
}

void learned_clear(struct learned *learned)
{
	occupancy_free(learned->occupancy);
	free(learned->reason);
	*learned = (struct learned) { 0 };
}

struct learned *image_forget(struct image *image)
{
	struct learned *learned;
	LOCKED(&image->occupancy_lock);

	if (!image->learned.occupancy && !image->learned.reason)
		return NULL;
	learned = malloc(sizeof(*learned));
	if (!learned)
		return NULL;
	*learned = image->learned;
	image->learned = (struct learned) { 0 };
	return learned;
}

void image_remember(struct image *image, struct learned *learned)
{
	LOCKED(&image->occupancy_lock);

	if (!image->learned.occupancy && !image->learned.reason) {
		image->learned = *learned;
		if (learned->occupancy)
			atomic_store(&image->allocated, learned->allocated + 1);
		*learned = (struct learned) { 0 };
	}
	learned_free(learned);
}

void learned_free(struct learned *learned)
{
	if (!learned)
		return;
	learned_clear(learned);
	free(learned);
}
