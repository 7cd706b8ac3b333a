/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_namei.c - names and directories of the ext4 driver, on file systems that mke2fs made
 *
 * Storms compare the driver with a model in memory: nodes with links, directories as tables indexed by the number of a
 * name (name_of() makes the name). After each storm e2fsck must have nothing to say.
 */
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/unit/ext4_image.h"
#include "vhd/base/cleanup.h"

static uint64_t rng_state = 1;

static uint32_t rnd(uint32_t n)
{
	rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(rng_state >> 33) % n;
}

/* Sanitizers make everything several times slower; they get less to do. */
#if defined(__SANITIZE_THREAD__)
enum { SLOW = 8 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SLOW = 3 };
#else
enum { SLOW = 1 };
#endif

/* ---- short forms ----------------------------------------------------------------------------------------------------------- */

static uint32_t name_of(char *buf, uint32_t id)
{
	uint32_t len = (uint32_t)sprintf(buf, "%c%u.", 'a' + (char)(id % 26), id);
	uint32_t want = id % 97 == 0 ? 255 : id % 7 == 0 ? 60 : len + id % 12;

	for (; len < want; len++)
		buf[len] = id % 5 ? (char)('A' + (id + len) % 26) : (char)(0x80 + (id + len) % 64);
	return len;
}

static int make(struct fs_node *dir, const char *name, uint32_t len, enum fs_type type, struct fs_node **out)
{
	struct fs_create c = {.type = type,
			      .set = {.what = FS_SET_MODE | FS_SET_UID | FS_SET_GID, .mode = 0755},
			      .target = "target",
			      .target_len = 6};

	if (type == FS_BLK || type == FS_CHR) {
		c.rdev_major = 4;
		c.rdev_minor = 5;
	}
	return dir->fs->ops->create(dir, name, len, &c, out, NULL);
}

static int make_s(struct fs_node *dir, const char *name, enum fs_type type, struct fs_node **out)
{
	return make(dir, name, (uint32_t)strlen(name), type, out);
}

static int look(struct fs_node *dir, const char *name, struct fs_node **out)
{
	return dir->fs->ops->lookup(dir, name, (uint32_t)strlen(name), 0, out);
}

static int rm(struct fs_node *dir, const char *name)
{
	return dir->fs->ops->unlink(dir, name, (uint32_t)strlen(name), NULL);
}

static int mv(struct fs_node *from, const char *name, struct fs_node *to, const char *nname)
{
	return from->fs->ops->rename(from, name, (uint32_t)strlen(name), to, nname, (uint32_t)strlen(nname), NULL,
				     NULL);
}

static int ln(struct fs_node *n, struct fs_node *dir, const char *name)
{
	return n->fs->ops->link(n, dir, name, (uint32_t)strlen(name), NULL);
}

static struct fs_attr attr(struct fs_node *n)
{
	struct fs_attr a;

	must_eq(n->fs->ops->getattr(n, 0, &a), 0);
	return a;
}

/* ---- listing ----------------------------------------------------------------------------------------------------------------- */

struct lister {
	uint64_t cookie;
	unsigned left;  /* entries still wanted in this call */
	uint32_t count; /* entries so far */
	void (*each)(void *arg, const struct fs_dirent *d);
	void *arg;
};

static bool emit(void *arg, const struct fs_dirent *d)
{
	struct lister *l = arg;

	if (!l->left)
		return false;
	must(d->cookie > 2);
	must(d->cookie >= l->cookie);
	must_eq(d->cookie >> 63, 0);
	l->left--;
	l->count++;
	l->cookie = d->cookie;
	if (l->each)
		l->each(l->arg, d);
	return true;
}

/* Lists up to @n entries; true at the end. */
static bool list_some(struct fs_node *dir, struct lister *l, unsigned n)
{
	bool eof;

	l->left = n;
	must_eq(dir->fs->ops->readdir(dir, l->cookie, 0, emit, l, &eof), 0);
	return eof;
}

static uint32_t count_entries(struct fs_node *dir, unsigned chunk)
{
	struct lister l = {0};

	while (!list_some(dir, &l, chunk))
		;
	return l.count;
}

/* ---- the kinds of file systems --------------------------------------------------------------------------------------------- */

static const struct kind {
	const char *name, *mkfs, *after; /* after: a command, its last argument is the image */
	unsigned mib;
	unsigned slow; /* how many times fewer rounds are done */
} kinds[] = {
	{"4k", "-t ext4 -b 4096", NULL, 64, 1},
	{"1k", "-t ext4 -b 1024", NULL, 48, 1},
	{"1k without checksums", "-t ext4 -b 1024 -O ^metadata_csum", NULL, 48, 1},
	{"4k without index", "-t ext4 -b 4096 -O ^dir_index", NULL, 64, 3},
	{"1k without index and checksums", "-t ext4 -b 1024 -O ^dir_index,^metadata_csum", NULL, 48, 3},
	{"1k large_dir, 32 bit", "-t ext4 -b 1024 -O large_dir,^64bit", NULL, 48, 1},
	{"ext2", "-t ext2 -b 1024 -O ^filetype", NULL, 48, 1},
	{"ext3, tea", "-t ext3 -b 4096", "tune2fs -E hash_alg=tea", 64, 1},
	{"legacy hash", "-t ext4 -b 1024", "tune2fs -E hash_alg=legacy", 48, 1},
	{"64k", "-t ext4 -b 65536 -O ^has_journal -N 16384", NULL, 256, 5},
	{"unsigned hash", "-t ext4 -b 1024", "debugfs -w -R 'set_super_value flags 2'", 48, 1},
};

static void kind_make(struct img *m, const struct kind *k)
{
	img_make(m, k->mib, k->mkfs);
	if (k->after)
		must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; %s %s", k->after, m->path), 0);
}

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
	int err = fs->ops->unlink(dir, name, len, NULL);

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
					must_eq(dir->fs->ops->unlink(dir, name, len, NULL), 0);
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

/* ---- meaning ----------------------------------------------------------------------------------------------------------------- */

START_TEST(rename_does_what_posix_says)
{
	struct fs_node *r, *a, *b, *f, *g, *n, *up;
	struct fs_attr before;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "a", FS_DIR, &a), 0);
	must_eq(make_s(a, "b", FS_DIR, &b), 0);
	must_eq(make_s(r, "f", FS_REG, &f), 0);
	must_eq(make_s(r, "g", FS_REG, &g), 0);
	must_eq(mv(r, "none", r, "x"), -ENOENT);
	/* Into itself and below. */
	must_eq(mv(r, "a", a, "x"), -EINVAL);
	must_eq(mv(r, "a", b, "x"), -EINVAL);
	must_eq(mv(r, "a", b, "b"), -EINVAL);
	/* Over its own parent, which is not empty. */
	must_eq(mv(a, "b", r, "a"), -ENOTEMPTY);
	must_eq(mv(r, "f", r, "a"), -EISDIR);
	must_eq(mv(r, "a", r, "f"), -ENOTDIR);
	/* Two names of one inode: nothing happens. */
	must_eq(ln(f, r, "f2"), 0);
	before = attr(r);
	must_eq(mv(r, "f", r, "f2"), 0);
	must_eq(mv(r, "f", r, "f"), 0);
	must_eq(attr(r).change, before.change);
	must_eq(attr(f).nlink, 2);
	/* Replacing: the old file lives while it is held. */
	must_eq(mv(r, "f", r, "g"), 0);
	must_eq(attr(g).nlink, 0);
	must_eq(look(r, "g", &n), 0);
	must(n == f);
	fs_node_put(n);
	must_eq(ln(g, r, "again"), -ENOENT);
	/* A directory moves: links and "..". */
	must_eq(attr(r).nlink, 4);
	must_eq(mv(a, "b", r, "c"), 0);
	must_eq(attr(r).nlink, 5);
	must_eq(attr(a).nlink, 2);
	must_eq(img.fs->ops->parent(b, 0, &up), 0);
	must(up == r);
	fs_node_put(up);
	/* And replaces an empty one. */
	must_eq(mv(r, "a", r, "c"), 0);
	must_eq(attr(r).nlink, 4);
	must_eq(attr(b).nlink, 0);
	must_eq(make_s(b, "x", FS_REG, &n), -ENOENT);
	must_eq(mv(r, "g", b, "x"), -ENOENT);
	must_eq(look(b, "x", &n), -ENOENT);
	must_eq(mv(a, "x", f, "x"), -ENOTDIR);
	fs_node_put(a);
	fs_node_put(b);
	fs_node_put(f);
	fs_node_put(g);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(operations_that_must_fail_do_and_change_nothing)
{
	struct fs_node *r, *d, *f, *n;
	struct fs_cinfo ci;
	struct img img;
	uint64_t change;
	char long_name[256];

	img_make(&img, 16, "-t ext4");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "d", FS_DIR, &d), 0);
	must_eq(make_s(d, "f", FS_REG, &f), 0);
	change = attr(d).change;
	must_eq(make_s(d, "f", FS_DIR, &n), -EEXIST);
	fs_node_put(n);
	must_eq(make_s(f, "x", FS_REG, &n), -ENOTDIR);
	must_eq(look(f, "x", &n), -ENOTDIR);
	must_eq(rm(f, "x"), -ENOTDIR);
	must_eq(rm(d, "x"), -ENOENT);
	must_eq(rm(r, "d"), -ENOTEMPTY);
	must_eq(ln(d, r, "x"), -EISDIR);
	must_eq(ln(f, d, "f"), -EEXIST);
	must_eq(ln(f, f, "f"), -ENOTDIR);
	must_eq(attr(d).change, change);
	memset(long_name, 'l', 255);
	must_eq(make(d, long_name, 255, FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, long_name, 255, 0, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, long_name, 254, 0, &n), -ENOENT);
	/* change_info: before and after of the same step. */
	change = attr(d).change;
	must_eq(img.fs->ops->unlink(d, "f", 1, &ci), 0);
	must(ci.atomic);
	must_eq(ci.before, change);
	must_eq(ci.after, attr(d).change);
	must(ci.after > ci.before);
	/* The file is open here still. */
	must_eq(attr(f).nlink, 0);
	must_eq(img.fs->ops->unlink(d, long_name, 255, NULL), 0);
	must_eq(rm(r, "d"), 0);
	must_eq(make_s(d, "x", FS_REG, &n), -ENOENT);
	must_eq(img.fs->ops->parent(d, 0, &n), -ENOENT);
	must_eq(ln(f, d, "x"), -ENOENT);
	must_eq(img.fs->ops->parent(r, 0, &n), 0);
	must(n == r);
	fs_node_put(n);
	fs_node_put(d);
	fs_node_put(f);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_lookup_that_may_not_wait_finds_what_is_in_memory)
{
	struct fs_node *d, *f, *n;
	struct lister l = {.left = 100};
	struct img img;
	bool eof;

	img_make(&img, 16, "-t ext4");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(d, "f", FS_REG, &f), 0);
	must_eq(img.fs->ops->lookup(d, "f", 1, FS_NOWAIT, &n), 0);
	must(n == f);
	fs_node_put(n);
	must_eq(img.fs->ops->lookup(d, "g", 1, FS_NOWAIT, &n), -ENOENT);
	must_eq(img.fs->ops->parent(d, FS_NOWAIT, &n), 0);
	fs_node_put(n);
	must_eq(img.fs->ops->readdir(d, 0, FS_NOWAIT, emit, &l, &eof), 0);
	must(eof);
	must_eq(l.count, 1);
	fs_node_put(d);
	fs_node_put(f);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------------------ */

/* Without large_dir an index has two levels; with 1 KiB blocks and long names it is full after some 15,000 leaves. */
START_TEST(a_full_index_says_no_space_and_stays_whole)
{
	struct fs_node *d, *n, *x;
	struct img img;
	char name[256];
	uint32_t i;
	int err = 0;

	img_make(&img, 96, "-t ext4 -b 1024 -O ^has_journal -N 2000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	memset(name, 'n', 255);
	for (i = 0; i < 64000; i++) {
		memcpy(name,
		       (char[]){(char)('a' + i % 16), (char)('a' + i / 16 % 16), (char)('a' + i / 256 % 16),
				(char)('a' + i / 4096)},
		       4);
		if ((err = img.fs->ops->link(n, d, name, 255, NULL)) < 0)
			break;
	}
	must_eq(err, -ENOSPC);
	must(i > 20000);
	must_eq(img.fs->ops->lookup(d, name, 255, 0, &x), -ENOENT);
	must_eq(count_entries(d, 1000), i);
	fs_node_put(n);
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

START_TEST(a_full_file_system_says_no_space_and_stays_whole)
{
	static const char *const mkfs[] = {"-t ext4 -b 1024 -O ^has_journal -N 4000",
					   "-t ext4 -b 1024 -O ^has_journal -N 64",
					   "-t ext4 -b 4096 -O ^has_journal,^dir_index -N 2000"};

	for (unsigned k = 0; k < ARRAY_LEN(mkfs); k++) {
		struct fs_node *n;
		struct img img;
		char name[256];
		uint32_t made = 0, refused = 0;

		img_make(&img, 2, mkfs[k]);
		img_mount(&img);
		for (uint32_t i = 0; refused < 40 && i < 20000; i++) {
			int err;

			memset(name, 'x', 250);
			memcpy(name + name_of(name, i), "#", 1);
			err = make(img.fs->root, name, 250, i % 3 ? FS_REG : FS_DIR, &n);
			if (!err)
				fs_node_put(n);
			must(!err || err == -ENOSPC);
			made += !err;
			refused += err != 0;
		}
		must(refused >= 40);
		must_eq(count_entries(img.fs->root, 77), made + 1);
		img_unmount(&img);
		must_eq(img_fsck(&img), 0);
		img_free(&img);
	}
}
END_TEST

/* With large_dir a third level comes; the image is small because names are long. */
START_TEST(a_third_level_is_added_with_large_dir)
{
	struct fs_node *d, *n, *x;
	struct img img;
	char name[256];

	img_make(&img, 96, "-t ext4 -b 1024 -O ^has_journal,large_dir -N 2000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	memset(name, 'n', 255);
	for (uint32_t i = 0; i < 60000; i++) {
		memcpy(name,
		       (char[]){(char)('a' + i % 16), (char)('a' + i / 16 % 16), (char)('a' + i / 256 % 16),
				(char)('a' + i / 4096)},
		       4);
		must_eq(img.fs->ops->link(n, d, name, 255, NULL), 0);
		if (i % 1000 == 999) {
			must_eq(img.fs->ops->lookup(d, name, 255, 0, &x), 0);
			fs_node_put(x);
		}
	}
	must_eq(count_entries(d, 1000), 60000);
	fs_node_put(n);
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	must_eq(shell("debugfs -R 'htree_dump /d' %s | grep -q 'Indirect levels: 2'", img.path), 0);
	img_free(&img);
}
END_TEST

/* Legacy hashes of these, behind 200 times p, are the same; four entries fill a leaf of 1 KiB. */
static const char *const same_hash[] = {"aaaaaa", "aegMQS", "ayYiW7", "bprn2l", "cQ7QiG", "iSIsrZ", "jKQEIW",
					"koFYLK", "o1r2t6", "pGmF0V", "tdARo3", "tsskiz", "tUSaqT", "ui6f3x"};

static uint32_t same_name(char *buf, uint32_t i)
{
	memset(buf, 'p', 200);
	memcpy(buf + 200, same_hash[i], 6);
	return 206;
}

START_TEST(names_of_one_hash_may_fill_several_leaves)
{
	struct fs_node *d, *n;
	struct img img;
	char name[256];
	const uint32_t same = ARRAY_LEN(same_hash);

	img_make(&img, 16, "-t ext4 -b 1024");
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; tune2fs -E hash_alg=legacy %s", img.path), 0);
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < same; i++) {
			must_eq(make(d, name, same_name(name, i), FS_REG, &n), 0);
			fs_node_put(n);
			must_eq(make(d, name, name_of(name, round * same + i), FS_REG, &n), 0);
			fs_node_put(n);
		}
		for (uint32_t i = 0; i < same; i++) {
			must_eq(img.fs->ops->lookup(d, name, same_name(name, i), 0, &n), 0);
			fs_node_put(n);
			must_eq(make(d, name, same_name(name, i), FS_REG, &n), -EEXIST);
			fs_node_put(n);
		}
		for (unsigned chunk = 1; chunk < 20; chunk++)
			must_eq(count_entries(d, chunk), same * (2 + round));
		if (round < 3)
			for (uint32_t i = 0; i < same; i++)
				must_eq(img.fs->ops->unlink(d, name, same_name(name, (i * 5 + round) % same), NULL), 0);
	}
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- directories that others made ------------------------------------------------------------------------------------------ */

static void host_tree(const char *dir, unsigned n)
{
	char path[512];

	must_eq(mkdir(dir, 0755), 0);
	for (unsigned i = 0; i < n; i++) {
		int fd;

		snprintf(path, sizeof path, "%s/host-%u-%.*s", dir, i, (int)(i % 30), "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
		fd = open(path, O_CREAT | O_WRONLY, 0644);
		must(fd >= 0);
		close(fd);
	}
}

static void change_foreign(struct img *img, unsigned n)
{
	struct fs_node *d, *x;
	char name[256];

	img_mount(img);
	must_eq(look(img->fs->root, "big", &d), 0);
	must_eq(count_entries(d, 50), n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t len = (uint32_t)sprintf(name, "host-%u-%.*s", i, (int)(i % 30),
						 "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");

		must_eq(img->fs->ops->lookup(d, name, len, 0, &x), 0);
		fs_node_put(x);
		if (i % 3 == 0)
			must_eq(img->fs->ops->unlink(d, name, len, NULL), 0);
		if (i % 3 == 1) {
			must_eq(img->fs->ops->rename(d, name, len, d, "z", 1, NULL, NULL), 0);
			must_eq(img->fs->ops->rename(d, "z", 1, d, name, len, NULL, NULL), 0);
		}
		len = (uint32_t)sprintf(name, "new-%u", i);
		must_eq(make(d, name, len, FS_REG, &x), 0);
		fs_node_put(x);
	}
	must_eq(count_entries(d, 50), n - (n + 2) / 3 + n);
	fs_node_put(d);
	img_unmount(img);
	must_eq(img_fsck(img), 0);
}

START_TEST(directories_made_by_the_tools_are_read_and_changed)
{
	static const char *const mkfs[] = {"-t ext4 -b 1024", "-t ext4 -b 4096"};

	for (unsigned k = 0; k < 2 * ARRAY_LEN(mkfs); k++) {
		struct img img;
		char opts[256], host[96];

		/* Linear, as mke2fs -d leaves it; or packed tight and hashed by e2fsck -D. */
		img_make(&img, 32, mkfs[k / 2]);
		snprintf(host, sizeof host, "%s/tree", img.dir);
		must_eq(mkdir(host, 0755), 0);
		snprintf(opts, sizeof opts, "%s/big", host);
		host_tree(opts, 400);
		snprintf(opts, sizeof opts, "%s -d %s", mkfs[k / 2], host);
		must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; mke2fs -q -F -E nodiscard %s %s 32M", opts, img.path), 0);
		if (k % 2)
			(void)shell("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fyD %s; test $? -le 1", img.path);
		change_foreign(&img, 400);
		must_eq(shell("rm -rf %s", host), 0);
		img_free(&img);
	}
}
END_TEST

/* libext2fs makes a second entry of the same name: entries that nothing tells apart are still several. */
START_TEST(entries_with_equal_cookies_are_all_listed)
{
	ext2_filsys e2;
	struct fs_node *n;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "f", FS_REG, &n), 0);
	fs_node_put(n);
	img_unmount(&img);
	must_eq(ext2fs_open(img.path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &e2), 0);
	for (unsigned i = 0; i < 5; i++)
		must_eq(ext2fs_link(e2, EXT2_ROOT_INO, "twin", EXT2_GOOD_OLD_FIRST_INO + 1, EXT2_FT_REG_FILE), 0);
	must_eq(ext2fs_close_free(&e2), 0);
	img_mount(&img);
	for (unsigned chunk = 1; chunk < 5; chunk++)
		must_eq(count_entries(img.fs->root, chunk), 7);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

START_TEST(what_may_not_change_does_not)
{
	struct fs_node *r, *fixed, *append, *n, *f;
	struct img img;

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	r = img.fs->root;
	must_eq(make_s(r, "fixed", FS_DIR, &fixed), 0);
	must_eq(make_s(r, "append", FS_DIR, &append), 0);
	must_eq(make_s(r, "file", FS_REG, &f), 0);
	must_eq(make_s(fixed, "x", FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(make_s(append, "x", FS_REG, &n), 0);
	fs_node_put(n);
	fs_node_put(f);
	fs_node_put(fixed);
	fs_node_put(append);
	img_unmount(&img);
	must_eq(shell("debugfs -w -R 'sif fixed flags 0x80010' %s && debugfs -w -R 'sif append flags 0x80020' %s && "
		      "debugfs -w -R 'sif file flags 0x80010' %s",
		      img.path, img.path, img.path),
		0);
	img_mount(&img);
	r = img.fs->root;
	must_eq(look(r, "fixed", &fixed), 0);
	must_eq(look(r, "append", &append), 0);
	must_eq(look(r, "file", &f), 0);
	must_eq(make_s(fixed, "y", FS_REG, &n), -EPERM);
	must_eq(rm(fixed, "x"), -EPERM);
	must_eq(mv(fixed, "x", r, "x"), -EPERM);
	must_eq(mv(r, "fixed", r, "other"), -EPERM);
	must_eq(make_s(append, "y", FS_REG, &n), 0);
	fs_node_put(n);
	must_eq(rm(append, "x"), -EPERM);
	must_eq(mv(append, "x", r, "x"), -EPERM);
	must_eq(mv(append, "x", append, "y"), -EPERM);
	must_eq(rm(r, "file"), -EPERM);
	must_eq(ln(f, r, "file2"), -EPERM);
	must_eq(mv(r, "file", r, "file2"), -EPERM);
	must_eq(mv(append, "x", r, "file"), -EPERM);
	fs_node_put(f);
	fs_node_put(fixed);
	fs_node_put(append);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

/* ---- hostile images ------------------------------------------------------------------------------------------------------------ */

/* Physical blocks of "/d". */
static unsigned blocks_of(const char *path, blk64_t *blk, unsigned max, ext2_ino_t *ino)
{
	ext2_filsys e2;
	unsigned n = 0;

	must_eq((int)ext2fs_open(path, EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &e2), 0);
	must_eq((int)ext2fs_namei(e2, EXT2_ROOT_INO, EXT2_ROOT_INO, "d", ino), 0);
	while (n < max && !ext2fs_bmap2(e2, *ino, NULL, NULL, 0, n, NULL, &blk[n]) && blk[n])
		n++;
	ext2fs_close_free(&e2);
	return n;
}

static void use_damaged(struct fs *fs)
{
	struct fs_node *d, *n, *up;
	char name[256];
	bool eof;

	if (look(fs->root, "d", &d))
		return;
	for (uint32_t i = 0; i < 60; i++) {
		uint32_t id = rnd(2000), len = name_of(name, id);

		if (!fs->ops->lookup(d, name, len, 0, &n))
			fs_node_put(n);
		(void)make(d, name, len, rnd(4) ? FS_REG : FS_DIR, &n);
		fs_node_put(n);
		if (rnd(2))
			(void)fs->ops->unlink(d, name, len, NULL);
		if (rnd(2))
			(void)fs->ops->rename(d, name, len, rnd(2) ? d : fs->root, "moved", 5, NULL, NULL);
	}
	for (uint64_t cookie = 0, steps = 0; steps < 200; steps++) {
		struct lister l = {.cookie = cookie, .left = 1 + rnd(40)};

		if (fs->ops->readdir(d, cookie, 0, emit, &l, &eof) || eof)
			break;
		must(l.cookie > cookie);
		cookie = l.cookie;
	}
	if (!fs->ops->parent(d, 0, &up))
		fs_node_put(up);
	(void)rm(fs->root, "d");
	fs_node_put(d);
}

/* Without checksums every flipped byte reaches the checks of structure. */
START_TEST(damage_never_leads_astray)
{
	unsigned size = _i % 2 ? 4096 : 1024, n;
	uint8_t *whole, *b = malloc(size);
	blk64_t blk[512];
	struct fs_node *d, *x;
	ext2_ino_t ino;
	struct img img;
	char name[256];
	struct stat st;
	int fd;

	rng_state = (uint64_t)_i * 1000 + 5;
	img_make(&img, 4,
		 size == 4096 ? "-t ext4 -b 4096 -O ^metadata_csum,^has_journal -N 3000"
			      : "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,large_dir -N 3000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t i = 0; i < (size == 4096 ? 600 : 2000); i++) {
		must_eq(make(d, name, name_of(name, i), FS_REG, &x), 0);
		fs_node_put(x);
	}
	fs_node_put(d);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	n = blocks_of(img.path, blk, 512, &ino);
	fd = open(img.path, O_RDWR);
	must(fd >= 0);
	must_eq(fstat(fd, &st), 0);
	whole = malloc((size_t)st.st_size);
	must_eq(pread(fd, whole, (size_t)st.st_size, 0), st.st_size);
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned k = 1 + rnd(12); k; k--) {
			/* Root and heads of blocks first of all. */
			uint64_t at = blk[rnd(3) ? 0 : rnd(n)] * size + (rnd(2) ? rnd(80) : rnd(size));
			uint8_t byte = (uint8_t)(rnd(3) ? rnd(256) : rnd(6));

			must_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
		}
		if (rnd(4) == 0) {
			must_eq(pread(fd, b, size, (off_t)(blk[rnd(n)] * size)), size);
			must_eq(pwrite(fd, b, size, (off_t)(blk[rnd(n)] * size)), size);
		}
		img_mount(&img);
		use_damaged(img.fs);
		(void)img.fs->ops->unmount(img.fs);
		(void)cache_detach(img.dev);
		cache_free(img.cache);
		(void)vhd_close(img.vhd);
		img.fs = NULL;
		must_eq(pwrite(fd, whole, (size_t)st.st_size, 0), st.st_size);
	}
	close(fd);
	free(whole);
	free(b);
	img_free(&img);
}
END_TEST

/* With checksums a changed block is refused, and so is the directory: no wrong answer. */
START_TEST(a_block_with_a_wrong_checksum_is_refused)
{
	struct fs_node *d, *x;
	struct lister l = {.left = 100000};
	blk64_t blk[64];
	ext2_ino_t ino;
	struct img img;
	char name[256];
	unsigned n;
	bool eof;
	int fd, err;

	img_make(&img, 8, "-t ext4 -b 1024");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	for (uint32_t i = 0; i < 300; i++) {
		must_eq(make(d, name, name_of(name, i), FS_REG, &x), 0);
		fs_node_put(x);
	}
	fs_node_put(d);
	img_unmount(&img);
	n = blocks_of(img.path, blk, 64, &ino);
	must(n > 4);
	fd = open(img.path, O_RDWR);
	must_eq(pread(fd, name, 1, (off_t)(blk[2] * 1024 + 9)), 1);
	name[0] ^= 1;
	must_eq(pwrite(fd, name, 1, (off_t)(blk[2] * 1024 + 9)), 1);
	close(fd);
	img_mount(&img);
	must_eq(look(img.fs->root, "d", &d), 0);
	err = img.fs->ops->readdir(d, 0, 0, emit, &l, &eof);
	if (!err)
		err = img.fs->ops->readdir(d, l.cookie, 0, emit, &l, &eof);
	must_eq(err, -EUCLEAN);
	fs_node_put(d);
	img_unmount(&img);
	img_free(&img);
}
END_TEST

/* ---- threads ------------------------------------------------------------------------------------------------------------------- */

struct crowd {
	struct fs *fs;
	struct fs_node *dir;
	atomic_bool stop;
	atomic_uint looks, lists;
};

static bool emit_all(void *arg, const struct fs_dirent *d)
{
	(void)d;
	++*(unsigned *)arg;
	return true;
}

static void *reader(void *arg)
{
	struct crowd *c = arg;
	uint32_t seed = 1;

	while (!atomic_load(&c->stop)) {
		struct fs_node *n;
		char name[256];
		unsigned seen = 0, flags;
		bool eof;
		int err;

		seed = seed * 1103515245 + 12345;
		flags = seed >> 30 & 1 ? FS_NOWAIT : 0;
		err = c->fs->ops->lookup(c->dir, name, name_of(name, seed >> 16 & 511), flags, &n);
		must(!err || err == -ENOENT || (flags && err == -EAGAIN));
		if (!err)
			fs_node_put(n);
		atomic_fetch_add(&c->looks, 1);
		if (seed >> 20 & 31)
			continue;
		err = c->fs->ops->readdir(c->dir, 0, flags, emit_all, &seen, &eof);
		must(!err || (flags && err == -EAGAIN));
		atomic_fetch_add(&c->lists, 1);
	}
	return NULL;
}

START_TEST(readers_and_writers_do_not_disturb_each_other)
{
	struct timespec t0, t;
	struct fs_node *n;
	pthread_t th[2];
	struct crowd c = {0};
	struct img img;
	char name[256], nname[256];

	img_make(&img, 16, "-t ext4 -b 1024");
	img_mount(&img);
	c.fs = img.fs;
	must_eq(make_s(img.fs->root, "d", FS_DIR, &c.dir), 0);
	for (unsigned i = 0; i < ARRAY_LEN(th); i++)
		must_eq(pthread_create(&th[i], NULL, reader, &c), 0);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	do {
		for (unsigned i = 0; i < 50; i++) {
			uint32_t len = name_of(name, rnd(512)), nlen = name_of(nname, rnd(512));

			switch (rnd(4)) {
			case 0:
				(void)img.fs->ops->unlink(c.dir, name, len, NULL);
				break;
			case 1:
				(void)img.fs->ops->rename(c.dir, name, len, c.dir, nname, nlen, NULL, NULL);
				break;
			default:
				(void)make(c.dir, name, len, rnd(10) ? FS_REG : FS_DIR, &n);
				fs_node_put(n);
			}
		}
		clock_gettime(CLOCK_MONOTONIC, &t);
	} while ((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000 < 700);
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < ARRAY_LEN(th); i++)
		pthread_join(th[i], NULL);
	must(atomic_load(&c.looks) > 0);
	fs_node_put(c.dir);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_namei");
	TCase *t = tcase_create("names");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, rename_does_what_posix_says);
	tcase_add_test(t, operations_that_must_fail_do_and_change_nothing);
	tcase_add_test(t, a_lookup_that_may_not_wait_finds_what_is_in_memory);
	tcase_add_loop_test(t, a_listing_stops_where_it_is_told_and_goes_on_there, 0, ARRAY_LEN(kinds));
	tcase_add_loop_test(t, what_stays_is_listed_once_whatever_comes_and_goes, 0, ARRAY_LEN(kinds));
	tcase_add_loop_test(t, a_storm_ends_as_the_model_says_and_clean, 0, ARRAY_LEN(kinds));
	tcase_add_test(t, a_full_index_says_no_space_and_stays_whole);
	tcase_add_test(t, a_third_level_is_added_with_large_dir);
	tcase_add_test(t, names_of_one_hash_may_fill_several_leaves);
	tcase_add_test(t, entries_with_equal_cookies_are_all_listed);
	tcase_add_test(t, what_may_not_change_does_not);
	tcase_add_test(t, a_full_file_system_says_no_space_and_stays_whole);
	tcase_add_test(t, directories_made_by_the_tools_are_read_and_changed);
	tcase_add_loop_test(t, damage_never_leads_astray, 0, 6);
	tcase_add_test(t, a_block_with_a_wrong_checksum_is_refused);
	tcase_add_test(t, readers_and_writers_do_not_disturb_each_other);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
