/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_map() over chains of files, against a slow model that says of every byte of the guest
 * where it comes from; and over a format that lies.
 */
#include "qcow2_image.h"

#define MAX_SIZE   (150 * KIB)
#define MAX_LAYERS 5

/* Where a guest byte comes from. */
struct source {
	enum extent_kind kind;
	bool allocated;  /* what MAP_KIND goes by: false for holes */
	int layer;       /* DATA, PACKED */
	uint64_t offset; /* DATA: of this byte; PACKED: of the unit */
	uint64_t unit;   /* PACKED: guest offset of the unit */
	uint8_t byte;
};

/* What a layer has at each of its bytes; BACKING where it has nothing. */
struct layer_model {
	char name[16];
	uint64_t size;
	struct source *bytes;
};

struct chain_model {
	struct layer_model layers[MAX_LAYERS];
	int count;
	struct source *bytes; /* of the top, all layers taken together */
};

static void set_source(struct layer_model *l, uint64_t start, uint64_t length, struct source s,
	const uint8_t *content)
{
	for (uint64_t i = 0; i < length && start + i < l->size; i++) {
		struct source *b = &l->bytes[start + i];

		*b = s;
		if (s.kind == EXTENT_DATA)
			b->offset += i;
		b->byte = content ? content[i] : 0;
	}
}

/* ---- making layers ---- */

static void make_cluster(struct qcow2_image *q, struct layer_model *l, int layer, uint64_t guest,
	enum extent_kind kind, uint64_t *random)
{
	struct source s = {
		.kind = kind, .allocated = kind != EXTENT_ZERO, .layer = layer, .unit = guest
	};
	uint8_t *content = malloc(q->cluster);
	const uint64_t damaged[] = { q->bits > 9 ? 512 : 1ull << 41, 1ull << 40 };

	assert_non_null(content);
	pattern(content, random_below(random, 1000), guest, q->cluster);
	if (random_below(random, 4) == 0)
		memset(content, 0, q->cluster); /* allocated zeros are allocated */
	switch (kind) {
	case EXTENT_DATA:
		s.offset = qcow2_data(q, guest, content);
		break;
	case EXTENT_PACKED:
		s.offset = qcow2_packed(q, guest, content);
		break;
	case EXTENT_DAMAGED:
		qcow2_set(q, guest, damaged[random_below(random, 2)]);
		break;
	case EXTENT_ZERO:
		qcow2_set(q, guest, QCOW2_ZERO | random_below(random, 2) * 8192);
		break;
	case EXTENT_BACKING:
		break;
	}
	set_source(l, guest, q->cluster, s,
		kind == EXTENT_DATA || kind == EXTENT_PACKED ? content : NULL);
	free(content);
}

static void make_qcow2(
	struct layer_model *l, int layer, const struct layer_model *below, uint64_t *random)
{
	uint32_t bits = 9 + (uint32_t)random_below(random, 4);
	enum extent_kind kind = EXTENT_BACKING;
	struct qcow2_image q;

	qcow2_begin(&q, bits, l->size);
	if (below)
		qcow2_backing(&q, below->name, strstr(below->name, "raw") ? "raw" : "qcow2");
	/* Tables in front, so that the data of two of them can be neighbours. */
	if (random_below(random, 2)) {
		for (uint64_t guest = 0; guest < l->size; guest += q.cluster)
			qcow2_entry(&q, guest);
	}
	for (uint64_t guest = 0; guest < l->size; guest += q.cluster) {
		if (random_below(random, 3) == 0)
			kind = (enum extent_kind)random_below(random, 5);
		/* A whole L2 table of nothing, now and then. */
		if (random_below(random, 60) == 0)
			guest += 64 * q.cluster;
		if (guest < l->size)
			make_cluster(&q, l, layer, guest, kind, random);
	}
	qcow2_write(&q, l->name);
	qcow2_end(&q);
}

/* Holes are where SEEK_HOLE says so; a read does not care. */
static void make_raw(struct layer_model *l, int layer, uint64_t *random)
{
	uint8_t block[4096];
	int fd;

	unlink(store_path(l->name));
	assert_true(store_truncate(l->name, l->size));
	set_source(l, 0, l->size, (struct source) { EXTENT_DATA, .layer = layer }, NULL);
	for (uint64_t at = 0; at < l->size; at += 4096) {
		uint64_t length = min_u64(4096, l->size - at);

		if (random_below(random, 2))
			continue;
		pattern(block, random_below(random, 1000), at, length);
		store_poke(l->name, at, block, length);
		for (uint64_t i = 0; i < length; i++)
			l->bytes[at + i].byte = block[i];
	}
	fd = store_open(l->name, O_RDONLY);
	for (off_t at = 0, end; at < (off_t)l->size; at = end) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0)
			break;
		end = lseek(fd, at, SEEK_HOLE);
		for (off_t i = at; i < end; i++)
			l->bytes[i].allocated = true;
	}
	close(fd);
}

static void make_chain(struct chain_model *m, uint64_t *random)
{
	m->count = 1 + (int)random_below(random, MAX_LAYERS);
	for (int i = m->count - 1; i >= 0; i--) {
		struct layer_model *l = &m->layers[i];
		bool raw = i > 0 && i == m->count - 1 && random_below(random, 2);

		l->size = random_below(random, 8) ? 1 + random_below(random, MAX_SIZE) : 0;
		l->bytes = calloc(l->size + 1, sizeof(*l->bytes));
		assert_non_null(l->bytes);
		for (uint64_t b = 0; b < l->size; b++)
			l->bytes[b].kind = EXTENT_BACKING;
		if (i == 0)
			strcpy(l->name, "x.qcow2");
		else
			snprintf(l->name, sizeof(l->name), "x-%d.%s", i, raw ? "raw" : "qcow2");
		if (raw)
			make_raw(l, i, random);
		else
			make_qcow2(l, i, i + 1 < m->count ? l + 1 : NULL, random);
	}
	/* The chain, byte by byte. */
	m->bytes = calloc(m->layers[0].size + 1, sizeof(*m->bytes));
	assert_non_null(m->bytes);
	for (uint64_t b = 0; b < m->layers[0].size; b++) {
		m->bytes[b].kind = EXTENT_ZERO;
		for (int i = 0; i < m->count && b < m->layers[i].size; i++) {
			if (m->layers[i].bytes[b].kind == EXTENT_BACKING)
				continue;
			m->bytes[b] = m->layers[i].bytes[b];
			break;
		}
	}
}

static void free_chain(struct chain_model *m)
{
	for (int i = 0; i < m->count; i++)
		free(m->layers[i].bytes);
	free(m->bytes);
}

/* ---- comparing ---- */

/* Is b what follows on a, so that one extent may have both? */
static bool continues(const struct source *a, const struct source *b, enum map_detail detail)
{
	if (detail == MAP_KIND)
		return a->allocated == b->allocated;
	if (a->kind != b->kind)
		return false;
	if (a->kind == EXTENT_DATA)
		return a->layer == b->layer && b->offset == a->offset + 1;
	if (a->kind == EXTENT_PACKED)
		return a->layer == b->layer && a->unit == b->unit;
	return true;
}

/* The extent at offset is as long as it can be and every byte of it is as the model says. */
static void check_at(const struct chain_model *m, const struct image *image, uint64_t offset,
	uint64_t length, enum map_detail detail)
{
	const struct source *first = &m->bytes[offset];
	uint64_t end = offset + 1;
	struct extent e;

	while (end < offset + length && continues(&m->bytes[end - 1], &m->bytes[end], detail))
		end++;
	assert_int_equal(image_map(image, offset, length, detail, &e), 0);
	assert_int_equal(e.start, offset);
	assert_int_equal(e.end, end);
	if (detail == MAP_KIND) {
		assert_int_equal(e.kind, first->allocated ? EXTENT_DATA : EXTENT_ZERO);
		return;
	}
	assert_int_equal(e.kind, first->kind);
	if (e.kind == EXTENT_DATA || e.kind == EXTENT_PACKED) {
		assert_string_equal(e.file->path, m->layers[first->layer].name);
		assert_int_equal(e.offset, first->offset);
	}
	if (e.kind == EXTENT_PACKED)
		assert_int_equal(e.skip, offset - first->unit);
}

static void check_border(const struct chain_model *m, const struct image *image, uint64_t border)
{
	uint64_t size = m->layers[0].size;

	for (uint64_t at = border ? border - 1 : 0; at <= border + 1 && at < size; at++) {
		for (int detail = MAP_PLACE; detail <= MAP_KIND; detail++) {
			check_at(m, image, at, size - at, (enum map_detail)detail);
			check_at(m, image, at, 1, (enum map_detail)detail);
			if (at + 2 <= size)
				check_at(m, image, at, 2, (enum map_detail)detail);
		}
	}
}

static void check_map(const struct chain_model *m, const struct image *image, uint64_t *random)
{
	uint64_t size = m->layers[0].size;

	assert_int_equal(image_size(image), size);
	for (uint64_t b = 0; b < size; b++) {
		if (b == 0 || b + 1 == size ||
			!continues(&m->bytes[b - 1], &m->bytes[b], MAP_PLACE) ||
			!continues(&m->bytes[b - 1], &m->bytes[b], MAP_KIND))
			check_border(m, image, b);
	}
	for (int i = 0; i < 300 && size > 0; i++) {
		uint64_t at = random_below(random, size);
		uint64_t length = 1 + random_below(random, size - at);

		check_at(m, image, at, length, MAP_PLACE);
		check_at(m, image, at, length, MAP_KIND);
	}
}

static void check_read(const struct chain_model *m, struct image *image, uint64_t *random)
{
	struct view *view = open_view(image, "raw");
	uint8_t *bytes = malloc(MAX_SIZE + 1);
	uint64_t size = m->layers[0].size, done;

	assert_non_null(bytes);
	assert_int_equal(view->size, size);
	for (int i = 0; i < 300 && size > 0; i++) {
		uint64_t at = random_below(random, size);
		uint64_t length = 1 + random_below(random, i % 2 ? size - at : 1000);
		bool damaged = false;
		int r = view_read(view, at, length, bytes, &done);

		length = min_u64(length, size - at);
		for (uint64_t b = at; b < at + length; b++)
			damaged |= m->bytes[b].kind == EXTENT_DAMAGED;
		assert_int_equal(r, damaged ? -EIO : 0);
		for (uint64_t b = 0; b < length && !damaged; b++)
			assert_int_equal(bytes[b], m->bytes[at + b].byte);
	}
	free(bytes);
	view_close(view);
}

static void test_chains(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		uint64_t random = seed;
		struct chain_model m;
		struct image *image;

		make_chain(&m, &random);
		image = open_image("x.qcow2");
		check_map(&m, image, &random);
		check_read(&m, image, &random);
		image_unref(image);
		free_chain(&m);
	}
}

/* Sixteen layers are a chain, seventeen are not. */
static void test_depth(void **state)
{
	char name[16], below[16];

	(void)state;
	for (int layers = IMAGE_MAX_LAYERS; layers <= IMAGE_MAX_LAYERS + 1; layers++) {
		for (int i = layers - 1; i >= 0; i--) {
			struct qcow2_image q;
			uint8_t bytes[512];

			snprintf(name, sizeof(name), "x-%d.qcow2", i);
			snprintf(below, sizeof(below), "x-%d.qcow2", i + 1);
			qcow2_begin(&q, 9, 32 * 512);
			if (i < layers - 1)
				qcow2_backing(&q, below, "qcow2");
			memset(bytes, 'a' + i, sizeof(bytes));
			qcow2_data(&q, (uint64_t)i * 512, bytes);
			qcow2_write(&q, i == 0 ? "x.qcow2" : name);
			qcow2_end(&q);
		}
		if (layers <= IMAGE_MAX_LAYERS) {
			struct image *image = open_image("x.qcow2");
			uint64_t size;
			struct view *view = open_view(image, "raw");
			uint8_t *bytes = read_view(view, &size);

			assert_int_equal(image_file_count(image), (size_t)layers);
			for (int i = 0; i < 32; i++)
				assert_int_equal(bytes[i * 512 + 511], i < layers ? 'a' + i : 0);
			free(bytes);
			view_close(view);
			image_unref(image);
		} else {
			assert_refused("x.qcow2", -ELOOP, "more than 16 layers");
		}
	}
}

/* ---- a format that lies ---- */

/* What the next calls of its map answer: these, and then the last one again. */
static struct {
	struct extent extents[8];
	int errors[8];
	size_t count, calls;
} script;

static int lying_probe(const struct probe *probe)
{
	(void)probe;
	return 100;
}

static int lying_open(struct layer *layer, struct why *why)
{
	(void)why;
	layer->size = 100000;
	return 0;
}

static int lying_map(const struct layer *layer, uint64_t offset, uint64_t length,
	enum map_detail detail, struct extent *extent)
{
	size_t call = script.calls++;

	(void)offset, (void)length, (void)detail;
	call = call < script.count ? call : script.count - 1;
	*extent = script.extents[call];
	if (extent->kind == EXTENT_DATA || extent->kind == EXTENT_PACKED)
		extent->file = layer->file;
	return script.errors[call];
}

static const char *const lying_suffixes[] = { NULL };

static const struct image_format lying_format = {
	.name = "lying",
	.suffixes = lying_suffixes,
	.probe = lying_probe,
	.open = lying_open,
	.map = lying_map,
};

static struct format_rule lying_rule = { .pattern = (char *)(uintptr_t) "*",
	.format = &lying_format };

/* What becomes of the extent at 1000, of 500 bytes, when the format says that. */
static int map_scripted(const struct image *image, struct extent says, struct extent *e)
{
	memset(&script, 0, sizeof(script));
	script.extents[0] = says;
	script.extents[1] = (struct extent) { .end = 100000, .kind = EXTENT_ZERO };
	script.count = 2;
	return image_map(image, 1000, 500, MAP_PLACE, e);
}

#define PACKED(offset_, packed_length_, unit_, need_, skip_)                                  \
	(struct extent)                                                                       \
	{                                                                                     \
		.start = 1000, .end = 1500, .kind = EXTENT_PACKED, .offset = offset_,         \
		.packed_length = packed_length_, .unit = unit_, .need = need_, .skip = skip_, \
	}

static void test_lies(void **state)
{
	static const struct extent errors[] = {
		{ .start = 1001, .end = 1500 },
		{ .start = 0, .end = 1000 },
		{ .start = 1000, .end = 1000 },
		{ .start = 0, .end = 0 },
		{ .start = 1500, .end = 1000 },
		{ .start = UINT64_MAX, .end = 1500 },
	};
	const struct extent damaged[] = {
		{ .start = 1000, .end = 1500, .kind = EXTENT_DATA, .offset = 3597 },
		{ .start = 1000, .end = 1500, .kind = EXTENT_DATA, .offset = 4096 },
		{ .start = 1000, .end = 1500, .kind = EXTENT_DATA, .offset = UINT64_MAX - 100 },
		PACKED(4096, 1, 500, 500, 0),
		PACKED(UINT64_MAX, 1, 500, 500, 0),
		PACKED(0, 0, 500, 500, 0),
		PACKED(0, 1, 0, 0, 0),
		PACKED(0, 1, PACKED_UNIT_MAX + 1, 500, 0),
		PACKED(0, 1, 500, 501, 0),
		PACKED(0, 1, 500, 500, 1),
		PACKED(0, 1, 499, 499, 0),
		PACKED(0, 1, 500, 500, 501),
		PACKED(0, 1, 500, 500, UINT32_MAX),
	};
	const struct extent good[] = {
		{ .start = 1000, .end = 1500, .kind = EXTENT_DATA, .offset = 3596 },
		{ .start = 0, .end = 1500, .kind = EXTENT_DATA, .offset = 4096 - 1500 },
		PACKED(0, 1, 500, 500, 0),
		PACKED(4095, 1, 500, 500, 0),
		PACKED(4095, UINT32_MAX, 500, 500, 0),
		PACKED(0, 1, PACKED_UNIT_MAX, 500, 0),
		PACKED(0, 1, 1000, 0, 500),
	};
	struct image *image;
	struct extent e;

	(void)state;
	store.context.rules = &lying_rule;
	store.context.rule_count = 1;
	assert_true(store_truncate("f", 4096));
	image = open_image("f");
	for (size_t i = 0; i < COUNT(errors); i++)
		assert_int_equal(map_scripted(image, errors[i], &e), -EIO);
	for (size_t i = 0; i < COUNT(damaged); i++) {
		assert_int_equal(map_scripted(image, damaged[i], &e), 0);
		assert_int_equal(e.kind, EXTENT_DAMAGED);
		assert_int_equal(e.start, 1000);
		assert_int_equal(e.end, 1500);
	}
	for (size_t i = 0; i < COUNT(good); i++) {
		assert_int_equal(map_scripted(image, good[i], &e), 0);
		assert_int_equal(e.kind, good[i].kind);
		assert_int_equal(e.start, 1000);
		assert_int_equal(e.end, 1500);
		assert_int_equal(e.offset, good[i].kind == EXTENT_PACKED
						   ? good[i].offset
						   : good[i].offset + 1000 - good[i].start);
	}
	/* No parent: what is left to it is zeros. */
	assert_int_equal(
		map_scripted(image, (struct extent) { 0, 9999, .kind = EXTENT_BACKING }, &e), 0);
	assert_int_equal(e.kind, EXTENT_ZERO);
	assert_int_equal(e.end, 1500);
	image_unref(image);
}

/* An error is of the place where it was met, not of what comes before. */
static void test_error_later(void **state)
{
	struct image *image;
	struct extent e;

	(void)state;
	store.context.rules = &lying_rule;
	store.context.rule_count = 1;
	assert_true(store_truncate("f", 4096));
	image = open_image("f");
	for (int later = 0; later < 2; later++) {
		memset(&script, 0, sizeof(script));
		script.extents[0] = (struct extent) { .end = 1100, .kind = EXTENT_ZERO };
		script.extents[1] = (struct extent) { .end = 100000, .kind = EXTENT_ZERO };
		script.errors[later] = -ENOMEM;
		script.count = 2;
		assert_int_equal(image_map(image, 1000, 500, MAP_PLACE, &e), later ? 0 : -ENOMEM);
		if (later) {
			assert_int_equal(e.kind, EXTENT_ZERO);
			assert_int_equal(e.end, 1100);
		}
	}
	image_unref(image);
}

/* Merging has an end, so that one question about a disk of many parts comes back. */
static void test_merge_limit(void **state)
{
	const uint64_t clusters = 20000;
	struct qcow2_image q;
	struct image *image;
	struct extent e;
	int calls = 0;

	(void)state;
	qcow2_begin(&q, 9, clusters * 512);
	for (uint64_t i = 0; i < clusters; i += 2)
		qcow2_set(&q, i * 512, QCOW2_ZERO); /* between: nothing, which is zeros too */
	qcow2_write(&q, "x.qcow2");
	qcow2_end(&q);
	image = open_image("x.qcow2");
	for (uint64_t at = 0; at < clusters * 512; at = e.end) {
		assert_int_equal(image_map(image, at, clusters * 512 - at, MAP_KIND, &e), 0);
		assert_int_equal(e.kind, EXTENT_ZERO);
		assert_int_equal(e.start, at);
		assert_true(e.end > at);
		calls++;
	}
	assert_true(calls >= 1 && calls <= 20);
	image_unref(image);
}

/*
 * One place in a file, read in two ways: a stream of 500 bytes is all of a last unit that needs no
 * more, and damage where 1000 are needed, whatever was asked for first.
 */
static void test_unit_need(void **state)
{
	static const uint8_t plain[500] = { 1, 2, 3 };
	uint8_t stream[600];
	uLongf length = sizeof(stream);
	struct extent e = { .end = 1000, .kind = EXTENT_PACKED, .unit = 1000, .codec = CODEC_ZLIB };
	struct image *image;

	(void)state;
	assert_int_equal(compress(stream, &length, plain, sizeof(plain)), Z_OK);
	store_write("a.raw", stream, length);
	e.packed_length = (uint32_t)length;
	for (int first = 0; first < 2; first++) {
		image = open_image("a.raw");
		e.file = image_file(image, 0);
		for (int i = 0; i < 4; i++) {
			bool short_one = (i + first) % 2;
			struct unit_view unit;
			int r;

			e.need = short_one ? 500 : 1000;
			r = image_unit_get(image, &e, &unit);
			if (r == 0) {
				assert_bytes(unit.bytes, plain, 500);
				assert_true(is_zero(unit.bytes + 500, 500));
				image_unit_put(image, &unit);
			}
			assert_int_equal(r, short_one ? 0 : -EIO);
		}
		image_unref(image);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		store_test(test_chains),
		store_test(test_depth),
		store_test(test_lies),
		store_test(test_error_later),
		store_test(test_merge_limit),
		store_test(test_unit_need),
	};

	return run_unit_tests(tests);
}
