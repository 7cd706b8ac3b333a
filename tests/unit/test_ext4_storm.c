/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_storm.c - names that come and go by the thousand, on file systems of all kinds
 *
 * Storms compare the driver with a model in memory: nodes with links, directories as tables indexed by the number of a
 * name (name_of() makes the name). After each storm e2fsck must have nothing to say.
 */
#include "tests/unit/ext4_names.h"

/* ---- the model ---------------------------------------------------------------------------------------------------------------- */

enum { DIRS = 24, NAMES = 900, NODES = 4000 };

struct model {
	struct {
		enum fs_type type; /* 0: free */
		uint64_t ino;
		uint32_t links; /* names; for directories 1 */
		int dir;        /* number of a directory */
	} node[NODES];
	struct {
		bool used;
		int node, parent; /* parent: number of the directory above */
		int count;
		int16_t child[NAMES]; /* a node, or -1 */
	} dir[DIRS];
};

static struct model *model_new(struct fs *fs)
{
	struct model *m = calloc(1, sizeof *m);

	ck_assert_ptr_nonnull(m);
	m->dir[0].used = true;
	m->node[0].type = FS_DIR;
	m->node[0].ino = fs->root->ino;
	m->node[0].links = 1;
	for (unsigned i = 0; i < NAMES; i++)
		m->dir[0].child[i] = -1;
	return m;
}

static int model_new_node(struct model *m)
{
	for (int i = 1; i < NODES; i++)
		if (!m->node[i].type)
			return i;
	return -1;
}

static int model_new_dir(struct model *m, int node, int parent)
{
	for (int i = 1; i < DIRS; i++)
		if (!m->dir[i].used) {
			m->dir[i].used = true;
			m->dir[i].node = node;
			m->dir[i].parent = parent;
			m->dir[i].count = 0;
			for (unsigned k = 0; k < NAMES; k++)
				m->dir[i].child[k] = -1;
			m->node[node].dir = i;
			return i;
		}
	return -1;
}

static int model_pick_dir(const struct model *m)
{
	int d;

	do
		d = (int)rnd(rnd(3) ? 3 : DIRS);
	while (!m->dir[d].used);
	return d;
}

static void model_drop(struct model *m, int node)
{
	if (m->node[node].type == FS_DIR)
		m->dir[m->node[node].dir].used = false;
	if (m->node[node].type == FS_DIR || !--m->node[node].links)
		m->node[node].type = 0;
}

static bool model_below(const struct model *m, int dir, int top)
{
	for (;; dir = m->dir[dir].parent) {
		if (dir == top)
			return true;
		if (!dir)
			return false;
	}
}

/* The driver's node of a model's directory, by the way down from the root. */
static struct fs_node *open_dir(struct fs *fs, const struct model *m, int dir)
{
	struct fs_node *up, *n;
	char name[256];

	if (!dir)
		return fs_node_get(fs->root);
	up = open_dir(fs, m, m->dir[dir].parent);
	for (uint32_t i = 0; i < NAMES; i++)
		if (m->dir[m->dir[dir].parent].child[i] == m->dir[dir].node) {
			must_eq(fs->ops->lookup(up, name, name_of(name, i), 0, &n), 0);
			fs_node_put(up);
			return n;
		}
	ck_abort_msg("the model has lost a directory");
	return NULL;
}

static void storm_create(struct fs *fs, struct model *m)
{
	static const enum fs_type types[] = {FS_REG, FS_REG, FS_REG, FS_REG,  FS_DIR,
					     FS_LNK, FS_BLK, FS_CHR, FS_FIFO, FS_SOCK};
	enum fs_type type = types[rnd(ARRAY_LEN(types))];
	int d = model_pick_dir(m), node = model_new_node(m), have;
	struct fs_node *dir = open_dir(fs, m, d), *n = NULL;
	struct fs_cinfo ci = {0};
	char name[256];
	uint32_t id = rnd(NAMES), len = name_of(name, id);
	struct fs_create c = {.type = type,
			      .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = 0640},
			      .target = "somewhere",
			      .target_len = 9};
	int err;

	have = m->dir[d].child[id];
	if (node < 0 || (type == FS_DIR && have < 0 && model_new_dir(m, node, d) < 0))
		goto out;
	err = fs->ops->create(dir, name, len, &c, &n, &ci);
	must_eq(err, have >= 0 ? -EEXIST : 0);
	if (have >= 0) {
		must(!n || n->ino == m->node[have].ino);
		goto out;
	}
	must(ci.atomic && ci.after > ci.before);
	must_eq(n->type, type);
	m->node[node].type = type;
	m->node[node].ino = n->ino;
	m->node[node].links = 1;
	m->dir[d].child[id] = (int16_t)node;
	m->dir[d].count++;
out:
	fs_node_put(n);
	fs_node_put(dir);
}

static void storm_unlink(struct fs *fs, struct model *m)
{
	int d = model_pick_dir(m), node;
	struct fs_node *dir = open_dir(fs, m, d);
	char name[256];
	uint32_t id = rnd(NAMES), len = name_of(name, id);
	int err = fs->ops->unlink(dir, name, len, 0, NULL);

	node = m->dir[d].child[id];
	if (node < 0) {
		must_eq(err, -ENOENT);
	} else if (m->node[node].type == FS_DIR && m->dir[m->node[node].dir].count) {
		must_eq(err, -ENOTEMPTY);
	} else {
		must_eq(err, 0);
		m->dir[d].child[id] = -1;
		m->dir[d].count--;
		model_drop(m, node);
	}
	fs_node_put(dir);
}

static void storm_link(struct fs *fs, struct model *m)
{
	int d = model_pick_dir(m), e = model_pick_dir(m), node, err;
	struct fs_node *from = open_dir(fs, m, d), *to = open_dir(fs, m, e), *n;
	char name[256];
	uint32_t id = rnd(NAMES), nid = rnd(NAMES);

	node = m->dir[d].child[id];
	err = fs->ops->lookup(from, name, name_of(name, id), 0, &n);
	must_eq(err, node < 0 ? -ENOENT : 0);
	if (!err) {
		bool have = m->dir[e].child[nid] >= 0;

		err = fs->ops->link(n, to, name, name_of(name, nid), NULL);
		must_eq(err, m->node[node].type == FS_DIR ? -EISDIR : have ? -EEXIST : 0);
		if (!err) {
			m->dir[e].child[nid] = (int16_t)node;
			m->dir[e].count++;
			m->node[node].links++;
			must_eq(attr(n).nlink, m->node[node].links);
		}
		fs_node_put(n);
	}
	fs_node_put(from);
	fs_node_put(to);
}

/* What rename must say, by the model. */
static int expect_rename(const struct model *m, int d, int node, int e, int old)
{
	bool dir;

	if (node < 0)
		return -ENOENT;
	dir = m->node[node].type == FS_DIR;
	if (dir && d != e && model_below(m, e, m->node[node].dir))
		return -EINVAL;
	if (node == old)
		return 0;
	if (old < 0)
		return dir && m->node[node].dir == e ? -EINVAL : 0;
	if (dir != (m->node[old].type == FS_DIR))
		return dir ? -ENOTDIR : -EISDIR;
	return dir && m->dir[m->node[old].dir].count ? -ENOTEMPTY : 0;
}

static void storm_rename(struct fs *fs, struct model *m)
{
	int d = model_pick_dir(m), e = rnd(2) ? d : model_pick_dir(m), node, old, err;
	struct fs_node *from = open_dir(fs, m, d), *to = open_dir(fs, m, e);
	char name[256], nname[256];
	uint32_t id = rnd(NAMES), nid = rnd(NAMES), len, nlen;

	/* A hit is what is wanted mostly. */
	for (unsigned i = 0; i < 50 && m->dir[d].child[id] < 0; i++)
		id = rnd(NAMES);
	len = name_of(name, id);
	nlen = name_of(nname, nid);
	node = m->dir[d].child[id];
	old = m->dir[e].child[nid];
	err = fs->ops->rename(from, name, len, to, nname, nlen, NULL, NULL);
	must_eq(err, expect_rename(m, d, node, e, old));
	if (!err && node != old) {
		if (old >= 0)
			model_drop(m, old);
		else
			m->dir[e].count++;
		m->dir[e].child[nid] = (int16_t)node;
		m->dir[d].child[id] = -1;
		m->dir[d].count--;
		if (m->node[node].type == FS_DIR)
			m->dir[m->node[node].dir].parent = e;
	}
	fs_node_put(from);
	fs_node_put(to);
}

struct compare {
	const struct model *m;
	int dir;
	bool seen[NAMES];
};

static void compare_one(void *arg, const struct fs_dirent *d)
{
	struct compare *c = arg;
	uint32_t id = (uint32_t)strtoul(d->name + 1, NULL, 10);
	char name[256];

	/* mke2fs makes this one. */
	if (d->len == 10 && !memcmp(d->name, "lost+found", 10))
		return;
	must(id < NAMES);
	must_eq(d->len, name_of(name, id));
	must(!memcmp(d->name, name, d->len));
	must(!c->seen[id]);
	c->seen[id] = true;
	must(c->m->dir[c->dir].child[id] >= 0);
	must_eq(d->ino, c->m->node[c->m->dir[c->dir].child[id]].ino);
}

/* Everything the model knows is there, and nothing else. */
static void compare_all(struct fs *fs, const struct model *m)
{
	for (int d = 0; d < DIRS; d++) {
		struct compare c = {.m = m, .dir = d};
		struct lister l = {.each = compare_one, .arg = &c};
		struct fs_node *dir, *up, *n;
		uint32_t subdirs = 0;

		if (!m->dir[d].used)
			continue;
		dir = open_dir(fs, m, d);
		while (!list_some(dir, &l, 1 + rnd(60)))
			;
		for (uint32_t i = 0; i < NAMES; i++) {
			int node = m->dir[d].child[i];
			char name[256];
			int err = fs->ops->lookup(dir, name, name_of(name, i), 0, &n);

			must_eq(err, node < 0 ? -ENOENT : 0);
			must_eq(c.seen[i], node >= 0);
			if (err)
				continue;
			must_eq(n->ino, m->node[node].ino);
			must_eq(n->type, m->node[node].type);
			if (n->type == FS_DIR)
				subdirs++;
			else
				must_eq(attr(n).nlink, m->node[node].links);
			fs_node_put(n);
		}
		must_eq(attr(dir).nlink, 2 + subdirs + (d == 0));
		must_eq(fs->ops->parent(dir, 0, &up), 0);
		must_eq(up->ino, m->node[m->dir[m->dir[d].parent].node].ino);
		fs_node_put(up);
		fs_node_put(dir);
	}
}

static void storm(struct fs *fs, struct model *m, unsigned ops, unsigned creates)
{
	for (unsigned i = 0; i < ops; i++) {
		unsigned dice = rnd(100);

		if (dice < creates)
			storm_create(fs, m);
		else if (dice < 80)
			storm_unlink(fs, m);
		else if (dice < 85)
			storm_link(fs, m);
		else
			storm_rename(fs, m);
	}
}

START_TEST(a_storm_ends_as_the_model_says_and_clean)
{
	const struct kind *k = &kinds[_i];
	struct model *m;
	struct img img;

	rng_state = (uint64_t)_i + 7;
	kind_make(&img, k);
	img_mount(&img);
	m = model_new(img.fs);
	storm(img.fs, m, 6000 / SLOW, 70); /* grow */
	compare_all(img.fs, m);
	storm(img.fs, m, 3000 / SLOW, 40);
	compare_all(img.fs, m);
	img_unmount(&img);
	ck_assert_msg(img_fsck(&img) == 0, "%s", k->name);
	img_mount(&img);
	compare_all(img.fs, m);
	storm(img.fs, m, 2000 / SLOW, 20); /* shrink */
	compare_all(img.fs, m);
	img_unmount(&img);
	ck_assert_msg(img_fsck(&img) == 0, "%s, second mount", k->name);
	free(m);
	img_free(&img);
}
END_TEST

/* ---- listing while names come and go ----------------------------------------------------------------------------------------- */

enum { STAY = 700, COME = 3000 };

struct seen {
	uint8_t stay[STAY];
	uint8_t come[COME];
};

static uint32_t stay_name(char *buf, uint32_t i)
{
	return (uint32_t)sprintf(buf, "stay%u", i);
}

static uint32_t come_name(char *buf, uint32_t i)
{
	return (uint32_t)sprintf(buf, "come%u%.*s", i, (int)(i % 40), "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
}

static void see(void *arg, const struct fs_dirent *d)
{
	struct seen *s = arg;
	char name[256];
	uint32_t i;

	memcpy(name, d->name, d->len);
	name[d->len] = 0;
	i = (uint32_t)strtoul(name + 4, NULL, 10);
	if (!memcmp(name, "stay", 4))
		must_eq(s->stay[i]++, 0);
	else
		s->come[i]++;
}

/* The directory may begin with one block and become hashed under the listing. */
static void list_under_change(struct fs_node *dir, uint32_t stay, unsigned changes, unsigned rounds)
{
	static bool there[COME];
	char name[256];
	struct fs_node *n;

	memset(there, 0, sizeof there);
	for (uint32_t i = 0; i < stay; i++) {
		must_eq(make(dir, name, stay_name(name, i), FS_REG, &n), 0);
		fs_node_put(n);
	}
	for (unsigned round = 0; round < rounds; round++) {
		struct seen s = {0};
		struct lister l = {.each = see, .arg = &s};

		while (!list_some(dir, &l, 1 + rnd(12)))
			for (unsigned k = rnd(changes); k; k--) {
				uint32_t i = rnd(COME), len = come_name(name, i);

				if (there[i]) {
					must_eq(dir->fs->ops->unlink(dir, name, len, 0, NULL), 0);
				} else {
					must_eq(make(dir, name, len, FS_REG, &n), 0);
					fs_node_put(n);
				}
				there[i] = !there[i];
			}
		for (uint32_t i = 0; i < stay; i++)
			ck_assert_msg(s.stay[i] == 1, "%s seen %u times", (stay_name(name, i), name), s.stay[i]);
	}
}

START_TEST(what_stays_is_listed_once_whatever_comes_and_goes)
{
	const uint32_t stay[] = {3, 20, 60, STAY / kinds[_i].slow};
	struct fs_node *dir;
	struct img img;
	char name[16];

	rng_state = (uint64_t)_i + 70;
	kind_make(&img, &kinds[_i]);
	img_mount(&img);
	for (unsigned i = 0; i < ARRAY_LEN(stay); i++) {
		sprintf(name, "d%u", i);
		must_eq(make_s(img.fs->root, name, FS_DIR, &dir), 0);
		list_under_change(dir, stay[i], stay[i] < 30 ? 120 : 30, 1 + 5 / kinds[_i].slow / SLOW);
		fs_node_put(dir);
	}
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_listing_stops_where_it_is_told_and_goes_on_there)
{
	struct fs_node *dir, *n;
	struct img img;
	char name[256];
	bool eof;

	kind_make(&img, &kinds[_i]);
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &dir), 0);
	must_eq(count_entries(dir, 1), 0);
	for (uint32_t i = 0; i < 500; i++) {
		must_eq(make(dir, name, name_of(name, i), FS_REG, &n), 0);
		fs_node_put(n);
		if (i < 60)
			must_eq(count_entries(dir, 1 + i / 4), i + 1);
	}
	for (unsigned chunk = 1; chunk < 600; chunk = chunk * 2 + 1)
		must_eq(count_entries(dir, chunk), 500);
	/* After the last cookie there is nothing but the end; nor after one that is past it. */
	for (uint64_t cookie = INT64_MAX - 1; cookie > (1ull << 62); cookie -= 1ull << 60) {
		struct lister l = {.cookie = cookie, .left = 500};

		must_eq(img.fs->ops->readdir(dir, cookie, 0, emit, &l, &eof), 0);
	}
	fs_node_put(dir);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_storm");
	TCase *t = tcase_create("names");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_listing_stops_where_it_is_told_and_goes_on_there, 0, ARRAY_LEN(kinds));
	tcase_add_loop_test(t, what_stays_is_listed_once_whatever_comes_and_goes, 0, ARRAY_LEN(kinds));
	tcase_add_loop_test(t, a_storm_ends_as_the_model_says_and_clean, 0, ARRAY_LEN(kinds));
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
