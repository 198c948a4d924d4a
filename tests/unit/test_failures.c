/* SPDX-License-Identifier: Apache-2.0 */
/* What views answer where their source is damaged, and once any file of it has changed. */
#include "qcow2_image.h"

/* A disk of 1 MiB that begins with a page of data. */
static void write_raw(void)
{
	uint8_t bytes[4096];

	unlink(store_path("x.raw"));
	assert_true(store_truncate("x.raw", MIB));
	pattern(bytes, 1, 0, sizeof(bytes));
	store_poke("x.raw", 0, bytes, sizeof(bytes));
}

static void test_damage(void **state)
{
	uint8_t bytes[4096], buffer[3 * 4096];
	struct qcow2_image q;
	struct image *image;
	uint64_t done;

	(void)state;
	pattern(bytes, 1, 0, sizeof(bytes));
	qcow2_begin(&q, 12, 3 * 4096);
	qcow2_data(&q, 0, bytes);
	qcow2_set(&q, 4096, 1ull << 40);
	qcow2_data(&q, 8192, bytes);
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	image = open_image("x.qcow2");
	for (int i = 0; i < 2; i++) {
		struct view *view = open_view(image, i ? "raw" : "vmdk");
		uint64_t base = i ? 0 : find_region(view, "grains")->start;
		struct plan plan;

		assert_int_equal(view_read(view, base, 4096, buffer, &done), 0);
		assert_bytes(buffer, bytes, 4096);
		assert_int_equal(view_read(view, base + 8192, 4096, buffer, &done), 0);
		assert_bytes(buffer, bytes, 4096);
		assert_int_equal(view_read(view, base + 4096, 1, buffer, &done), -EIO);
		assert_int_equal(view_read(view, base + 4095, 2, buffer, &done), -EIO);
		assert_int_equal(view_read(view, base + 8191, 2, buffer, &done), -EIO);
		assert_int_equal(view_read(view, base, 3 * 4096, buffer, &done), -EIO);
		assert_int_equal(view_plan(view, base, 3 * 4096, &plan), -EIO);
		plan_release(&plan);
		view_close(view);
	}
	image_unref(image);
}

static void grow(void)
{
	assert_true(store_truncate("x.raw", 3 * MIB));
}

static void shorten(void)
{
	assert_true(store_truncate("x.raw", 100));
}

static void rewrite(void)
{
	store_poke("x.raw", 10, "new", 3);
}

static void replace(void)
{
	store_text("y", "another file");
	assert_int_equal(rename(store_path("y"), store_path("x.raw")), 0);
}

/* Any file of the chain that changes makes all reads fail, also of what was read before. */
static void test_stale(void **state)
{
	static void (*const changes[])(void) = { grow, shorten, rewrite, replace };
	uint8_t byte;
	uint64_t done;

	(void)state;
	for (size_t i = 0; i < COUNT(changes) * 2; i++) {
		struct qcow2_image q;
		struct image *image;

		write_raw();
		qcow2_begin(&q, 16, MIB);
		qcow2_backing(&q, "x.raw", "raw");
		qcow2_write(&q, "x.qcow2");
		qcow2_end(&q);
		image = open_image(i % 2 ? "x.qcow2" : "x.raw");
		usleep(20000); /* a tick of the file system's clock */
		for (const struct view_format *const *f = view_formats; *f; f++) {
			struct view *view = open_view(image, (*f)->name);

			assert_int_equal(view_read(view, 0, 1, &byte, &done), 0);
			view_close(view);
		}
		assert_int_equal(image_verify(image), 0);
		changes[i / 2]();
		assert_int_equal(image_verify(image), -ESTALE);
		for (const struct view_format *const *f = view_formats; *f; f++) {
			struct view *view;
			struct why why;
			int r = view_open(image, *f, &view, &why);

			if (r < 0)
				continue; /* its tables could not be read any more */
			assert_int_equal(view_read(view, 0, 1, &byte, &done), -ESTALE);
			assert_int_equal(view_read(view, view->size - 1, 1, &byte, &done), -ESTALE);
			view_close(view);
		}
		image_unref(image);
	}
}

/* The number of a state: the same for the same, another when any file of the chain changes. */
static void test_generation(void **state)
{
	static const char *const files[] = { "x.qcow2", "x-1.qcow2", "x-2.raw" };
	uint64_t seen[COUNT(files) + 1];
	struct image *image;
	struct qcow2_image q;

	(void)state;
	for (int i = 0; i < 2; i++) {
		qcow2_begin(&q, 16, MIB);
		qcow2_backing(&q, files[i + 1], i ? "raw" : "qcow2");
		qcow2_write(&q, files[i]);
		qcow2_end(&q);
	}
	store_text("x-2.raw", "base");
	for (size_t i = 0; i < COUNT(seen); i++) {
		struct stat st;

		for (int again = 0; again < 2; again++) {
			image = open_image("x.qcow2");
			if (again)
				assert_int_equal(image_generation(image), seen[i]);
			seen[i] = image_generation(image);
			/* The newest of its files is the one that was changed last. */
			assert_int_equal(stat(store_path(i ? files[i - 1] : "x-2.raw"), &st), 0);
			assert_int_equal(image_mtime(image).tv_sec, st.st_mtim.tv_sec);
			assert_int_equal(image_mtime(image).tv_nsec, st.st_mtim.tv_nsec);
			image_unref(image);
		}
		for (size_t k = 0; k < i; k++)
			assert_true(seen[i] != seen[k]);
		usleep(20000); /* a tick of the file system's clock */
		if (i < COUNT(files))
			store_poke(files[i], 600, "x", 1);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_damage),
		store_test(test_stale),
		store_test(test_generation),
	};

	return run_unit_tests(tests);
}
