/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model.c - the workloads, and a model of what they leave
 *
 * Names are in a few folders, so a table holds them. A node's number is its owner's, which is how it is known again after a cut,
 * whatever its name. The state of all names after each operation is kept as one number; file contents are sectors that hold the
 * node's number and that of the operation which wrote them.
 *
 * What lies behind the end of a file is seen when the file grows. So each file that was recovered is made longer, in one of the ways
 * there are: what it had comes first, and then nothing but zeros, now, after the next mount, and after another cut meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/crash.h"
#include "vhd/base/checked.h"
#include "vhd/base/lock.h"

enum { DIRS = 6, NAMES = 700, NODES = 6000, OPS_MAX = 20000, SECTOR = 512, BLOCK = 4096 };

enum what { CREATE, UNLINK, RENAME, LINK, MKDIR, SYMLINK, WRITE, TRUNCATE, PUNCH, RESERVE, SCATTER, DROP, ATTR, WHATS };

const struct workload workloads[] = {
	{"names",
	 "-t ext4 -b 4096 -J size=4",
	 48,
	 false,
	 1500,
	 20,
	 {[CREATE] = 40, [UNLINK] = 20, [RENAME] = 15, [LINK] = 10, [MKDIR] = 10, [SYMLINK] = 10, [DROP] = 10}},
	{"data",
	 "-t ext4 -b 4096 -J size=4",
	 48,
	 false,
	 1000,
	 8,
	 {[CREATE] = 10,
	  [UNLINK] = 5,
	  [WRITE] = 50,
	  [TRUNCATE] = 10,
	  [PUNCH] = 10,
	  [RESERVE] = 5,
	  [SCATTER] = 2,
	  [DROP] = 3}},
	{"small-blocks",
	 "-t ext4 -b 1024 -J size=1",
	 24,
	 false,
	 1500,
	 12,
	 {[CREATE] = 30,
	  [UNLINK] = 15,
	  [RENAME] = 10,
	  [LINK] = 5,
	  [MKDIR] = 5,
	  [SYMLINK] = 8,
	  [WRITE] = 30,
	  [TRUNCATE] = 8,
	  [PUNCH] = 5,
	  [SCATTER] = 2,
	  [DROP] = 5}},
	{"ext3",
	 "-t ext3 -b 1024 -J size=1",
	 24,
	 false,
	 800,
	 12,
	 {[CREATE] = 20,
	  [UNLINK] = 12,
	  [RENAME] = 10,
	  [MKDIR] = 5,
	  [SYMLINK] = 5,
	  [WRITE] = 30,
	  [TRUNCATE] = 8,
	  [PUNCH] = 5,
	  [DROP] = 5}},
	{"wrap",
	 "-t ext4 -b 4096 -J size=4",
	 48,
	 false,
	 4000,
	 4,
	 {[CREATE] = 30, [UNLINK] = 28, [RENAME] = 10, [WRITE] = 20, [TRUNCATE] = 5, [DROP] = 5}},
	{"fragments",
	 "-t ext4 -b 1024 -J size=1",
	 32,
	 false,
	 300,
	 10,
	 {[CREATE] = 4, [UNLINK] = 3, [WRITE] = 10, [SCATTER] = 40, [TRUNCATE] = 8, [DROP] = 5}},
	{"growing",
	 "-t ext4 -b 4096 -J size=4",
	 48,
	 true,
	 800,
	 10,
	 {[CREATE] = 25, [UNLINK] = 10, [RENAME] = 5, [WRITE] = 40, [TRUNCATE] = 5, [PUNCH] = 4, [DROP] = 4}},
	{"attributes",
	 "-t ext4 -b 1024 -J size=1",
	 24,
	 false,
	 1200,
	 12,
	 {[CREATE] = 20, [UNLINK] = 15, [LINK] = 3, [WRITE] = 8, [DROP] = 5, [ATTR] = 70}},
	{.name = NULL},
};

/* ---- what is there ---------------------------------------------------------------------------------------------------------- */

enum change { CH_WRITE, CH_CUT, CH_HOLE };

/* Sectors [from, end) of a file: written, or zeros from now on. CH_CUT: also its end. */
struct change_of {
	unsigned op;
	enum change what;
	uint64_t from, end;
	uint64_t size; /* of the file, afterwards */
};

static struct node {
	enum fs_type type; /* 0: none */
	unsigned links;
	struct fs_node *n; /* while it is in use */
	uint64_t size;
	unsigned attr; /* the operation that set its attribute; 0: it has none */
	struct change_of *ch;
	unsigned nch;
	unsigned promised; /* its data up to this operation, by a commit of it alone, at `promised_at` */
	struct commit_of {
		unsigned op, at;
	} * commits;
	unsigned ncommits;
	bool open;         /* kept open though it has no name */
	uint64_t from, to; /* the size that it grew from, and to, when it had been recovered; 0: it did not */
	unsigned round;    /* in which it did: once, however many names it has */
} nodes[NODES];
static unsigned nnodes;

static int names[DIRS][NAMES]; /* a node, or 0 */
static struct fs_node *dirs[DIRS];

static struct op {
	unsigned before, after; /* events */
	uint64_t state;         /* of all names, afterwards */
	bool sync;              /* promises everything before */
} ops[OPS_MAX];
static unsigned nops;

static uint64_t mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15);
	return a ^ a >> 29;
}

static uint64_t name_state(unsigned d, unsigned name, unsigned node, enum fs_type type, unsigned links, unsigned attr)
{
	return mix(mix(mix(mix(mix(mix(1, d), name), node), type), links), attr);
}

static uint64_t dir_state(unsigned d, unsigned links)
{
	return mix(mix(77, d), links);
}

static uint64_t all_names(void)
{
	uint64_t sum = 0;

	for (unsigned d = 0; d < DIRS; d++) {
		unsigned links = 2;

		for (unsigned i = 0; i < NAMES; i++) {
			int k = names[d][i];

			if (!k)
				continue;
			links += nodes[k].type == FS_DIR;
			sum += name_state(d, i, (unsigned)k, nodes[k].type, nodes[k].links, nodes[k].attr);
		}
		sum += dir_state(d, links);
	}
	return sum;
}

static uint32_t name_of(unsigned i, char *buf)
{
	return (uint32_t)sprintf(buf, "%04u-a-name-that-is-long-enough-to-fill-folders-%u", i, i * 7919 % 1000);
}

static void target_of(unsigned node, char *buf)
{
	/* Begins as a block of the journal does. */
	memcpy(buf, "\xc0\x3b\x39\x98", 4);
	for (unsigned i = 4; i < 120; i++)
		buf[i] = (char)('a' + (node + i) % 26);
}

#define ATTR_NAME "user.crash"
enum { ATTR_MAX = 800 };

/* The value that operation @op gives: some fit into an inode, some need a block, some do that together with others. */
static uint32_t value_of(unsigned node, unsigned op, uint8_t *buf)
{
	uint32_t len = op % 3 ? 8 + op % 50 : 100 + op * 7 % (ATTR_MAX - 100);

	memcpy(buf, &op, 4);
	for (uint32_t i = 4; i < len; i++)
		buf[i] = (uint8_t)(node + op + i);
	return len;
}

/* ---- doing ----------------------------------------------------------------------------------------------------------------------- */

static const struct fs_ops *fops;

static bool tolerant, stopped;

/* With faults an operation may fail: it is the last one then, and may have happened or not. */
static void done(int err, const char *what)
{
	stopped |= err != 0;
	if (err && !tolerant)
		crash_die("operation %u, %s: %s", nops, what, strerror(-err));
}

static int pick(unsigned d, bool used)
{
	unsigned at = crash_rnd(NAMES);

	for (unsigned i = 0; i < NAMES; i++)
		if (!names[d][(at + i) % NAMES] == !used)
			return (int)((at + i) % NAMES);
	return -1;
}

static struct node *pick_file(void)
{
	for (unsigned tries = 0; tries < 50; tries++) {
		unsigned d = crash_rnd(DIRS);
		int i = pick(d, true);

		if (i >= 0 && nodes[names[d][i]].type == FS_REG)
			return &nodes[names[d][i]];
	}
	return NULL;
}

static unsigned number(const struct node *k)
{
	return (unsigned)(k - nodes);
}

static void note(struct node *k, enum change what, uint64_t from, uint64_t end, uint64_t size)
{
	k->ch = reallocarray(k->ch, k->nch + 1, sizeof *k->ch);
	if (!k->ch)
		crash_die("no memory");
	k->ch[k->nch++] = (struct change_of){nops, what, from / SECTOR, (end + SECTOR - 1) / SECTOR, size};
	k->size = size;
}

static void do_create(enum fs_type type)
{
	unsigned d = crash_rnd(DIRS) % (type == FS_DIR ? 2 : DIRS), no = nnodes + 1;
	struct node *k = &nodes[no];
	char name[64], target[120];
	struct fs_create c = {.type = type, .set = {.mode = 0644, .uid = no, .gid = 1}};
	int i = pick(d, false);
	uint32_t len;

	if (i < 0 || no >= NODES)
		return;
	if (type == FS_LNK) {
		target_of(no, target);
		c.target = target;
		c.target_len = sizeof target;
	}
	len = name_of((unsigned)i, name);
	done(fops->create(dirs[d], name, len, &c, &k->n, NULL), "create");
	nnodes++;
	k->type = type;
	k->links = type == FS_DIR ? 2 : 1;
	names[d][i] = (int)no;
}

static void name_gone(struct node *k)
{
	k->links = k->type == FS_DIR ? 0 : k->links - 1;
	if (k->links)
		return;
	k->open = k->type == FS_REG && crash_rnd(2);
	if (!k->open) {
		fs_node_put(k->n);
		k->n = NULL;
	}
}

static void do_unlink(void)
{
	unsigned d = crash_rnd(DIRS);
	int i = pick(d, true);
	char name[64];

	if (i < 0)
		return;
	done(fops->unlink(dirs[d], name, name_of((unsigned)i, name), 0, NULL), "unlink");
	name_gone(&nodes[names[d][i]]);
	names[d][i] = 0;
}

static void do_rename(void)
{
	unsigned from = crash_rnd(DIRS), to = crash_rnd(DIRS);
	int i = pick(from, true), k = pick(to, crash_rnd(3) == 0), a, b;
	char name[64], other[64];
	uint32_t len;

	if (i < 0 || k < 0)
		return;
	a = names[from][i];
	b = names[to][k];
	if (a == b || (b && (nodes[a].type == FS_DIR) != (nodes[b].type == FS_DIR)))
		return;
	len = name_of((unsigned)i, name);
	done(fops->rename(dirs[from], name, len, dirs[to], other, name_of((unsigned)k, other), NULL, NULL), "rename");
	names[from][i] = 0;
	names[to][k] = a;
	if (b)
		name_gone(&nodes[b]);
}

static void do_link(void)
{
	struct node *k = pick_file();
	unsigned d = crash_rnd(DIRS);
	int i = pick(d, false);
	char name[64];

	if (!k || i < 0)
		return;
	done(fops->link(k->n, dirs[d], name, name_of((unsigned)i, name), NULL), "link");
	names[d][i] = (int)number(k);
	k->links++;
}

static void write_at(struct node *k, uint64_t off, uint32_t len)
{
	uint64_t *b = malloc(len);
	struct iovec iov = {b, len};

	if (!b)
		crash_die("no memory");
	for (uint32_t i = 0; i < len / 8; i++)
		b[i] = (uint64_t)number(k) << 32 | (nops + 1);
	note(k, CH_WRITE, off, off + len, max_u64(k->size, off + len));
	done(fops->write(k->n, off, &iov, 1, len, 0), "write");
	free(b);
}

static void do_write(void)
{
	struct node *k = pick_file();
	uint64_t off;

	if (!k)
		return;
	off = crash_rnd(3) ? k->size / SECTOR * SECTOR : (uint64_t)crash_rnd(200) * SECTOR;
	if (off > 300000)
		off = crash_rnd(500) * SECTOR;
	write_at(k, off, (1 + crash_rnd(crash_rnd(3) ? 8 : 64)) * SECTOR);
}

/* Many extents: every other block. */
static void do_scatter(void)
{
	struct node *k = pick_file();
	uint64_t at = crash_rnd(400);

	for (unsigned i = 0; k && i < 60; i++)
		write_at(k, (at + 2 * i) * 1024, 1024);
}

static void do_truncate(void)
{
	struct node *k = pick_file();
	struct fs_setattr s = {.what = FS_SET_SIZE};

	if (!k)
		return;
	s.size = crash_rnd(3) ? crash_rnd((uint32_t)(k->size / SECTOR) + 1) * SECTOR : k->size + crash_rnd(40) * SECTOR;
	note(k, CH_CUT, s.size, UINT64_C(1) << 40, s.size);
	done(fops->setattr(k->n, &s, NULL), "truncate");
}

static void do_punch(void)
{
	struct node *k = pick_file();
	uint64_t off, len;

	if (!k || !k->size)
		return;
	off = crash_rnd((uint32_t)(k->size / SECTOR)) * SECTOR;
	len = (1 + crash_rnd(100)) * SECTOR;
	note(k, CH_HOLE, off, min_u64(off + len, k->size), k->size);
	done(fops->punch(k->n, off, len), "punch");
}

static void do_reserve(void)
{
	struct node *k = pick_file();

	if (!k)
		return;
	note(k, CH_HOLE, k->size, k->size, k->size + 20 * BLOCK);
	done(fops->alloc(k->n, k->size - 20 * BLOCK, 20 * BLOCK), "allocate");
}

static void do_attr(void)
{
	struct node *k = pick_file();
	bool away = k && k->attr && crash_rnd(3) == 0;
	uint8_t value[ATTR_MAX];
	uint32_t len;

	if (!k)
		return;
	len = value_of(number(k), nops, value);
	done(fops->setxattr(k->n, ATTR_NAME, away ? NULL : value, len), "set an attribute");
	k->attr = away ? 0 : nops;
}

static void do_drop(void)
{
	for (unsigned i = 1; i <= nnodes; i++)
		if (nodes[i].open && crash_rnd(2)) {
			fs_node_put(nodes[i].n);
			nodes[i].n = NULL;
			nodes[i].open = false;
		}
}

static void do_sync(struct fs *fs)
{
	struct node *k = crash_rnd(3) ? pick_file() : NULL;

	if (!k) {
		done(fops->sync(fs), "sync");
		ops[nops].sync = !stopped;
		return;
	}
	done(fops->commit(k->n, 0, 0), "commit");
	if (stopped)
		return;
	k->commits = reallocarray(k->commits, k->ncommits + 1, sizeof *k->commits);
	if (!k->commits)
		crash_die("no memory");
	k->commits[k->ncommits++] = (struct commit_of){nops, crash_now()};
}

static void do_file(void)
{
	do_create(FS_REG);
}

static void do_mkdir(void)
{
	do_create(FS_DIR);
}

static void do_symlink(void)
{
	do_create(FS_LNK);
}

static void do_one(const struct workload *w, struct fs *fs)
{
	static void (*const todo[WHATS])(void) = {
		[CREATE] = do_file, [UNLINK] = do_unlink,   [RENAME] = do_rename,   [LINK] = do_link,
		[MKDIR] = do_mkdir, [SYMLINK] = do_symlink, [WRITE] = do_write,     [TRUNCATE] = do_truncate,
		[PUNCH] = do_punch, [RESERVE] = do_reserve, [SCATTER] = do_scatter, [DROP] = do_drop,
		[ATTR] = do_attr,
	};
	unsigned sum = 0, at, i = 0;

	if (crash_rnd(w->sync) == 0) {
		do_sync(fs);
		return;
	}
	for (unsigned k = 0; k < WHATS; k++)
		sum += w->weight[k];
	for (at = crash_rnd(sum); at >= w->weight[i]; i++)
		at -= w->weight[i];
	todo[i]();
}

/* ---- what is left -------------------------------------------------------------------------------------------------------------- */

struct walk {
	struct crash_fs *c;
	unsigned promised, issued; /* operations */
	unsigned cut;
	uint64_t state;
	unsigned d, links;
	struct {
		unsigned name, ino;
	} found[NAMES + 8];
	unsigned nfound;
};

#define BROKEN(w, ...)                                                                                                 \
	do {                                                                                                           \
		if (!(w)->c->problem[0])                                                                               \
			snprintf((w)->c->problem, sizeof(w)->c->problem, __VA_ARGS__);                                 \
	} while (0)

static bool emit(void *arg, const struct fs_dirent *d)
{
	struct walk *w = arg;
	char want[64];
	unsigned i = (unsigned)atoi(d->name);

	if (i >= NAMES || name_of(i, want) != d->len || memcmp(want, d->name, d->len) || w->nfound >= NAMES) {
		BROKEN(w, "folder %u has a name that nobody gave: %.*s", w->d, (int)d->len, d->name);
		return false;
	}
	w->found[w->nfound].name = i;
	w->nfound++;
	return true;
}

/* What a sector may hold after the operations that are promised, and those that had begun. */
static bool may_hold(const struct node *k, const struct walk *w, unsigned promised, uint64_t sector, uint64_t value)
{
	uint64_t least = 0;
	bool ok;

	for (unsigned i = 0; i < k->nch && k->ch[i].op <= promised; i++)
		if (sector >= k->ch[i].from && sector < k->ch[i].end)
			least = k->ch[i].what == CH_WRITE ? (uint64_t)number(k) << 32 | (k->ch[i].op + 1) : 0;
	ok = value == least;
	for (unsigned i = 0; !ok && i < k->nch; i++)
		if (k->ch[i].op > promised && k->ch[i].op <= w->issued && sector >= k->ch[i].from &&
		    sector < k->ch[i].end)
			ok = value == (k->ch[i].what == CH_WRITE ? (uint64_t)number(k) << 32 | (k->ch[i].op + 1) : 0);
	return ok;
}

/* A piece of a file, from @off on; how much, 0 when that failed. */
static uint32_t read_piece(struct crash_fs *c, const struct node *k, struct fs_node *n, uint64_t off, uint8_t *buf,
			   uint32_t cap)
{
	struct cache_seg seg[300];
	bool eof;
	int got = fops->read(n, off, cap, 0, seg, 300, &eof);
	uint32_t len = 0;

	if (got <= 0)
		snprintf(c->problem, sizeof c->problem, "node %u: reading at %llu: %s", number(k),
			 (unsigned long long)off, strerror(-got));
	for (int i = 0; i < got; len += seg[i++].len)
		memcpy(buf + len, seg[i].base, seg[i].len);
	if (got > 0)
		cache_unpin(seg, (unsigned)got);
	return len;
}

static void check_content(struct walk *w, const struct node *k, unsigned promised, uint64_t size, struct fs_node *n)
{
	static uint8_t buf[64 << 10];

	for (uint64_t off = 0; off < size && !w->c->problem[0];) {
		uint32_t len = read_piece(w->c, k, n, off, buf, sizeof buf);

		for (uint32_t at = 0; at + SECTOR <= len; at += SECTOR) {
			uint64_t v, other;

			memcpy(&v, buf + at, 8);
			memcpy(&other, buf + at + SECTOR - 8, 8);
			if (v != other || !may_hold(k, w, promised, (off + at) / SECTOR, v))
				BROKEN(w,
				       "node %u: sector %llu holds operation %u of node %u, promised was up to "
				       "operation %u",
				       number(k), (unsigned long long)(off + at) / SECTOR, (unsigned)v - 1,
				       (unsigned)(v >> 32), promised);
		}
		off += len;
	}
}

/* Bytes [from, to) of a file that grew from @from. */
static void check_growth(struct crash_fs *c, const struct node *k, struct fs_node *n, uint64_t from, uint64_t to)
{
	static uint8_t buf[64 << 10];

	while (from < to && !c->problem[0]) {
		uint32_t len = read_piece(c, k, n, from, buf, (uint32_t)min_u64(sizeof buf, to - from));

		for (uint32_t i = 0; i < len && !c->problem[0]; i++)
			if (buf[i])
				snprintf(c->problem, sizeof c->problem,
					 "node %u: it grew, and byte %llu behind its old end is %u", number(k),
					 (unsigned long long)from + i, buf[i]);
		from += len;
	}
}

static void check_file(struct walk *w, const struct node *k, const struct fs_attr *a, struct fs_node *n)
{
	uint64_t least = 0, size = a->size, min, max;
	unsigned promised = w->promised;

	if (k->to && size == k->to) {
		size = k->from;
		check_growth(w->c, k, n, k->from, k->to);
	}
	for (unsigned i = 0; i < k->ncommits; i++)
		if (k->commits[i].at < w->cut && k->commits[i].op > promised)
			promised = k->commits[i].op;
	for (unsigned i = 0; i < k->nch && k->ch[i].op <= promised; i++)
		least = k->ch[i].size;
	min = max = least;
	for (unsigned i = 0; i < k->nch; i++)
		if (k->ch[i].op > promised && k->ch[i].op <= w->issued) {
			min = min_u64(min, k->ch[i].size);
			max = max_u64(max, k->ch[i].size);
		}
	if (size < min || size > max)
		BROKEN(w, "node %u has %llu bytes, expected %llu … %llu", number(k), (unsigned long long)size,
		       (unsigned long long)min, (unsigned long long)max);
	check_content(w, k, promised, size, n);
}

/* The operation that gave the attribute; 0: there is none. */
static unsigned check_attr(struct walk *w, struct fs_node *n, unsigned node)
{
	uint8_t buf[ATTR_MAX], want[ATTR_MAX];
	int got = fops->getxattr(n, ATTR_NAME, buf, sizeof buf, 0);
	unsigned op = 0;

	if (got == -ENODATA)
		return 0;
	if (got >= 4)
		memcpy(&op, buf, 4);
	if (got < 4 || (int)value_of(node, op, want) != got || memcmp(buf, want, (size_t)got))
		BROKEN(w, "node %u: its attribute (%d) is of no operation", node, got);
	return op;
}

static void check_entry(struct walk *w, struct fs_node *dir, unsigned name)
{
	struct fs_node *n;
	struct fs_attr a;
	char buf[64], target[4096], want[120];
	int err = fops->lookup(dir, buf, name_of(name, buf), 0, &n);

	if (!err)
		err = fops->getattr(n, 0, &a);
	if (err) {
		BROKEN(w, "folder %u, name %u: %s", w->d, name, strerror(-err));
		return;
	}
	if (a.uid == 0 || a.uid > nnodes) {
		BROKEN(w, "folder %u, name %u belongs to %u", w->d, name, a.uid);
	} else {
		w->state += name_state(w->d, name, a.uid, a.type, a.nlink, check_attr(w, n, a.uid));
		w->links += a.type == FS_DIR;
		if (a.type == FS_REG)
			check_file(w, &nodes[a.uid], &a, n);
		if (a.type == FS_LNK) {
			target_of(a.uid, want);
			if (fops->readlink(n, 0, target, sizeof target) != sizeof want ||
			    memcmp(target, want, sizeof want))
				BROKEN(w, "node %u: not the target that it was given", a.uid);
		}
	}
	fs_node_put(n);
}

static void check_dir(struct walk *w, struct fs *fs)
{
	struct fs_node *dir;
	struct fs_attr a;
	char name[16];
	bool eof = false;
	int err = fops->lookup(fs->root, name, (uint32_t)sprintf(name, "d%u", w->d), 0, &dir);

	if (err) {
		BROKEN(w, "folder %u: %s", w->d, strerror(-err));
		return;
	}
	w->nfound = 0;
	w->links = 2;
	err = fops->readdir(dir, 0, 0, emit, w, &eof);
	if (err || !eof)
		BROKEN(w, "folder %u cannot be listed: %s", w->d, strerror(-err));
	for (unsigned i = 0; i < w->nfound; i++)
		check_entry(w, dir, w->found[i].name);
	err = fops->getattr(dir, 0, &a);
	if (err || a.nlink != w->links)
		BROKEN(w, "folder %u has %u links, and %u folders in it", w->d, a.nlink, w->links - 2);
	w->state += dir_state(w->d, a.nlink);
	fs_node_put(dir);
}

struct lister {
	struct fs_node *dir;
	unsigned no;
	struct {
		char name[64];
		uint32_t len;
	} found[NAMES + 8];
	unsigned n;
};

static bool list_one(void *arg, const struct fs_dirent *d)
{
	struct lister *l = arg;

	if (l->n == NAMES + 8 || d->len >= sizeof l->found[0].name)
		return false;
	memcpy(l->found[l->n].name, d->name, d->len);
	l->found[l->n++].len = d->len;
	return true;
}

void model_list(struct fs *fs, FILE *to)
{
	static const char type[] = {[FS_REG] = 'f', [FS_DIR] = 'd', [FS_LNK] = 'l'};
	struct lister l;

	for (l.no = 0; l.no < DIRS; l.no++) {
		char name[16];
		bool eof;

		l.n = 0;
		if (fs->ops->lookup(fs->root, name, (uint32_t)sprintf(name, "d%u", l.no), 0, &l.dir))
			continue;
		fs->ops->readdir(l.dir, 0, 0, list_one, &l, &eof);
		for (unsigned i = 0; i < l.n; i++) {
			struct fs_node *n;
			struct fs_attr a;
			int attr;

			if (fs->ops->lookup(l.dir, l.found[i].name, l.found[i].len, 0, &n))
				continue;
			fs->ops->getattr(n, 0, &a);
			attr = fs->ops->getxattr(n, ATTR_NAME, NULL, 0, 0);
			fprintf(to, "d%u %.*s %c %u %u %llu %d\n", l.no, (int)l.found[i].len, l.found[i].name,
				type[a.type], a.nlink, a.uid, (unsigned long long)a.size, attr < 0 ? -1 : attr);
			fs_node_put(n);
		}
		fs_node_put(l.dir);
	}
}

/* ---- growing what was recovered ------------------------------------------------------------------------------------------------ */

/* Longer by less than three blocks, most of it inside the last one, with nothing but zeros. */
static int grow_file(struct fs_node *n, uint64_t size, uint64_t *to)
{
	static uint8_t zeros[SECTOR];
	uint32_t by = 1 + crash_rnd(crash_rnd(3) ? BLOCK / 2 : 3 * BLOCK), len = by < SECTOR ? by : SECTOR;
	struct fs_setattr s = {.what = FS_SET_SIZE, .size = size + by};
	struct iovec iov = {zeros, len};

	*to = size + by;
	switch (crash_rnd(4)) {
	case 0: /* right behind what is there */
		*to = size + len;
		return fops->write(n, size, &iov, 1, len, 0);
	case 1: /* further on */
		return fops->write(n, size + by - len, &iov, 1, len, 0);
	case 2:
		return fops->alloc(n, size, by);
	default:
		return fops->setattr(n, &s, NULL);
	}
}

static unsigned grow_round;

static void grow_one(struct crash_fs *c, struct fs_node *dir, const char *name, uint32_t len)
{
	struct fs_node *n;
	struct node *k;
	struct fs_attr a;
	uint64_t to;
	int err;

	if (c->problem[0] || fops->lookup(dir, name, len, 0, &n))
		return;
	if (!fops->getattr(n, 0, &a) && a.type == FS_REG && a.uid && a.uid <= nnodes &&
	    nodes[a.uid].round != grow_round) {
		k = &nodes[a.uid];
		k->round = grow_round;
		err = grow_file(n, a.size, &to);
		if (err && err != -ENOSPC)
			snprintf(c->problem, sizeof c->problem, "node %u: it cannot grow: %s", a.uid, strerror(-err));
		if (!err) {
			/* It may have grown before the last cut, too. */
			k->from = k->to && k->to == a.size ? k->from : a.size;
			k->to = to;
			check_growth(c, k, n, k->from, to);
		}
	}
	fs_node_put(n);
}

struct stable {
	struct fs_waiter w;
	struct lock mu;
	struct cond cond;
	bool is;
};

static void is_stable(struct fs_waiter *w, int err)
{
	struct stable *s = container_of(w, struct stable, w);

	(void)err;
	lock_take(&s->mu);
	s->is = true;
	cond_signal(&s->cond);
	lock_drop(&s->mu);
}

/* Until the last operation is on the disk: its metadata, and what that waits for. Other data stays in memory, and may be cut off. */
static void settle(struct fs *fs)
{
	struct stable s = {.w = {.done = is_stable}};
	uint64_t change = fops->changed(fs);

	if (!change)
		return;
	lock_init(&s.mu);
	cond_init(&s.cond);
	if (fops->when_stable(fs, change, &s.w) == 0) {
		lock_take(&s.mu);
		while (!s.is)
			cond_wait(&s.cond, &s.mu);
		lock_drop(&s.mu);
	}
	cond_fini(&s.cond);
	lock_fini(&s.mu);
}

void model_not_grown(void)
{
	for (unsigned i = 1; i <= nnodes; i++)
		nodes[i].to = 0;
}

void model_grow(struct crash_fs *c, bool stable)
{
	struct lister l;

	fops = c->fs->ops;
	grow_round++;
	for (l.no = 0; l.no < DIRS; l.no++) {
		char name[16];
		bool eof;

		l.n = 0;
		if (fops->lookup(c->fs->root, name, (uint32_t)sprintf(name, "d%u", l.no), 0, &l.dir))
			continue;
		fops->readdir(l.dir, 0, 0, list_one, &l, &eof);
		for (unsigned i = 0; i < l.n; i++)
			grow_one(c, l.dir, l.found[i].name, l.found[i].len);
		if (stable)
			settle(c->fs);
		fs_node_put(l.dir);
	}
}

void model_check(struct crash_fs *c, unsigned cut)
{
	struct walk w = {.c = c, .cut = cut};
	unsigned names_promised = 0, i;

	fops = c->fs->ops;
	if (ops[0].after >= cut)
		return; /* not even the folders */
	for (i = 0; i < nops && ops[i].before < cut; i++) {
		w.issued = i;
		if (ops[i].after < cut && ops[i].sync)
			w.promised = names_promised = i;
	}
	for (w.d = 0; w.d < DIRS && !c->problem[0]; w.d++)
		check_dir(&w, c->fs);
	if (c->problem[0])
		return;
	for (i = names_promised; i <= w.issued; i++)
		if (ops[i].state == w.state)
			return;
	BROKEN(&w, "the names are those of no operation from %u, the last that was promised, to %u", names_promised,
	       w.issued);
}

void model_none(void)
{
	memset(nodes, 0, sizeof nodes);
	memset(ops, 0, sizeof ops);
	ops[0].after = UINT32_MAX;
	nnodes = nops = 0;
}

void model_run(const struct workload *w, struct crash_fs *c, bool faults)
{
	struct fs_create mk = {.type = FS_DIR, .set = {.mode = 0755}};

	for (unsigned i = 0; i <= nnodes; i++) {
		free(nodes[i].ch);
		free(nodes[i].commits);
	}
	memset(nodes, 0, sizeof nodes);
	memset(names, 0, sizeof names);
	memset(dirs, 0, sizeof dirs);
	memset(ops, 0, sizeof ops);
	nnodes = nops = 0;
	stopped = false;
	tolerant = faults;
	fops = c->fs->ops;
	for (unsigned d = 0; d < DIRS && !stopped; d++) {
		char name[16];

		mk.set.uid = 100000 + d;
		done(fops->create(c->fs->root, name, (uint32_t)sprintf(name, "d%u", d), &mk, &dirs[d], NULL), "mkdir");
	}
	if (!stopped)
		done(fops->sync(c->fs), "sync");
	ops[0] = (struct op){.after = stopped ? UINT32_MAX : crash_now(), .state = all_names(), .sync = true};
	for (nops = 1; nops < w->ops && !stopped; nops++) {
		ops[nops].before = crash_now();
		do_one(w, c->fs);
		ops[nops].after = crash_now();
		ops[nops].state = all_names();
	}
	for (unsigned i = 1; i <= nnodes; i++)
		fs_node_put(nodes[i].n);
	for (unsigned d = 0; d < DIRS; d++)
		fs_node_put(dirs[d]);
}
