/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_promises.c - what ext4 has promised is on the disk, whatever others do at that moment
 *
 * tests/crash cuts the power while one thread works. Here several are at it, and a hook below everything holds one of them where it
 * matters, or fails a call. The power cut is a copy of the host file, as it is then.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "ext4_image.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/lock.h"
#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"
#include "vhd/io/hio.h"

/* ---- the host ---------------------------------------------------------------------------------------------------------------- */

static struct {
	struct lock mu;
	struct cond cond;
	bool closed[HIO_EV_PUNCH + 1]; /* these calls wait */
	unsigned waiting;
	enum hio_event bad;
	uint64_t bad_from, bad_end; /* the next such call in there fails */
} host;

static int on_host(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	int err = 0;

	(void)arg;
	(void)iov;
	(void)niov;
	lock_take(&host.mu);
	host.waiting += host.closed[ev];
	cond_broadcast(&host.cond);
	for (bool waits = host.closed[ev]; waits; host.waiting -= !waits) {
		cond_wait(&host.cond, &host.mu);
		waits = host.closed[ev];
	}
	if (ev == host.bad && off < host.bad_end && off + len > host.bad_from) {
		host.bad_end = 0;
		err = -EIO;
	}
	lock_drop(&host.mu);
	return err;
}

static void gate(enum hio_event ev, bool closed)
{
	lock_take(&host.mu);
	host.closed[ev] = closed;
	cond_broadcast(&host.cond);
	lock_drop(&host.mu);
}

/* Until somebody stands at the gate. */
static void await(void)
{
	lock_take(&host.mu);
	while (!host.waiting)
		cond_wait(&host.cond, &host.mu);
	lock_drop(&host.mu);
}

static void host_fails(enum hio_event ev, uint64_t off, uint64_t len)
{
	lock_take(&host.mu);
	host.bad = ev;
	host.bad_from = off;
	host.bad_end = off + len;
	lock_drop(&host.mu);
}

static bool host_will_fail(void)
{
	bool will;

	lock_take(&host.mu);
	will = host.bad_end;
	lock_drop(&host.mu);
	return will;
}

/* ---- a file system ------------------------------------------------------------------------------------------------------------- */

static struct img img;

/* @cache: MiB. */
static void start(unsigned mib, unsigned cache, const char *mkfs)
{
	lock_init(&host.mu);
	cond_init(&host.cond);
	img_make(&img, mib, mkfs);
	hio_set_default_hook(on_host, NULL);
	img_mount_with(&img, cache << 20);
	must(!img.fs->read_only);
	/* Nothing goes to the disk but what has to. */
	cache_set_age(img.cache, 1u << 30);
}

/* The file as it is now. */
static void cut(struct img *at)
{
	memset(at, 0, sizeof *at);
	snprintf(at->dir, sizeof at->dir, "%.48s-XXXXXX", img.dir);
	must(mkdtemp(at->dir));
	snprintf(at->path, sizeof at->path, "%s/disk.vhd", at->dir);
	must_eq(shell("cp --sparse=always %s %s", img.path, at->path), 0);
}

/* What was cut off is opened again. */
static void again(struct img *at)
{
	hio_set_default_hook(NULL, NULL);
	img_mount(at);
	must(!at->fs->read_only);
}

static void stop(void)
{
	hio_set_default_hook(NULL, NULL);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}

static struct fs_node *make(const char *name, enum fs_type type)
{
	const struct fs_create c = {.type = type, .set = {.mode = 0755}};
	struct fs_cinfo ci;
	struct fs_node *n;

	must_eq(img.fs->ops->create(img.fs->root, name, (uint32_t)strlen(name), &c, &n, &ci), 0);
	return n;
}

static struct fs_node *find(struct img *m, const char *name)
{
	struct fs_node *n;

	must_eq(m->fs->ops->lookup(m->fs->root, name, (uint32_t)strlen(name), 0, &n), 0);
	return n;
}

static void put(struct fs_node *n, uint64_t off, uint32_t len, int byte)
{
	AUTO(freep) void *p = malloc(len);
	struct iovec iov = {p, len};

	must(p);
	memset(p, byte, len);
	must_eq(n->fs->ops->write(n, off, &iov, 1, len, 0), 0);
}

/* Is the range full of that byte? */
static bool holds(struct fs_node *n, uint64_t off, uint32_t len, int byte)
{
	struct cache_seg seg[64];
	uint32_t got = 0;
	bool eof, same = true;
	int k = n->fs->ops->read(n, off, len, 0, seg, ARRAY_LEN(seg), &eof);

	must(k >= 0);
	for (int i = 0; i < k; i++)
		for (uint32_t b = 0; b < seg[i].len; b++, got++)
			same &= seg[i].base[b] == byte;
	cache_unpin(seg, (unsigned)k);
	return same && got == len;
}

static int chmod_to(struct fs_node *n, uint32_t mode)
{
	const struct fs_setattr s = {.what = FS_SET_MODE, .mode = mode};

	return n->fs->ops->setattr(n, &s, NULL);
}

static int cut_to(struct fs_node *n, uint64_t size)
{
	const struct fs_setattr s = {.what = FS_SET_SIZE, .size = size};

	return n->fs->ops->setattr(n, &s, NULL);
}

/* ---- data beside those who cut the file ---------------------------------------------------------------------------------------- */

enum { PIECES = 80 };

struct told {
	struct fs_waiter w;
	struct img at; /* what the disk holds when it is told */
	struct lock mu;
	struct cond cond;
	bool done;
	int err;
};

static void tell(struct fs_waiter *w, int err)
{
	struct told *t = container_of(w, struct told, w);

	cut(&t->at);
	lock_take(&t->mu);
	t->done = true;
	t->err = err;
	cond_broadcast(&t->cond);
	lock_drop(&t->mu);
}

static void told_init(struct told *t)
{
	memset(t, 0, sizeof *t);
	t->w.done = tell;
	lock_init(&t->mu);
	cond_init(&t->cond);
}

static void told_wait(struct told *t)
{
	lock_take(&t->mu);
	while (!t->done)
		cond_wait(&t->cond, &t->mu);
	lock_drop(&t->mu);
	must_eq(t->err, 0);
}

/* A stable write is answered when its transaction is on the disk; whoever cuts the file meanwhile is in the next one. */
START_TEST(a_stable_write_is_there_though_the_file_is_being_cut)
{
	struct told t;
	struct fs_node *n;
	uint64_t change;

	told_init(&t);
	start(64, 64, "-t ext4 -b 4096");
	n = make("a", FS_REG);
	/* Downwards, so that they do not lie together: more than are written at a time. */
	for (unsigned i = PIECES; i--;)
		put(n, (uint64_t)i * 8192, 4096, 'a');
	must_eq(img.fs->ops->order(n, 0, 4096, 0, &change), 0);
	gate(HIO_EV_WRITE, true);
	must_eq(img.fs->ops->when_stable(img.fs, change, &t.w), 0);
	await();
	must_eq(cut_to(n, 0), 0);
	gate(HIO_EV_WRITE, false);
	told_wait(&t);
	fs_node_put(n);
	stop();
	again(&t.at);
	n = find(&t.at, "a");
	for (unsigned i = 0; i < PIECES; i++)
		must(holds(n, (uint64_t)i * 8192, 4096, 'a'));
	fs_node_put(n);
	img_free(&t.at);
}
END_TEST

/* ---- the log is emptied while a directory is being freed -------------------------------------------------------------------------- */

static uint32_t log_used(void)
{
	struct ext4_journal *j = ext4_fs_of(img.fs)->journal;
	uint32_t used;

	lock_take(&j->write_mu);
	used = j->used;
	lock_drop(&j->write_mu);
	return used;
}

/* Blocks wait for the running transaction. */
static bool is_freeing(void)
{
	struct ext4_fs *fs = ext4_fs_of(img.fs);
	bool any;

	lock_take(&fs->mu);
	any = fs->journal->running->freed.n;
	lock_drop(&fs->mu);
	return any;
}

START_TEST(a_directory_that_is_not_gone_yet_survives_a_checkpoint)
{
	struct ext4_fs *fs;
	struct fs_cinfo ci;
	struct fs_node *n;
	struct img at;
	struct told t;
	char name[16];

	told_init(&t);
	start(64, 64, "-t ext4 -b 4096 -J size=4");
	fs = ext4_fs_of(img.fs);
	n = make("file", FS_REG);
	fs_node_put(make("dir", FS_DIR));
	must_eq(ext4_journal_sync(fs), 0);
	for (uint32_t i = 0, half = (fs->journal->end - fs->journal->first) / 2; log_used() + 12 < half; i++) {
		must_eq(chmod_to(n, i & 0777), 0);
		must_eq(ext4_journal_sync(fs), 0);
	}
	/* The next transaction makes it more than half full, and stands at the gate. */
	for (unsigned i = 0; i < 16; i++) {
		snprintf(name, sizeof name, "d%u", i);
		fs_node_put(make(name, FS_DIR));
	}
	gate(HIO_EV_WRITE, true);
	must_eq(img.fs->ops->when_stable(img.fs, img.fs->ops->changed(img.fs), &t.w), 0);
	await();
	must_eq(img.fs->ops->unlink(img.fs->root, "dir", 3, 0, &ci), 0);
	while (!is_freeing())
		sched_yield();
	gate(HIO_EV_WRITE, false);
	told_wait(&t);
	must_eq(log_used(), 0);
	cut(&at);
	fs_node_put(n);
	stop();
	img_free(&t.at);
	again(&at);
	n = find(&at, "dir");
	must_eq(at.fs->ops->lookup(n, "x", 1, 0, &(struct fs_node *){NULL}), -ENOENT);
	fs_node_put(n);
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
}
END_TEST

/* ---- standing still ------------------------------------------------------------------------------------------------------------- */

START_TEST(who_copies_a_frozen_file_system_finds_it_clean)
{
	struct fs_node *n;
	struct fs_attr a;
	struct img at;

	start(64, 64, "-t ext4 -b 4096");
	n = make("file", FS_REG);
	put(n, 0, 4096, 'x');
	must_eq(img.fs->ops->commit(n, 0, 0), 0);
	must_eq(img.fs->ops->freeze(img.fs), 0);
	cut(&at);
	img.fs->ops->thaw(img.fs);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; ! dumpe2fs -h %s 2>&1 | grep needs_recovery", at.path), 0);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
	/* And from then on it is in use again. */
	must_eq(chmod_to(n, 0600), 0);
	must_eq(ext4_journal_sync(ext4_fs_of(img.fs)), 0);
	cut(&at);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; dumpe2fs -h %s 2>&1 | grep needs_recovery", at.path), 0);
	fs_node_put(n);
	stop();
	again(&at);
	n = find(&at, "file");
	must_eq(at.fs->ops->getattr(n, 0, &a), 0);
	must_eq(a.mode, 0600);
	fs_node_put(n);
	img_free(&at);
}
END_TEST

static void *freezer(void *arg)
{
	*(int *)arg = img.fs->ops->freeze(img.fs);
	if (!*(int *)arg)
		img.fs->ops->thaw(img.fs);
	return NULL;
}

START_TEST(what_follows_a_snapshot_that_failed_is_found_after_a_crash)
{
	struct fs_node *n;
	struct img at;
	struct fs_attr a;
	pthread_t th;
	int err, frozen;
	blk64_t table;

	start(64, 64, "-t ext4 -b 4096");
	n = make("file", FS_REG);
	must_eq(ext4_journal_sync(ext4_fs_of(img.fs)), 0);
	/* While it goes to the disk what there is, something is changed; and that cannot be written home. */
	gate(HIO_EV_FLUSH, true);
	must_eq(pthread_create(&th, NULL, freezer, &frozen), 0);
	await();
	must_eq(chmod_to(n, 0604), 0);
	table = ext2fs_inode_table_loc(ext4_fs_of(img.fs)->e2, 0);
	host_fails(HIO_EV_WRITE, table * 4096, 4096);
	gate(HIO_EV_FLUSH, false);
	pthread_join(th, NULL);
	must_eq(frozen, -EIO);
	err = chmod_to(n, 0600);
	if (!err)
		err = ext4_journal_sync(ext4_fs_of(img.fs));
	cut(&at);
	fs_node_put(n);
	stop();
	again(&at);
	n = find(&at, "file");
	must_eq(at.fs->ops->getattr(n, 0, &a), 0);
	must(err || a.mode == 0600);
	fs_node_put(n);
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
}
END_TEST

/* ---- other ways to lose something ------------------------------------------------------------------------------------------------ */

enum { OTHERS = 33000 }; /* more than stay in memory without being used */

static bool in_memory(uint64_t ino)
{
	struct ext4_fs *fs = ext4_fs_of(img.fs);
	bool found = false;

	lock_take(&fs->table_mu);
	for (uint32_t i = 0; i <= fs->table_mask && !found; i++)
		for (struct ext4_node *n = fs->table[i]; n; n = n->hash_next)
			found |= n->n.ino == ino;
	lock_drop(&fs->table_mu);
	return found;
}

/* A file that left memory has dirty data there still. */
START_TEST(a_commit_finds_the_data_of_a_file_that_left_memory)
{
	struct fs_node *n;
	struct img at;
	uint64_t ino, change;
	uint32_t gen;
	char name[16];

	start(128, 64, "-t ext4 -b 4096 -N 40000");
	n = make("file", FS_REG);
	put(n, 0, 4096, 'a');
	must_eq(img.fs->ops->commit(n, 0, 0), 0);
	put(n, 0, 4096, 'b');
	ino = n->ino;
	gen = n->gen;
	fs_node_put(n);
	for (unsigned i = 0; i < OTHERS; i++) {
		snprintf(name, sizeof name, "f%u", i);
		fs_node_put(make(name, FS_REG));
	}
	/* The housekeeper stores it, and makes room when there are too many. */
	for (unsigned i = 0; i % 1024 || in_memory(ino); i = (i + 1) % OTHERS) {
		snprintf(name, sizeof name, "f%u", i);
		fs_node_put(find(&img, name));
	}
	must_eq(img.fs->ops->get(img.fs, ino, gen, 0, &n), 0);
	if (_i) {
		must_eq(img.fs->ops->order(n, 0, 4096, FS_NOWAIT, &change), -EAGAIN);
		must_eq(img.fs->ops->order(n, 0, 4096, 0, &change), 0);
		must_eq(ext4_journal_wait(ext4_fs_of(img.fs), change), 0);
	} else {
		must_eq(img.fs->ops->commit(n, 0, 0), 0);
	}
	cut(&at);
	fs_node_put(n);
	stop();
	again(&at);
	n = find(&at, "file");
	must(holds(n, 0, 4096, 'b'));
	fs_node_put(n);
	img_free(&at);
}
END_TEST

/* A block of numbers for each 256 of data, and as many again that the library takes and gives back. */
/* Each directory in a group of its own, and nobody waits for them: blocks all over the disk, and a cache of 64 frames. */
START_TEST(a_transaction_leaves_room_in_a_small_cache)
{
	start(2000, 4, "-t ext4 -b 4096 -g 4096");
	for (unsigned i = 0; i < 300; i++) {
		char name[16];

		snprintf(name, sizeof name, "d%u", i);
		fs_node_put(make(name, FS_DIR));
	}
	stop();
}
END_TEST

START_TEST(a_file_is_freed_whole_or_not_at_all)
{
	struct fs_node *n;
	struct fs_cinfo ci;
	uint64_t table;
	struct img at;
	char name[16];

	start(64, 64, "-t ext4 -b 4096");
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof name, "f%u", i);
		fs_node_put(make(name, FS_REG));
	}
	n = make("file", FS_REG);
	must_eq(img.fs->ops->unlink(img.fs->root, "file", 4, 0, &ci), 0);
	must_eq(img.fs->ops->sync(img.fs), 0);
	/* Its block of the inode table is home and leaves memory, and cannot be read again. */
	table = ext2fs_inode_table_loc(ext4_fs_of(img.fs)->e2, 0) * 4096 + (n->ino - 1) * 256 / 4096 * 4096;
	must_eq(chmod_to(img.fs->root, 0700), 0);
	must_eq(ext4_journal_sync(ext4_fs_of(img.fs)), 0);
	cache_discard(img.dev, table, 4096);
	host_fails(HIO_EV_READ, table, 4096);
	fs_node_put(n);
	while (host_will_fail())
		sched_yield();
	(void)img.fs->ops->sync(img.fs);
	cut(&at);
	hio_set_default_hook(NULL, NULL);
	(void)img.fs->ops->unmount(img.fs);
	(void)cache_detach(img.dev);
	cache_free(img.cache);
	must_eq(vhd_close(img.vhd), 0);
	img.fs = NULL;
	img_free(&img);
	again(&at);
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
}
END_TEST

/* Linux leaves the error that ended its journal there; e2fsck looks at the whole file system then. */
START_TEST(a_journal_that_ended_with_an_error_makes_it_read_only)
{
	const be32 error = be32_of(5);
	uint64_t at;
	int fd;

	start(64, 64, "-t ext4 -b 4096");
	at = ext4_fs_of(img.fs)->journal->place[0] * 4096 + offsetof(struct jbd2_super, error);
	img_unmount(&img);
	fd = open(img.path, O_WRONLY);
	must(fd >= 0);
	must_eq(pwrite(fd, &error, sizeof error, (off_t)at), sizeof error);
	close(fd);
	img_mount(&img);
	must(img.fs->read_only);
	img_unmount(&img);
	must_eq(shell("PATH=$PATH:/sbin:/usr/sbin; e2fsck -fy %s; [ $? -le 1 ]", img.path), 0);
	img_mount(&img);
	must(!img.fs->read_only);
	stop();
}
END_TEST

static void *trimmer(void *arg)
{
	ext4_trim_now(arg);
	return NULL;
}

static void *opener(void *arg)
{
	usleep(200000); /* it waits by then, most likely; if not, there is nothing to wait for */
	gate(HIO_EV_PUNCH, false);
	return arg;
}

START_TEST(space_that_is_being_given_back_to_the_host_is_there_for_who_needs_it)
{
	struct fs_mount_opts mo = {.discard = true};
	struct why why = {0};
	struct fs_node *n, *b;
	struct fs_cinfo ci;
	pthread_t th, op;
	struct iovec iov;
	static char buf[1 << 20];

	start(32, 64, "-t ext4 -b 4096 -m 0");
	must_eq(img.fs->ops->unmount(img.fs), 0);
	must_eq(ext4_driver.mount(img.dev, &mo, &img.fs, &why), 0);
	n = make("a", FS_REG);
	for (uint64_t off = 0; off < 8 << 20; off += sizeof buf)
		put(n, off, sizeof buf, 'a');
	must_eq(img.fs->ops->commit(n, 0, 0), 0);
	b = make("b", FS_REG);
	iov = (struct iovec){buf, 4096};
	for (uint64_t off = 0; !b->fs->ops->write(b, off, &iov, 1, 4096, 0); off += 4096)
		;
	must_eq(img.fs->ops->sync(img.fs), 0);
	must_eq(img.fs->ops->unlink(img.fs->root, "a", 1, 0, &ci), 0);
	fs_node_put(n);
	ext4_reap_now(ext4_fs_of(img.fs));
	gate(HIO_EV_PUNCH, true);
	must_eq(pthread_create(&th, NULL, trimmer, ext4_fs_of(img.fs)), 0);
	await();
	must_eq(pthread_create(&op, NULL, opener, NULL), 0);
	put(b, UINT64_C(1) << 30, 4 << 20, 'b');
	pthread_join(th, NULL);
	pthread_join(op, NULL);
	fs_node_put(b);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_promises");
	TCase *t = tcase_create("promises");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_stable_write_is_there_though_the_file_is_being_cut);
	tcase_add_test(t, a_directory_that_is_not_gone_yet_survives_a_checkpoint);
	tcase_add_test(t, who_copies_a_frozen_file_system_finds_it_clean);
	tcase_add_test(t, what_follows_a_snapshot_that_failed_is_found_after_a_crash);
	tcase_add_loop_test(t, a_commit_finds_the_data_of_a_file_that_left_memory, 0, 2);
	tcase_add_test(t, a_transaction_leaves_room_in_a_small_cache);
	tcase_add_test(t, a_file_is_freed_whole_or_not_at_all);
	tcase_add_test(t, a_journal_that_ended_with_an_error_makes_it_read_only);
	tcase_add_test(t, space_that_is_being_given_back_to_the_host_is_there_for_who_needs_it);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
