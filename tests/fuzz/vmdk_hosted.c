/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that is one VMDK file: monolithicSparse and streamOptimized. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_begin();
	fuzz_file("disk.vmdk", data, size);
	fuzz_image("disk.vmdk", data, size);
	return 0;
}
