/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_host_full.c - the host has no room for what the file system writes, and later has it again
 *
 * A dynamic image grows while it is written, so the host can be full although the file system is not. Here a hook below everything
 * fails every write to the image, as a host that copies on write would. The power cut is a copy of the host file.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "ext4_image.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/lock.h"
#include "vhd/ext4/journal.h"
#include "vhd/io/hio.h"

#define MIB (1u << 20)

static struct img img;
static atomic_bool full, flush_fails;
static atomic_uint refused;

static int on_host(void *arg, enum hio_event ev, uint64_t off, uint64_t len, const struct iovec *iov, int niov)
{
	(void)arg;
	(void)off;
	(void)len;
	(void)iov;
	(void)niov;
	if (ev == HIO_EV_FLUSH)
		return atomic_load(&flush_fails) ? -ENOSPC : 0;
	if (ev == HIO_EV_READ || !atomic_load(&full))
		return 0;
	atomic_fetch_add(&refused, 1);
	return -ENOSPC;
}

static void start(unsigned mib, const char *mkfs)
{
	atomic_store(&full, false);
	atomic_store(&flush_fails, false);
	atomic_store(&refused, 0);
	img_make(&img, mib, mkfs);
	hio_set_default_hook(on_host, NULL);
	img_mount(&img);
	must(!img.fs->read_only);
}

static void stop(void)
{
	hio_set_default_hook(NULL, NULL);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
}

static int try_make(const char *name, struct fs_node **n)
{
	const struct fs_create c = {.type = FS_REG, .set = {.mode = 0644}};
	struct fs_cinfo ci;

	return img.fs->ops->create(img.fs->root, name, (uint32_t)strlen(name), &c, n, &ci);
}

static void make(const char *name)
{
	struct fs_node *n;

	must_eq(try_make(name, &n), 0);
	fs_node_put(n);
}

/* It has to succeed by itself; Check's time limit ends what does not. */
static void make_when_there_is_room(const char *name)
{
	struct fs_node *n;
	int err;

	while ((err = try_make(name, &n)) == -ENOSPC)
		usleep(10000);
	must_eq(err, 0);
	fs_node_put(n);
}

static bool has(struct img *m, const char *name)
{
	struct fs_node *n;
	int err = m->fs->ops->lookup(m->fs->root, name, (uint32_t)strlen(name), 0, &n);

	must(!err || err == -ENOENT);
	if (!err)
		fs_node_put(n);
	return !err;
}

static int put(struct fs_node *n, uint64_t off, uint32_t len, int byte)
{
	AUTO(freep) void *p = malloc(len);
	struct iovec iov = {p, len};

	must(p);
	memset(p, byte, len);
	return n->fs->ops->write(n, off, &iov, 1, len, 0);
}

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

/* As the power would leave it now. */
static void cut(struct img *at)
{
	memset(at, 0, sizeof *at);
	snprintf(at->dir, sizeof at->dir, "%.48s-XXXXXX", img.dir);
	must(mkdtemp(at->dir));
	snprintf(at->path, sizeof at->path, "%s/disk.vhd", at->dir);
	must_eq(shell("cp --sparse=always %s %s", img.path, at->path), 0);
}

/* ---- metadata ------------------------------------------------------------------------------------------------------------------ */

START_TEST(changes_go_on_when_the_host_has_room_again)
{
	struct fs_node *n;
	struct img at;

	start(32, "-t ext4");
	make("before");
	atomic_store(&full, true);
	make("waiting");
	must_eq(img.fs->ops->sync(img.fs), -ENOSPC);
	must_eq(try_make("refused", &n), -ENOSPC);
	must(has(&img, "before") && has(&img, "waiting") && !has(&img, "refused"));
	atomic_store(&full, false);
	make_when_there_is_room("after");
	must_eq(img.fs->ops->sync(img.fs), 0);
	hio_set_default_hook(NULL, NULL);
	cut(&at);
	img_mount(&at);
	must(has(&at, "before") && has(&at, "waiting") && has(&at, "after") && !has(&at, "refused"));
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
	stop();
}
END_TEST

struct told {
	struct fs_waiter w;
	atomic_int calls, err;
};

static void tell(struct fs_waiter *w, int err)
{
	struct told *t = container_of(w, struct told, w);

	atomic_store(&t->err, err);
	atomic_fetch_add(&t->calls, 1);
}

START_TEST(a_reply_that_waits_is_sent_when_the_host_has_room_again)
{
	struct told t = {.w.done = tell};
	uint64_t change;

	start(32, "-t ext4");
	must_eq(img.fs->ops->sync(img.fs), 0);
	atomic_store(&full, true);
	make("f");
	change = img.fs->ops->changed(img.fs);
	must_eq(img.fs->ops->when_stable(img.fs, change, &t.w), 0);
	must_eq(img.fs->ops->sync(img.fs), -ENOSPC);
	must_eq(atomic_load(&t.calls), 0);
	atomic_store(&full, false);
	while (!atomic_load(&t.calls))
		usleep(1000);
	must_eq(atomic_load(&t.err), 0);
	stop();
}
END_TEST

/* A server that stops does not wait for room. */
START_TEST(nobody_waits_for_room_when_the_server_stops)
{
	struct told t = {.w.done = tell}, later = {.w.done = tell};
	uint64_t change;

	start(32, "-t ext4");
	must_eq(img.fs->ops->sync(img.fs), 0);
	atomic_store(&full, true);
	make("f");
	change = img.fs->ops->changed(img.fs);
	must_eq(img.fs->ops->when_stable(img.fs, change, &t.w), 0);
	must_eq(img.fs->ops->sync(img.fs), -ENOSPC);
	must_eq(atomic_load(&t.calls), 0);
	img.fs->ops->hurry(img.fs);
	must_eq(atomic_load(&t.calls), 1);
	must_eq(atomic_load(&t.err), -ENOSPC);
	must_eq(img.fs->ops->when_stable(img.fs, change, &later.w), -ENOSPC);
	/* What was changed is not given up for that: there may be room at the end. */
	atomic_store(&full, false);
	stop();
}
END_TEST

/* ---- data ---------------------------------------------------------------------------------------------------------------------- */

START_TEST(data_for_which_there_was_no_room_is_committed_later)
{
	struct fs_node *n;
	struct img at;

	start(64, "-t ext4");
	must_eq(try_make("f", &n), 0);
	must_eq(img.fs->ops->commit(n, 0, 0), 0);
	atomic_store(&full, true);
	must_eq(put(n, 0, 2 * MIB, 'x'), 0);
	must_eq(img.fs->ops->commit(n, 0, 0), -ENOSPC);
	must_eq(img.fs->ops->commit(n, 0, 0), -ENOSPC);
	must(holds(n, 0, 2 * MIB, 'x'));
	atomic_store(&full, false);
	must_eq(img.fs->ops->commit(n, 0, 0), 0);
	fs_node_put(n);
	hio_set_default_hook(NULL, NULL);
	cut(&at);
	img_mount(&at);
	must_eq(at.fs->ops->lookup(at.fs->root, "f", 1, 0, &n), 0);
	must(holds(n, 0, 2 * MIB, 'x'));
	fs_node_put(n);
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
	stop();
}
END_TEST

/* ---- long operations ---------------------------------------------------------------------------------------------------------------- */

/* 280 blocks say where the data of 70 MiB is, more than one transaction of a journal of 1 MiB takes: it is freed in steps. */
START_TEST(a_file_that_is_freed_in_steps_is_freed_when_there_is_room)
{
	struct fs_statfs before, now;
	struct fs_node *n;
	struct fs_cinfo ci;

	start(96, "-t ext3 -b 1024 -J size=1");
	must_eq(img.fs->ops->sync(img.fs), 0);
	must_eq(img.fs->ops->statfs(img.fs, &before), 0);
	must_eq(try_make("f", &n), 0);
	for (uint64_t off = 0; off < 70 * MIB; off += MIB)
		must_eq(put(n, off, MIB, 'a'), 0);
	must_eq(img.fs->ops->sync(img.fs), 0);
	must_eq(img.fs->ops->unlink(img.fs->root, "f", 1, 0, &ci), 0);
	atomic_store(&full, true);
	fs_node_put(n);
	while (!atomic_load(&refused))
		usleep(1000);
	must_eq(try_make("g", &n), -ENOSPC);
	atomic_store(&full, false);
	make_when_there_is_room("g");
	do {
		usleep(10000);
		must_eq(img.fs->ops->statfs(img.fs, &now), 0);
	} while (now.bytes_free != before.bytes_free);
	stop();
}
END_TEST

START_TEST(after_a_snapshot_changes_wait_for_room)
{
	struct fs_node *n;
	struct img at;

	start(32, "-t ext4");
	make("before");
	must_eq(img.fs->ops->freeze(img.fs), 0);
	atomic_store(&full, true);
	img.fs->ops->thaw(img.fs);
	must_eq(try_make("refused", &n), -ENOSPC);
	atomic_store(&full, false);
	make_when_there_is_room("after");
	must_eq(img.fs->ops->sync(img.fs), 0);
	hio_set_default_hook(NULL, NULL);
	cut(&at);
	img_mount(&at);
	must(has(&at, "before") && has(&at, "after"));
	img_unmount(&at);
	must_eq(img_fsck(&at), 0);
	img_free(&at);
	stop();
}
END_TEST

/* ---- the end -------------------------------------------------------------------------------------------------------------------- */

/* Nothing that was promised is lost when there is no room until the end: the log has it. */
START_TEST(an_unmount_without_room_keeps_what_was_committed)
{
	struct fs_node *n;

	start(32, "-t ext4");
	make("before");
	must_eq(img.fs->ops->sync(img.fs), 0);
	atomic_store(&full, true);
	make("lost");
	must_eq(img.fs->ops->sync(img.fs), -ENOSPC);
	must_eq(img.fs->ops->unmount(img.fs), -ENOSPC);
	(void)cache_detach(img.dev);
	cache_free(img.cache);
	(void)vhd_close(img.vhd);
	hio_set_default_hook(NULL, NULL);
	img_mount(&img);
	must(has(&img, "before") && !has(&img, "lost"));
	must_eq(try_make("g", &n), 0);
	fs_node_put(n);
	stop();
}
END_TEST

/* What a failed flush should have written may be gone, so writing the log again would promise too much. */
START_TEST(a_flush_that_fails_for_want_of_room_ends_writing)
{
	struct fs_node *n;

	start(32, "-t ext4");
	make("f");
	atomic_store(&flush_fails, true);
	must_eq(img.fs->ops->sync(img.fs), -EIO);
	atomic_store(&flush_fails, false);
	must_eq(try_make("g", &n), -EIO);
	must(img.fs->ops->unmount(img.fs) < 0);
	(void)cache_detach(img.dev);
	cache_free(img.cache);
	(void)vhd_close(img.vhd);
	hio_set_default_hook(NULL, NULL);
	img_mount(&img);
	stop();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4_host_full");
	TCase *t = tcase_create("host full");
	SRunner *r;
	int failed;

	tcase_set_timeout(t, 120);
	tcase_add_test(t, changes_go_on_when_the_host_has_room_again);
	tcase_add_test(t, a_reply_that_waits_is_sent_when_the_host_has_room_again);
	tcase_add_test(t, nobody_waits_for_room_when_the_server_stops);
	tcase_add_test(t, data_for_which_there_was_no_room_is_committed_later);
	tcase_add_test(t, a_file_that_is_freed_in_steps_is_freed_when_there_is_room);
	tcase_add_test(t, after_a_snapshot_changes_wait_for_room);
	tcase_add_test(t, an_unmount_without_room_keeps_what_was_committed);
	tcase_add_test(t, a_flush_that_fails_for_want_of_room_ends_writing);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
