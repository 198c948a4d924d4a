/* SPDX-License-Identifier: Apache-2.0 */
/* A file whose name says nothing: its bytes choose the parser, and it may name no file. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_begin();
	fuzz_file("disk", data, size);
	fuzz_image("disk", data, size);
	fuzz_begin();
	fuzz_file("disk.img", data, size);
	fuzz_image("disk.img", data, size);
	return 0;
}
