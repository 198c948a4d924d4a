/* SPDX-License-Identifier: Apache-2.0 */
/* The text of VMDK descriptors: what is read, what is refused and at which line. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/image/vmdk/descriptor.h"
#include "imgfs/image.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct vmdk_descriptor parsed;

/* Parses a copy without a terminator, so that a read past the end is seen by a sanitizer. */
static int parse_bytes(const char *text, size_t length, struct why *why)
{
	static char *copy;

	free(copy);
	copy = malloc(length ? length : 1);
	assert_non_null(copy);
	memcpy(copy, text, length);
	return vmdk_descriptor_parse(copy, length, &parsed, why);
}

static void parse_ok(const char *text)
{
	struct why why = { "" };
	int r = parse_bytes(text, strlen(text), &why);

	if (r != 0)
		print_message("# %s\n", why.text);
	assert_int_equal(r, 0);
}

static void refused(const char *text, int err, const char *reason)
{
	struct why why = { "" };
	int r = parse_bytes(text, strlen(text), &why);

	if (r == 0)
		vmdk_descriptor_free(&parsed);
	if (r != err || !strstr(why.text, reason))
		print_message("# %d \"%s\" for: %s\n", r, why.text, text);
	assert_int_equal(r, err);
	assert_non_null(strstr(why.text, reason));
}

static void assert_slice(struct vmdk_slice s, const char *text)
{
	assert_non_null(s.bytes);
	assert_int_equal(s.length, strlen(text));
	assert_memory_equal(s.bytes, text, s.length);
}

static void assert_extent(size_t i, unsigned line, enum vmdk_access access,
	enum vmdk_extent_type type, uint64_t sectors, const char *name, uint64_t offset)
{
	const struct vmdk_extent_line *extent = &parsed.extents[i];

	assert_true(i < parsed.extent_count);
	assert_int_equal(extent->line, line);
	assert_int_equal(extent->access, access);
	assert_int_equal(extent->type, type);
	assert_int_equal(extent->sectors, sectors);
	assert_int_equal(extent->offset, offset);
	if (name)
		assert_slice(extent->name, name);
	else
		assert_null(extent->name.bytes);
}

/* ---- what is read ---- */

static void usual(void **state)
{
	(void)state;
	parse_ok("# Disk DescriptorFile\n"
		 "version=1\n"
		 "CID=0123abcd\n"
		 "parentCID=ffffffff\n"
		 "createType=\"twoGbMaxExtentSparse\"\n"
		 "\n"
		 "# Extent description\n"
		 "RW 4192256 SPARSE \"a-s001.vmdk\"\n"
		 "RW 2048 SPARSE \"a-s002.vmdk\"\n"
		 "\n"
		 "# The Disk Data Base\n"
		 "#DDB\n"
		 "ddb.adapterType = \"lsilogic\"\n");
	assert_int_equal(parsed.version, 1);
	assert_true(parsed.has_cid);
	assert_int_equal(parsed.cid, 0x0123abcd);
	assert_true(parsed.has_parent_cid);
	assert_int_equal(parsed.parent_cid, VMDK_NO_PARENT);
	assert_int_equal(parsed.create_type, VMDK_CREATE_FILES);
	assert_slice(parsed.create_name, "twoGbMaxExtentSparse");
	assert_null(parsed.parent_hint.bytes);
	assert_false(parsed.encrypted);
	assert_int_equal(parsed.extent_count, 2);
	assert_extent(0, 8, VMDK_RW, VMDK_SPARSE, 4192256, "a-s001.vmdk", 0);
	assert_extent(1, 9, VMDK_RW, VMDK_SPARSE, 2048, "a-s002.vmdk", 0);
	assert_int_equal(parsed.sectors, 4192256 + 2048);
	vmdk_descriptor_free(&parsed);
}

static void other_tools(void **state)
{
	(void)state;
	parse_ok("\xef\xbb\xbf# Disk DescriptorFile\r\n"
		 "\r\n"
		 "encoding=\"windows-1252\"\r\n"
		 "\t VERSION = 3 \r\n"
		 "cid=ABCDEF\r\n"
		 "ParentCid = 0000000a\r\n"
		 "isNativeSnapshot=\"no\"\r\n"
		 "changeTrackPath=\"a-ctk.vmdk\"\r\n"
		 "CREATETYPE = MonolithicFLAT\r\n"
		 "parentfilenamehint=\"C:\\disks\\base disk.vmdk\" \r\n"
		 " \t rw\t8 \t flat  \"a file, with = and #.vmdk\"  16  partitionUUID \\\\.\\x \r\n"
		 "ddb.empty=\r\n"
		 "ddb.comment = \"parentCID=12345678\"\r\n");
	assert_int_equal(parsed.version, 3);
	assert_int_equal(parsed.cid, 0xabcdef);
	assert_int_equal(parsed.parent_cid, 10);
	assert_int_equal(parsed.create_type, VMDK_CREATE_FILES);
	assert_slice(parsed.parent_hint, "C:\\disks\\base disk.vmdk");
	assert_int_equal(parsed.extent_count, 1);
	assert_extent(0, 11, VMDK_RW, VMDK_FLAT, 8, "a file, with = and #.vmdk", 16);
	vmdk_descriptor_free(&parsed);
}

static void missing_keys(void **state)
{
	(void)state;
	parse_ok("");
	assert_int_equal(parsed.version, 0);
	assert_false(parsed.has_cid);
	assert_false(parsed.has_parent_cid);
	assert_int_equal(parsed.parent_cid, VMDK_NO_PARENT);
	assert_int_equal(parsed.create_type, VMDK_CREATE_MISSING);
	assert_int_equal(parsed.extent_count, 0);
	assert_int_equal(parsed.sectors, 0);
	vmdk_descriptor_free(&parsed);
}

static void no_newline_at_the_end(void **state)
{
	(void)state;
	parse_ok("version=1\nRW 7 VMFS \"a-flat.vmdk\"");
	assert_extent(0, 2, VMDK_RW, VMDK_VMFS, 7, "a-flat.vmdk", 0);
	vmdk_descriptor_free(&parsed);
}

static void nul_ends_it(void **state)
{
	static const char text[] = "version=1\nCID=5\n\0garbage\nCID=6\n";

	(void)state;
	assert_int_equal(parse_bytes(text, sizeof(text) - 1, NULL), 0);
	assert_int_equal(parsed.cid, 5);
	vmdk_descriptor_free(&parsed);
}

static void empty_is_not_missing(void **state)
{
	(void)state;
	parse_ok("parentFileNameHint=\"\"\n");
	assert_non_null(parsed.parent_hint.bytes);
	assert_int_equal(parsed.parent_hint.length, 0);
	vmdk_descriptor_free(&parsed);
}

static void names_are_bytes(void **state)
{
	(void)state;
	parse_ok("RW 1 FLAT \"\xc4\xd6\xff\x01.vmdk\" 0\n");
	assert_extent(0, 1, VMDK_RW, VMDK_FLAT, 1, "\xc4\xd6\xff\x01.vmdk", 0);
	vmdk_descriptor_free(&parsed);
}

static void extent_lines(void **state)
{
	(void)state;
	parse_ok("RW 1 FLAT \"a\" 9\n"
		 "RDONLY 2 FLAT \"b\"\n"
		 "NOACCESS 3 FLAT \"c\" whatever\n"
		 "NOACCESS 4 SPARSE\n"
		 "RW 5 ZERO\n"
		 "RDONLY 6 ZERO \"ignored\" 5\n"
		 "RW 7 VMFS \"d\"\n"
		 "RW 8 VMFSSPARSE \"e\"\n"
		 "RW 9 SESPARSE \"f\" 0\n"
		 "RW 10 VMFSRDM \"g\"\n"
		 "RW 11 VMFSRAW \"h\"\n"
		 "RW 12 FLAT\"i\"3\n");
	assert_int_equal(parsed.extent_count, 12);
	assert_extent(0, 1, VMDK_RW, VMDK_FLAT, 1, "a", 9);
	assert_extent(1, 2, VMDK_RDONLY, VMDK_FLAT, 2, "b", 0);
	assert_extent(2, 3, VMDK_NOACCESS, VMDK_FLAT, 3, "c", 0);
	assert_extent(3, 4, VMDK_NOACCESS, VMDK_SPARSE, 4, NULL, 0);
	assert_extent(4, 5, VMDK_RW, VMDK_ZERO, 5, NULL, 0);
	assert_extent(5, 6, VMDK_RDONLY, VMDK_ZERO, 6, NULL, 0);
	assert_extent(6, 7, VMDK_RW, VMDK_VMFS, 7, "d", 0);
	assert_extent(7, 8, VMDK_RW, VMDK_VMFSSPARSE, 8, "e", 0);
	assert_extent(8, 9, VMDK_RW, VMDK_SESPARSE, 9, "f", 0);
	assert_extent(9, 10, VMDK_RW, VMDK_VMFSRDM, 10, "g", 0);
	assert_extent(10, 11, VMDK_RW, VMDK_VMFSRAW, 11, "h", 0);
	assert_extent(11, 12, VMDK_RW, VMDK_FLAT, 12, "i", 3);
	assert_int_equal(parsed.sectors, 78);
	vmdk_descriptor_free(&parsed);
}

static void create_types(void **state)
{
	static const struct {
		const char *name;
		enum vmdk_create_type type;
	} cases[] = {
		{ "monolithicSparse", VMDK_CREATE_SINGLE },
		{ "streamOptimized", VMDK_CREATE_SINGLE },
		{ "MONOLITHICSPARSE", VMDK_CREATE_SINGLE },
		{ "monolithicFlat", VMDK_CREATE_FILES },
		{ "twoGbMaxExtentSparse", VMDK_CREATE_FILES },
		{ "twoGbMaxExtentFlat", VMDK_CREATE_FILES },
		{ "2GbMaxExtentSparse", VMDK_CREATE_FILES },
		{ "2gbmaxextentflat", VMDK_CREATE_FILES },
		{ "vmfs", VMDK_CREATE_FILES },
		{ "vmfsThin", VMDK_CREATE_FILES },
		{ "vmfsPreallocated", VMDK_CREATE_FILES },
		{ "vmfsEagerZeroedThick", VMDK_CREATE_FILES },
		{ "vmfsSparse", VMDK_CREATE_FILES },
		{ "seSparse", VMDK_CREATE_FILES },
		{ "custom", VMDK_CREATE_FILES },
		{ "partitionedDevice", VMDK_CREATE_FILES },
		{ "fullDevice", VMDK_CREATE_DEVICE },
		{ "vmfsRaw", VMDK_CREATE_DEVICE },
		{ "vmfsRDM", VMDK_CREATE_DEVICE },
		{ "vmfsRDMP", VMDK_CREATE_DEVICE },
		{ "vmfsRawDeviceMap", VMDK_CREATE_DEVICE },
		{ "vmfsPassthroughRawDeviceMap", VMDK_CREATE_DEVICE },
		{ "monolithicSpars", VMDK_CREATE_UNKNOWN },
		{ "monolithicSparsee", VMDK_CREATE_UNKNOWN },
		{ "", VMDK_CREATE_UNKNOWN },
	};
	char text[128];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof(text), "createType=\"%s\"\n", cases[i].name);
		parse_ok(text);
		assert_int_equal(parsed.create_type, cases[i].type);
		vmdk_descriptor_free(&parsed);
	}
}

static void repeated_keys(void **state)
{
	(void)state;
	parse_ok("version=1\nversion=1\nCID=a\nCID=0000000A\ncreateType=\"vmfs\"\ncreateType="
		 "\"vmfs\"\n"
		 "parentFileNameHint=\"a\"\nparentFileNameHint=\"a\"\n");
	vmdk_descriptor_free(&parsed);
	refused("version=1\nversion=2\n", -EINVAL, "line 2: version for the second time");
	refused("CID=a\n\nCID=b\n", -EINVAL, "line 3: CID for the second time");
	refused("parentCID=a\nparentCID=b\n", -EINVAL, "line 2: parentCID for the second time");
	refused("createType=\"vmfs\"\ncreateType=\"custom\"\n", -EINVAL,
		"createType for the second");
	refused("parentFileNameHint=\"a\"\nparentFileNameHint=\"b\"\n", -EINVAL,
		"line 2: parentFileNameHint for the second");
}

static void encryption(void **state)
{
	(void)state;
	parse_ok("encryptionKeys=\"vmware:key/list/(pair/(x))\"\n");
	assert_true(parsed.encrypted);
	vmdk_descriptor_free(&parsed);
	parse_ok("ddb.iofilters = \"vmwarelwd,VMwareVMcrypt\"\n");
	assert_true(parsed.encrypted);
	vmdk_descriptor_free(&parsed);
	parse_ok("ddb.iofilters = \"vmwarelwd\"\nddb.comment = \"vmwarevmcrypt\"\n");
	assert_false(parsed.encrypted);
	vmdk_descriptor_free(&parsed);
}

/* ---- what is refused ---- */

static void bad_keys(void **state)
{
	(void)state;
	refused("version=one\n", -EINVAL, "line 1: the version");
	refused("version=\n", -EINVAL, "line 1: the version");
	refused("version=0\n", -EINVAL, "line 1: the version");
	refused("version=5\n", -ENOTSUP, "line 1: descriptors of version '5'");
	refused("version=18446744073709551617\n", -EINVAL, "line 1: the version");
	refused("\nCID=xyz\n", -EINVAL, "line 2: CID is not");
	refused("CID=\n", -EINVAL, "line 1: CID is not");
	refused("CID=123456789\n", -EINVAL, "line 1: CID is not");
	refused("CID=0x1234\n", -EINVAL, "line 1: CID is not");
	refused("parentCID=-1\n", -EINVAL, "line 1: parentCID is not");
	refused("parentCID=ffffffffff\n", -EINVAL, "line 1: parentCID is not");
	refused("createType=\"vmfs\n", -EINVAL, "line 1: the quotes of 'createType'");
	refused("parentFileNameHint=\"\n", -EINVAL, "line 1: the quotes");
}

static void stray_lines(void **state)
{
	(void)state;
	/* Might be meant as extents, whose loss would move the rest of the disk. */
	refused("# fine\nnonsense\n", -EINVAL, "line 2: neither");
	refused("RWX 100 FLAT \"a\" 0\n", -EINVAL, "line 1: neither");
	refused("\x7f"
		"ELF\n",
		-EINVAL, "line 1: neither");
}

static void bad_extents(void **state)
{
	(void)state;
	refused("RW\n", -EINVAL, "line 1: an extent of");
	refused("RW x FLAT \"a\" 0\n", -EINVAL, "line 1: an extent of 'x' sectors");
	refused("RW 0 FLAT \"a\" 0\n", -EINVAL, "line 1: an extent of '0' sectors");
	refused("RW -8 FLAT \"a\" 0\n", -EINVAL, "line 1: an extent of '-8' sectors");
	refused("RW 8M FLAT \"a\" 0\n", -EINVAL, "line 1: an extent of '8M' sectors");
	refused("RW 99999999999999999999999 FLAT \"a\" 0\n", -EINVAL, "line 1: an extent of");
	refused("RW 8\n", -ENOTSUP, "line 1: extents of type ''");
	refused("\nRW 8 VMFSTURBO \"a\"\n", -ENOTSUP, "line 2: extents of type 'VMFSTURBO'");
	refused("RW 8 FLAT\n", -EINVAL, "line 1: the extent names no file");
	refused("RW 8 FLAT \"\" 0\n", -EINVAL, "line 1: the extent names no file");
	refused("RW 8 FLAT a 0\n", -EINVAL, "line 1: the extent's file name is not in quotes");
	refused("RW 8 FLAT \"a 0\n", -EINVAL, "line 1: the extent's file name is not in quotes");
	refused("RW 8 FLAT \"a\" x\n", -EINVAL, "line 1: the extent's offset");
	refused("RW 8 FLAT \"a\" -1\n", -EINVAL, "line 1: the extent's offset");
	refused("RW 8 VMFS \"a\" 1.5\n", -EINVAL, "line 1: the extent's offset");
	refused("RW 8 FLAT \"a\" 18446744073709551616\n", -EINVAL, "line 1: the extent's offset");
	refused("RW 8 SPARSE \"a\" 1\n", -EINVAL, "line 1: a sparse extent at an offset");
	refused("RW 8 SESPARSE \"a\" 1\n", -EINVAL, "line 1: a sparse extent at an offset");
}

static void too_large(void **state)
{
	(void)state;
	/* 2^54 - 1 sectors are the most that fit below 2^63 bytes. */
	parse_ok("RW 18014398509481983 ZERO\n");
	vmdk_descriptor_free(&parsed);
	refused("RW 18014398509481984 ZERO\n", -EINVAL, "line 1: the disk would be larger");
	refused("RW 18014398509481983 ZERO\nRW 1 ZERO\n", -EINVAL,
		"line 2: the disk would be larger");
	refused("RW 18446744073709551615 ZERO\n", -EINVAL, "line 1: the disk would be larger");
	refused("RW 1 ZERO\nRW 18446744073709551615 ZERO\n", -EINVAL, "line 2: the disk");
}

static void many_extents(void **state)
{
	static const char line[] = "RW 1 ZERO\n";
	char *text = calloc(IMAGE_MAX_FILES + 1, sizeof(line));

	(void)state;
	assert_non_null(text);
	for (size_t i = 0; i < IMAGE_MAX_FILES; i++)
		strcat(text, line);
	parse_ok(text);
	assert_int_equal(parsed.extent_count, IMAGE_MAX_FILES);
	vmdk_descriptor_free(&parsed);
	strcat(text, line);
	refused(text, -EINVAL, "it has more than 512 extents");
	free(text);
}

/* Every cut of a good text, and every text with one byte changed, comes back without a crash. */
static void mutations(void **state)
{
	static const char text[] = "# Disk DescriptorFile\nversion=1\nCID=0123abcd\n"
				   "parentCID=00000001\ncreateType=\"vmfs\"\n"
				   "parentFileNameHint=\"b.vmdk\"\nRW 8 VMFS \"a\" 0\nRW 8 ZERO\n";
	static const char bytes[] = { '\0', '"', '=', '\n', ' ', '#', '9', '\xff' };
	char changed[sizeof(text)];
	struct why why;
	size_t good = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++) {
		if (parse_bytes(text, i, &why) == 0)
			vmdk_descriptor_free(&parsed);
	}
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		for (size_t j = 0; j < sizeof(bytes); j++) {
			memcpy(changed, text, sizeof(text));
			changed[i] = bytes[j];
			why.text[0] = '\0';
			if (parse_bytes(changed, sizeof(text) - 1, &why) == 0) {
				assert_true(parsed.sectors <= 1024);
				vmdk_descriptor_free(&parsed);
				good++;
			} else {
				assert_true(why.text[0] != '\0');
			}
		}
	}
	assert_true(good > 0);
}

/* ---- recognition ---- */

static void recognised(void **state)
{
	static const char *const yes[] = {
		"# Disk DescriptorFile\n",
		"# disk descriptorfile\r\n",
		"#Disk DescriptorFile\n",
		"# Disk Descriptor File\n",
		"#Disk Descriptor File",
		"\xef\xbb\xbf# Disk DescriptorFile\n",
		"version=1\n",
		"version=1",
		"version=3\r\n",
		"VERSION = 2 \n",
		"\n\n  \n# a comment\n\tversion=1\nCID=1\n",
		"# x\nencoding=\"UTF-8\"\nversion=1\n",
		"Encoding=GBK\r\nVersion=1\r\n",
	};
	static const char *const no[] = {
		"",
		"\n",
		"# a comment\n",
		"# nothing\n# Disk DescriptorFile\n",
		"# Disk DescriptorFiles\n",
		"# Disk Descriptor\n",
		"version=1.2\n",
		"version=\n",
		"version=one\n",
		"version 1\n",
		"name=x\nversion=1\n",
		"some text\nversion=1\n",
		"encoding=\"UTF-8\n",
		"encoding=\"UTF-8\"\n",
		"[section]\nversion=1\n",
		"{ \"version\": 1 }\n",
		"KDMV",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(yes); i++) {
		if (!vmdk_descriptor_probe(yes[i], strlen(yes[i])))
			fail_msg("not recognised: %s", yes[i]);
	}
	for (size_t i = 0; i < COUNT(no); i++) {
		if (vmdk_descriptor_probe(no[i], strlen(no[i])))
			fail_msg("recognised: %s", no[i]);
	}
	/* NULs before a text make it something else. */
	assert_false(vmdk_descriptor_probe("\0version=1\n", 11));
}

static void mentions_files(void **state)
{
	static const char inside[] = "\0\0xx parentFILEnamehint = y";

	(void)state;
	assert_true(vmdk_descriptor_mentions_files(inside, sizeof(inside)));
	assert_true(vmdk_descriptor_mentions_files("changeTrackPath", 15));
	assert_false(vmdk_descriptor_mentions_files("changeTrackPath", 14));
	assert_false(vmdk_descriptor_mentions_files("parentCID=ffffffff", 18));
	assert_false(vmdk_descriptor_mentions_files("", 0));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(usual),
		cmocka_unit_test(other_tools),
		cmocka_unit_test(missing_keys),
		cmocka_unit_test(no_newline_at_the_end),
		cmocka_unit_test(nul_ends_it),
		cmocka_unit_test(empty_is_not_missing),
		cmocka_unit_test(names_are_bytes),
		cmocka_unit_test(extent_lines),
		cmocka_unit_test(create_types),
		cmocka_unit_test(repeated_keys),
		cmocka_unit_test(encryption),
		cmocka_unit_test(bad_keys),
		cmocka_unit_test(stray_lines),
		cmocka_unit_test(bad_extents),
		cmocka_unit_test(too_large),
		cmocka_unit_test(many_extents),
		cmocka_unit_test(mutations),
		cmocka_unit_test(recognised),
		cmocka_unit_test(mentions_files),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
