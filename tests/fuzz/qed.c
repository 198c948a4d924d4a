/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is declared to be QED. It may name two files that are there. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t pattern[20480 + 100]; /* of no whole number of sectors */

	fuzz_begin();
	if (pattern[0] == 0) {
		for (size_t i = 0; i < sizeof(pattern); i++)
			pattern[i] = (uint8_t)(i / 512 + i + 1);
		fuzz_file_stays("disk.raw", pattern, sizeof(pattern));
		fuzz_file_stays("disk-base.raw", pattern, sizeof(pattern) / 2);
	}
	fuzz_file("disk.qed", data, size);
	fuzz_image("disk.qed", data, size);
	return 0;
}
