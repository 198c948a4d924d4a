/* SPDX-License-Identifier: Apache-2.0 */
/* reference_resolve(): what may an image name? No file is looked at, so none is made. */
#include "support.h"

/* *path from reference_resolve() with a fresh datastore of that root. */
static int resolve_bytes(const char *root, enum reference_policy policy, const char *top,
	const char *from, const char *name, size_t length, char **path, struct why *why)
{
	struct datastore ds = {
		.root = -1,
		.root_path = (char *)(uintptr_t)root,
		.references = policy,
	};

	*path = NULL;
	why->text[0] = '\0';
	return reference_resolve(&ds, top, from, name, length, path, why);
}

struct reference_case {
	const char *top, *from, *name;
	int err;
	const char *path; /* what it resolves to, or words of the reason */
};

static void check_cases(const char *root, enum reference_policy policy,
	const struct reference_case *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct reference_case *c = &cases[i];
		struct why why;
		char *path;
		int r = resolve_bytes(
			root, policy, c->top, c->from, c->name, strlen(c->name), &path, &why);

		if (r != c->err || (r == 0 && strcmp(path, c->path) != 0))
			print_message("# %s in %s: %d %s %s\n", c->name, c->from, r,
				path ? path : "", why.text);
		assert_int_equal(r, c->err);
		if (r == 0) {
			assert_string_equal(path, c->path);
		} else {
			assert_null(path);
			assert_non_null(strstr(why.text, c->path));
		}
		free(path);
	}
}

static void test_paths(void **state)
{
	static const struct reference_case cases[] = {
		{ "a.qcow2", "a.qcow2", "b.raw", 0, "b.raw" },
		{ "d/a.qcow2", "d/a.qcow2", "b.raw", 0, "d/b.raw" },
		{ "d/e/a.qcow2", "d/e/a.qcow2", "f/b.raw", 0, "d/e/f/b.raw" },
		/* From the directory of the file that holds the name, not of the top. */
		{ "d/a.qcow2", "e/b.qcow2", "c.raw", 0, "e/c.raw" },
		/* Absolute, beneath the root. */
		{ "d/a.qcow2", "d/a.qcow2", "/data/store/b.raw", 0, "b.raw" },
		{ "a.qcow2", "a.qcow2", "/data/store/d/b.raw", 0, "d/b.raw" },
		{ "a.qcow2", "a.qcow2", "/data/store//d///b.raw", 0, "d/b.raw" },
		/* Absolute, not beneath it. */
		{ "a.qcow2", "a.qcow2", "/etc/passwd", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/data/store2/b.raw", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/data/stor", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/data/store", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/data/storeb.raw", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "//data/store/b.raw", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/./data/store/b.raw", -EPERM, "outside the datastore" },
		{ "a.qcow2", "a.qcow2", "/", -EPERM, "outside the datastore" },
		/* No way up, wherever it stands. */
		{ "a.qcow2", "a.qcow2", "..", -EPERM, "'..'" },
		{ "d/a.qcow2", "d/a.qcow2", "../b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "d/../b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "d/..", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "d//../b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "./../b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "/data/store/../b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "/../data/store/b.raw", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "//..", -EPERM, "'..'" },
		{ "a.qcow2", "a.qcow2", "d/../", -EPERM, "'..'" },
		/* What only looks like it. */
		{ "a.qcow2", "a.qcow2", "...", 0, "..." },
		{ "a.qcow2", "a.qcow2", "..b", 0, "..b" },
		{ "a.qcow2", "a.qcow2", "b..", 0, "b.." },
		{ "a.qcow2", "a.qcow2", "d../b", 0, "d../b" },
		{ "a.qcow2", "a.qcow2", ".../b", 0, ".../b" },
		/* Dots and doubled slashes vanish. */
		{ "a.qcow2", "a.qcow2", "./b.raw", 0, "b.raw" },
		{ "a.qcow2", "a.qcow2", "././b.raw", 0, "b.raw" },
		{ "d/a.qcow2", "d/a.qcow2", "./e/./b.raw", 0, "d/e/b.raw" },
		{ "a.qcow2", "a.qcow2", "d//b.raw", 0, "d/b.raw" },
		{ "a.qcow2", "a.qcow2", ".b.raw", 0, ".b.raw" },
		/* Not a file. */
		{ "a.qcow2", "a.qcow2", ".", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "./", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "b.raw/", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "d//", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "/data/store/", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "/data/store//", -EINVAL, "no file" },
		/* Protocols and options are names of files that happen not to exist. */
		{ "a.qcow2", "a.qcow2", "json:{\"driver\":\"nbd\"}", 0,
			"json:{\"driver\":\"nbd\"}" },
		{ "d/a.qcow2", "d/a.qcow2", "nbd:localhost:1", 0, "d/nbd:localhost:1" },
		{ "a.qcow2", "a.qcow2", "nbd://host/x", 0, "nbd:/host/x" },
		{ "a.qcow2", "a.qcow2", "file:///etc/passwd", 0, "file:/etc/passwd" },
		{ "a.qcow2", "a.qcow2", "host_device:/dev/sda", 0, "host_device:/dev/sda" },
		{ "a.qcow2", "a.qcow2", "fat:rw:/", -EINVAL, "no file" },
		{ "a.qcow2", "a.qcow2", "C:\\disks\\b.vmdk", 0, "C:\\disks\\b.vmdk" },
		{ "a.qcow2", "a.qcow2", "b\xff\x80.raw", 0, "b\xff\x80.raw" },
		{ "a.qcow2", "a.qcow2", " ", 0, " " },
		{ "a.qcow2", "a.qcow2", "~", 0, "~" },
	};
	static const struct reference_case at_slash[] = {
		{ "a", "a", "/etc/passwd", 0, "etc/passwd" },
		{ "d/a", "d/a", "b", 0, "d/b" },
		{ "a", "a", "//b", 0, "b" },
		{ "a", "a", "/", -EINVAL, "no file" },
		{ "a", "a", "/../b", -EPERM, "'..'" },
	};

	(void)state;
	check_cases("/data/store", REFERENCES_DATASTORE, cases, COUNT(cases));
	check_cases("/", REFERENCES_DATASTORE, at_slash, COUNT(at_slash));
}

static void test_family(void **state)
{
	static const struct reference_case cases[] = {
		{ "x.vmdk", "x.vmdk", "x-flat.vmdk", 0, "x-flat.vmdk" },
		{ "x.qcow2", "x.qcow2", "x.raw", 0, "x.raw" },
		{ "x.qcow2", "x.qcow2", "./x.raw", 0, "x.raw" },
		{ "x-000001.vmdk", "x-000001.vmdk", "x.vmdk", 0, "x.vmdk" },
		{ "d/x.vmdk", "d/x.vmdk", "x-s001.vmdk", 0, "d/x-s001.vmdk" },
		{ "d/x.vmdk", "d/x.vmdk", "/data/store/d/x-s001.vmdk", 0, "d/x-s001.vmdk" },
		{ "x.qcow2", "x.qcow2", "y.raw", -EPERM, "references=datastore" },
		{ "bo.qcow2", "bo.qcow2", "bob.raw", -EPERM, "references=datastore" },
		{ "x.qcow2", "x.qcow2", "x", -EPERM, "references=datastore" },
		/* Called like it, but not beside it. */
		{ "x.qcow2", "x.qcow2", "d/x.raw", -EPERM, "references=datastore" },
		{ "d/x.qcow2", "d/x.qcow2", "/data/store/x.raw", -EPERM, "references=datastore" },
		{ "d/x.qcow2", "d/x.qcow2", "/data/store/e/x.raw", -EPERM, "references=datastore" },
		{ "dd/x.qcow2", "dd/x.qcow2", "/data/store/d/x.raw", -EPERM,
			"references=datastore" },
		{ "d/x.qcow2", "d/x.qcow2", "e/x.raw", -EPERM, "references=datastore" },
		/* The family is the top's, whoever names. */
		{ "x.qcow2", "x-1.qcow2", "x-1-1.qcow2", 0, "x-1-1.qcow2" },
		{ "x.qcow2", "x-1.qcow2", "x.raw", 0, "x.raw" },
		{ "x-1.qcow2", "x.qcow2", "x-2.raw", -EPERM, "references=datastore" },
		{ "x.qcow2", "d/x.qcow2", "x.raw", -EPERM, "references=datastore" },
		/* What no policy allows is refused for what it is. */
		{ "x.qcow2", "x.qcow2", "../x.raw", -EPERM, "'..'" },
		{ "x.qcow2", "x.qcow2", "/x.raw", -EPERM, "outside the datastore" },
		{ "x.qcow2", "x.qcow2", "x.raw/", -EINVAL, "no file" },
	};
	static const struct reference_case none[] = {
		{ "x.vmdk", "x.vmdk", "x-flat.vmdk", -EPERM, "references=none" },
		{ "x.vmdk", "x.vmdk", "y.vmdk", -EPERM, "references=none" },
		{ "x.vmdk", "x.vmdk", "/etc/passwd", -EPERM, "outside the datastore" },
		{ "x.vmdk", "x.vmdk", "d/../x", -EPERM, "'..'" },
	};

	(void)state;
	check_cases("/data/store", REFERENCES_FAMILY, cases, COUNT(cases));
	check_cases("/data/store", REFERENCES_NONE, none, COUNT(none));
}

static void test_control_bytes(void **state)
{
	(void)state;
	for (int byte = 0; byte < 256; byte++) {
		bool control = byte < 0x20 || byte == 0x7f;
		char name[] = { 'x', '-', (char)byte, 'y' };
		struct why why;
		char *path;

		if (byte == '/')
			continue;
		/* In the middle and as the last byte. */
		for (size_t length = 3; length <= 4; length++) {
			int r = resolve_bytes("/data", REFERENCES_FAMILY, "x.raw", "x.raw", name,
				length, &path, &why);

			assert_int_equal(r, control ? -EINVAL : 0);
			if (r == 0) {
				assert_int_equal(strlen(path), length);
				assert_memory_equal(path, name, length);
			} else {
				assert_non_null(strstr(why.text, "control bytes"));
			}
			/* The byte does not reach the log as it is. */
			for (const char *p = why.text; *p; p++)
				assert_true(*p >= 0x20 && *p < 0x7f);
			free(path);
		}
	}
}

static void test_length(void **state)
{
	static const struct {
		size_t length;
		int err;
	} cases[] = {
		{ 0, -EINVAL },
		{ 1, 0 },
		{ REFERENCE_NAME_MAX - 1, 0 },
		{ REFERENCE_NAME_MAX, 0 },
		{ REFERENCE_NAME_MAX + 1, -EINVAL },
		{ 100000, -EINVAL },
	};
	char *name = malloc(100000);

	(void)state;
	assert_non_null(name);
	memset(name, 'n', 100000);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct why why;
		char *path;

		assert_int_equal(REFERENCE_NAME_MAX, 1023);
		assert_int_equal(resolve_bytes("/data", REFERENCES_DATASTORE, "d/a", "d/a", name,
					 cases[i].length, &path, &why),
			cases[i].err);
		if (cases[i].err == 0)
			assert_int_equal(strlen(path), 2 + cases[i].length);
		else
			assert_non_null(strstr(why.text, "bytes"));
		free(path);
	}
	free(name);
}

/* The name is not terminated, and nothing past its length counts. */
static void test_not_terminated(void **state)
{
	static const char bytes[] = "x-1.raw/../../etc";
	char *exact = malloc(7);
	struct why why;
	char *path;

	(void)state;
	assert_non_null(exact);
	memcpy(exact, bytes, 7);
	assert_int_equal(
		resolve_bytes("/data", REFERENCES_FAMILY, "x.raw", "x.raw", exact, 7, &path, &why),
		0);
	assert_string_equal(path, "x-1.raw");
	free(path);
	free(exact);
	assert_int_equal(
		resolve_bytes("/data", REFERENCES_FAMILY, "x.raw", "x.raw", bytes, 7, &path, &why),
		0);
	assert_string_equal(path, "x-1.raw");
	free(path);
	/* A hidden tail behind a NUL is not a shorter name. */
	assert_int_equal(resolve_bytes("/data", REFERENCES_FAMILY, "x.raw", "x.raw",
				 "x-1.raw\0.vmdk", 13, &path, &why),
		-EINVAL);
	assert_null(path);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_family),
		cmocka_unit_test(test_control_bytes),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_not_terminated),
	};

	return run_unit_tests(tests);
}
