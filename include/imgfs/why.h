/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why an image was refused: one short sentence for a human, which travels beside the -errno of
 * everything that opens something. On the read path there is only the -errno and a log line.
 */
#ifndef IMGFS_WHY_H
#define IMGFS_WHY_H

struct why {
	char text[320];
};

/*
 * Records the sentence and returns err, so that a caller can `return why_set(why, -EINVAL, …)`.
 * err is a negative errno. why may be NULL. Text taken from an image goes through quote() first.
 */
__attribute__((format(printf, 3, 4))) int why_set(struct why *why, int err, const char *fmt, ...);

/* Puts what was being looked at before the recorded sentence: "backing file 'b.raw': not there". */
__attribute__((format(printf, 2, 3))) void why_prefix(struct why *why, const char *fmt, ...);

#endif
