/* SPDX-License-Identifier: Apache-2.0 */
/* Which format is a file? Its suffix, a rule of the admin, its magic: in this order. */
#include "qcow2_image.h"

/* What is in a file of 4 KiB, unless a case says otherwise. */
struct content {
	const char *magic;
	size_t length; /* of magic */
	size_t offset; /* from the start; from the end with from_end */
	bool from_end;
	uint8_t rest; /* what the other bytes are */
};

#define AT(offset, bytes)                                  \
	{                                                  \
		bytes, sizeof(bytes) - 1, offset, false, 0 \
	}
#define AT_END(offset, bytes)                             \
	{                                                 \
		bytes, sizeof(bytes) - 1, offset, true, 0 \
	}

static const struct content zeros = { "", 0, 0, false, 0 };
static const struct content text = { "", 0, 0, false, 'x' };

static void write_sized(const char *name, const struct content *c, size_t size)
{
	uint8_t *bytes = malloc(size + 1);
	size_t at = c->from_end ? size - c->offset : c->offset;

	assert_non_null(bytes);
	memset(bytes, c->rest, size);
	assert_true(at + c->length <= size);
	memcpy(bytes + at, c->magic, c->length);
	store_write(name, bytes, size);
	free(bytes);
}

static void write_qcow2(const char *name)
{
	struct qcow2_image q;

	qcow2_begin(&q, 16, MIB);
	qcow2_write(&q, name);
	qcow2_end(&q);
}

static void assert_format(const char *name, const char *format)
{
	struct image *image = open_image(name);

	assert_string_equal(image_format_of(image)->name, format);
	image_unref(image);
}

/* A file of that content is raw, or is refused so. */
static void check_content(
	const char *name, const struct content *c, size_t size, int err, const char *reason)
{
	write_sized(name, c, size);
	if (err == 0)
		assert_format(name, "raw");
	else
		assert_refused(name, err, reason);
	unlink(store_path(name));
}

/* ---- suffixes ---- */

/* .raw is raw and opaque: whatever a guest writes into its disk changes nothing. */
static void test_raw_is_opaque(void **state)
{
	static const struct content contents[] = { AT(0, "QFI\xfb\0\0\0\3"), AT(0, "KDMV\1\0\0\0"),
		AT(0, "# Disk DescriptorFile\nversion=1\n"), AT(0, "vhdxfile"), AT(0, "\x1f\x8b"),
		AT(257, "ustar"), AT_END(512, "conectix"), { "", 0, 0, false, 'x' } };

	(void)state;
	for (size_t i = 0; i < COUNT(contents); i++) {
		check_content("a.raw", &contents[i], 4096, 0, "");
		check_content("A.RAW", &contents[i], 4096, 0, "");
		check_content("a.raw", &contents[i], 4097, 0, "");
	}
	check_content("a.raw", &zeros, 0, 0, "");
	check_content("a.raw", &zeros, 1, 0, "");
	write_qcow2("a.raw");
	assert_format("a.raw", "raw");
}

/* A suffix declares its format, and then the file is that or nothing. */
static void test_declared(void **state)
{
	static const char *const names[] = { "a.qcow2", "a.QCOW2", "a.qcow", "a.b.qcow2" };
	static const struct content version0 = AT(0, "QFI\xfb\0\0\0\0");
	static const struct content vdi = AT(64, "\x7f\x10\xda\xbe");
	static const struct content magic_alone = AT(0, "QFI\xfb\0\0\0\3");
	static const struct content fixed_vhd = AT_END(512, "conectix");

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		write_qcow2(names[i]);
		assert_format(names[i], "qcow2");
		check_content(names[i], &zeros, 4096, -EINVAL, "does not begin like one");
		check_content(names[i], &text, 4096, -EINVAL, "does not begin like one");
		check_content(names[i], &zeros, 0, -EINVAL, "does not begin like one");
		check_content(names[i], &version0, 4096, -EINVAL, "unsupported version");
		check_content(names[i], &vdi, 4096, -EINVAL, "but it is vdi");
		check_content(names[i], &fixed_vhd, 4096, -EINVAL, "but it is vhd");
		check_content(names[i], &magic_alone, 4096, -EINVAL, "cluster_bits");
		check_content(names[i], &magic_alone, 8, -EINVAL, "cut short");
	}
	write_qcow2("a.vmdk");
	assert_refused("a.vmdk", -EINVAL, "should be vmdk");
	check_content("a.vmdk", &zeros, 4096, -EINVAL, "should be vmdk");
	check_content("a.vmdk", &text, 4096, -EINVAL, "should be vmdk");
	check_content("a.vmdk", &zeros, 0, -EINVAL, "should be vmdk");
}

/* .qcow declares both of that name, and the version tells which; .qcow2 one of them. */
static void test_one_suffix_of_two(void **state)
{
	static const struct content version1 = AT(0, "QFI\xfb\0\0\0\1");
	uint8_t empty[512] = { 'Q', 'F', 'I', 0xfb, [7] = 1, [32] = 12, [33] = 9, [47] = 48 };

	(void)state;
	store_write("a.qcow", empty, sizeof(empty));
	assert_format("a.qcow", "qcow");
	store_write("a", empty, sizeof(empty));
	assert_format("a", "qcow");
	write_qcow2("b.QCOW");
	assert_format("b.QCOW", "qcow2");
	check_content("a.qcow", &version1, 4096, -EINVAL, "cluster_bits 0 is outside 9..16");
	check_content("a.qcow2", &version1, 4096, -EINVAL, "should be qcow2, but it is qcow");
}

/* What is told by its magic alone, and then must be good. */
static void test_magic_of_others(void **state)
{
	static const struct content qed = AT(0, "QED\0");
	static const struct content sectors = AT(0, "WithoutFreeSpace");
	static const struct content clusters = AT(0, "WithouFreSpacExt");

	(void)state;
	check_content("a.img", &qed, 4096, -EINVAL, "clusters have 0 bytes");
	check_content("a.qed", &qed, 4, -EINVAL, "cut short");
	check_content("a.img", &sectors, 4096, -ENOTSUP, "version 0 is not known");
	check_content("a", &clusters, 4096, -ENOTSUP, "version 0 is not known");
	check_content("a.hds", &zeros, 4096, -EINVAL, "should be parallels");
	check_content("a.HDD", &qed, 4096, -EINVAL, "should be parallels, but it is qed");
}

/* A fixed VHD is told by its end. What only looks like one is damaged, not a raw disk. */
static void test_magic_at_the_end(void **state)
{
	static const char *const names[] = { "a.vhd", "a.VPC", "a.img", "a", "a.7" };
	static const struct content first = AT(0, "conectix");
	static const struct content last = AT_END(512, "conectix");
	static const struct content vdi = AT(64, "\x7f\x10\xda\xbe");

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		check_content(names[i], &first, 4096, -EINVAL, "does not end with a footer");
		check_content(names[i], &last, 4096, -EINVAL, "checksum");
		check_content(names[i], &last, 512, -EINVAL, "checksum");
	}
	check_content("a.vhd", &zeros, 4096, -EINVAL, "should be vhd");
	check_content("a.vhd", &vdi, 4096, -EINVAL, "but it is vdi");
	check_content("a.vdi", &last, 4096, -EINVAL, "but it is vhd");
	check_content("a.vdi", &vdi, 4096, -ENOTSUP, "version 0.0");
	check_content("a.img", &vdi, 4096, -ENOTSUP, "version 0.0");
}

static void test_foreign_suffix(void **state)
{
	static const char *const names[] = { "a.ova", "a.OVA" };

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		check_content(names[i], &zeros, 4096, -ENOTSUP, "not supported");
		write_qcow2(names[i]);
		assert_refused(names[i], -ENOTSUP, "not supported");
	}
}

/* ---- content ---- */

static void test_magic(void **state)
{
	static const char *const names[] = { "a.img", "a", "a.0", "a.dd", "a.iso", "a.vm-disk",
		"a.bin", "d/a.img" };

	(void)state;
	store_mkdir("d");
	for (size_t i = 0; i < COUNT(names); i++) {
		write_qcow2(names[i]);
		assert_format(names[i], "qcow2");
	}
}

/* Never taken for raw disks: a reader would see garbage. */
static void test_foreign_magic(void **state)
{
	static const struct content contents[] = { AT(0, "QFI\xfb\0\0\0\0"), AT(0, "LUKS\xba\xbe"),
		AT(0, "Bochs Virtual HD Image"), AT(0, "#!/bin/sh\n#V2.0 Format\n"),
		AT(257, "ustar\00000"), AT(257, "ustar  \0"), AT(0, "\x1f\x8b"),
		AT(0, "\xfd\x37\x7a\x58\x5a\0"), AT(0, "\x28\xb5\x2f\xfd"), AT(0, "BZh9"),
		AT_END(512, "koly") };
	static const char *const names[] = { "a.img", "a", "a.7", "a.DD" };

	(void)state;
	for (size_t i = 0; i < COUNT(contents); i++) {
		for (size_t k = 0; k < COUNT(names); k++) {
			check_content(names[k], &contents[i], 4096, -ENOTSUP, "not supported");
			check_content(names[k], &contents[i], 512, -ENOTSUP, "not supported");
			check_content(names[k], &contents[i], 65536, -ENOTSUP, "not supported");
		}
		/* Where nothing says that it is a disk it is none, and not worth a line. */
		check_content("a.tar.gz", &contents[i], 4096, -ENOMEDIUM, "");
	}
	/* The same bytes anywhere else, or cut, are content. */
	for (size_t i = 0; i < COUNT(contents); i++) {
		struct content moved = contents[i];

		moved.offset += moved.from_end ? 1 : 512;
		check_content("a.img", &moved, 4096, 0, "");
	}
	{
		static const struct content cut = AT(0, "LUK");
		static const struct content alone = AT(0, "\x1f");

		check_content("a.img", &cut, 3, 0, "");
		check_content("a.img", &alone, 1, 0, "");
	}
}

static void test_raw_by_content(void **state)
{
	static const struct {
		const char *name;
		size_t size;
		const struct content *content;
		int err;
	} cases[] = {
		/* The suffix of a disk: any length, any bytes. */
		{ "a.img", 4096, &zeros, 0 },
		{ "a.IMG", 4096, &text, 0 },
		{ "a.img", 0, &zeros, 0 },
		{ "a.img", 1, &text, 0 },
		{ "a.dd", 513, &zeros, 0 },
		{ "a.iso", 2048, &zeros, 0 },
		/* None, or a number: whole sectors that are no text. */
		{ "a", 512, &zeros, 0 },
		{ "a", 4096, &zeros, 0 },
		{ "a.", 4096, &zeros, 0 },
		{ "a.0", 4096, &zeros, 0 },
		{ "a.2024", 4096, &zeros, 0 },
		{ "vm-100-disk-0", 4096, &zeros, 0 },
		{ "a.0123456789abcdef", 4096, &zeros, 0 },
		{ "a", 0, &zeros, -ENOMEDIUM },
		{ "a", 511, &zeros, -ENOMEDIUM },
		{ "a", 513, &zeros, -ENOMEDIUM },
		{ "a", 4096, &text, -ENOMEDIUM },
		{ "a.0", 4096, &text, -ENOMEDIUM },
		{ "README", 512, &text, -ENOMEDIUM },
		/* Any other suffix is something else. */
		{ "a.txt", 4096, &zeros, -ENOMEDIUM },
		{ "a.txt", 4096, &text, -ENOMEDIUM },
		{ "a.xml", 4096, &zeros, -ENOMEDIUM },
		{ "a.ovf", 4096, &zeros, -ENOMEDIUM },
		{ "a.0123456789abcde", 4096, &zeros, -ENOMEDIUM },
		{ "a.0123456789abcdeg", 4096, &zeros, -ENOMEDIUM },
		{ "a.abc", 4096, &zeros, -ENOMEDIUM },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		check_content(cases[i].name, cases[i].content, cases[i].size, cases[i].err, "");
	/* One byte that no text has, as far into the file as a look at it goes. */
	{
		struct content binary = { "\x01", 1, PROBE_BYTES - 1, false, 'x' };

		check_content("a", &binary, 8192, 0, "");
		binary.offset = PROBE_BYTES;
		check_content("a", &binary, 8192, -ENOMEDIUM, "");
	}
}

/* ---- rules and references ---- */

static struct format_rule rules[4];

static void set_rules(size_t count, const char *const (*pairs)[2])
{
	for (size_t i = 0; i < count; i++) {
		rules[i].pattern = (char *)(uintptr_t)pairs[i][0];
		rules[i].format = image_format_by_name(pairs[i][1]);
		assert_non_null(rules[i].format);
	}
	store.context.rules = rules;
	store.context.rule_count = count;
}

static void test_rules(void **state)
{
	static const char *const pairs[][2] = { { "*.bin", "raw" }, { "d/*.x", "qcow2" },
		{ "f.img", "raw" }, { "*.img", "qcow2" } };
	static const struct content gzip = AT(0, "\x1f\x8b");

	(void)state;
	store_mkdir("d");
	set_rules(COUNT(pairs), pairs);
	write_sized("a.bin", &text, 100);
	assert_format("a.bin", "raw");
	write_qcow2("a.bin");
	assert_format("a.bin", "raw");
	write_sized("a.bin", &gzip, 100);
	assert_format("a.bin", "raw");
	/* Matched against the path and against the file's own name. */
	write_qcow2("d/a.x");
	assert_format("d/a.x", "qcow2");
	write_sized("d/b.x", &zeros, 4096);
	assert_refused("d/b.x", -EINVAL, "should be qcow2");
	write_sized("d/c.bin", &zeros, 7);
	assert_format("d/c.bin", "raw");
	/* The first that matches, also before a suffix. */
	write_qcow2("f.img");
	assert_format("f.img", "raw");
	write_sized("g.img", &zeros, 4096);
	assert_refused("g.img", -EINVAL, "should be qcow2");
	write_sized("d/f.img", &zeros, 4096);
	assert_format("d/f.img", "raw");
	write_sized("a.raw", &zeros, 100);
	assert_format("a.raw", "raw");
}

static void test_rule_over_suffix(void **state)
{
	static const char *const pairs[][2] = { { "a.*", "raw" } };

	(void)state;
	set_rules(COUNT(pairs), pairs);
	write_qcow2("a.qcow2");
	assert_format("a.qcow2", "raw");
	write_sized("a.vdi", &zeros, 10);
	assert_format("a.vdi", "raw");
	write_qcow2("b.qcow2");
	assert_format("b.qcow2", "qcow2");
}

/* A guest that writes a header into its own disk changes only its own disk. */
static void test_undeclared_names_nothing(void **state)
{
	static const char *const pairs[][2] = { { "x.img", "qcow2" } };
	struct qcow2_image q;

	(void)state;
	store.datastore.references = REFERENCES_DATASTORE;
	store_text("x-secret.raw", "secret");
	qcow2_begin(&q, 16, MIB);
	qcow2_backing(&q, "x-secret.raw", "raw");
	qcow2_write(&q, "x.img");
	qcow2_write(&q, "x");
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	assert_refused("x.img", -EPERM, "only its content says");
	assert_refused("x", -EPERM, "only its content says");
	assert_format("x.qcow2", "qcow2");
	set_rules(COUNT(pairs), pairs);
	assert_format("x.img", "qcow2");
	assert_refused("x", -EPERM, "only its content says");
}

static void test_names_of_formats(void **state)
{
	(void)state;
	assert_string_equal(image_format_by_name("qcow2")->name, "qcow2");
	assert_string_equal(image_format_by_name("raw")->name, "raw");
	assert_string_equal(image_format_by_name("vmdk")->name, "vmdk");
	assert_null(image_format_by_name("QCOW2"));
	assert_null(image_format_by_name(""));
	assert_null(image_format_by_name("nbd"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_raw_is_opaque),
		store_test(test_declared),
		store_test(test_one_suffix_of_two),
		store_test(test_magic_of_others),
		store_test(test_magic_at_the_end),
		store_test(test_foreign_suffix),
		store_test(test_magic),
		store_test(test_foreign_magic),
		store_test(test_raw_by_content),
		store_test(test_rules),
		store_test(test_rule_over_suffix),
		store_test(test_undeclared_names_nothing),
		cmocka_unit_test(test_names_of_formats),
	};

	return run_unit_tests(tests);
}
