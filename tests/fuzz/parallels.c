/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is declared to be a disk of Parallels. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_begin();
	fuzz_file("disk.hdd", data, size);
	fuzz_image("disk.hdd", data, size);
	return 0;
}
