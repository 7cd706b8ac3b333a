/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_ext4_evict.c - a node that nobody has does not leave memory while a commit has its hands on it
 *
 * The program's own pthread_rwlock_unlock() stops the commit where it has stored the inode and still holds its lock.
 */
#include <dlfcn.h>

#include "tests/unit/ext4_names.h"
#include "vhd/ext4/ext4_int.h"

enum { FILES = 26000, TRIES = 20, WAIT_MS = 20000 }; /* FILES: more than are kept */

static struct ext4_node *_Atomic stopped_at;
static atomic_bool met, looked_at, gone;

int pthread_rwlock_unlock(pthread_rwlock_t *l)
{
	static int (*real)(pthread_rwlock_t *);
	struct ext4_node *n = atomic_load(&stopped_at);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_rwlock_unlock");
	if (n && l == &n->rw.l && !atomic_load(&n->n.refs) && !atomic_exchange(&met, true))
		for (int i = 0; i < WAIT_MS && !atomic_load(&looked_at) && !atomic_load(&gone); i++) {
			cond_broadcast(&ext4_fs_of_node(n)->table_cond); /* somebody puts idle nodes away */
			usleep(1000);
		}
	return atomic_load(&gone) ? 0 : real(l);
}

int pthread_rwlock_trywrlock(pthread_rwlock_t *l)
{
	static int (*real)(pthread_rwlock_t *);
	struct ext4_node *n = atomic_load(&stopped_at);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_rwlock_trywrlock");
	if (n && l == &n->rw.l && atomic_load(&met))
		atomic_store(&looked_at, true);
	return real(l);
}

int pthread_rwlock_destroy(pthread_rwlock_t *l)
{
	static int (*real)(pthread_rwlock_t *);
	struct ext4_node *n = atomic_load(&stopped_at);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_rwlock_destroy");
	if (n && l == &n->rw.l && atomic_load(&met) && !atomic_load(&looked_at))
		atomic_store(&gone, true);
	return real(l);
}

START_TEST(a_node_stays_while_a_commit_stores_it)
{
	struct fs_setattr mode = {.what = FS_SET_MODE, .mode = 0600};
	uint64_t *ino = calloc(FILES, sizeof *ino);
	uint32_t *gen = calloc(FILES, sizeof *gen);
	struct fs_node *n, *d, *last;
	struct img img;
	char name[32];

	img_make(&img, 64, "-t ext4 -b 4096 -N 30000");
	img_mount(&img);
	must_eq(make_s(img.fs->root, "d", FS_DIR, &d), 0);
	must_eq(make_s(img.fs->root, "last", FS_REG, &last), 0);
	for (uint32_t i = 0; i < FILES; i++) {
		snprintf(name, sizeof name, "%u", i);
		must_eq(make_s(d, name, FS_REG, &n), 0);
		ino[i] = n->ino;
		gen[i] = n->gen;
		fs_node_put(n);
	}
	/* The first one is changed and the others are used after it: it is the next to leave memory when it is stored. Unless the
	 * housekeeper was here meanwhile. */
	for (unsigned t = 0; t < TRIES && !atomic_load(&met); t++) {
		must_eq(img.fs->ops->sync(img.fs), 0);
		must_eq(img.fs->ops->get(img.fs, ino[0], gen[0], 0, &n), 0);
		must_eq(n->fs->ops->setattr(n, &mode, NULL), 0);
		atomic_store(&stopped_at, container_of(n, struct ext4_node, n));
		fs_node_put(n);
		for (uint32_t i = 1; i < FILES; i++) {
			must_eq(img.fs->ops->get(img.fs, ino[i], gen[i], 0, &n), 0);
			fs_node_put(n);
		}
		must_eq(last->fs->ops->setattr(last, &mode, NULL), 0);
		must_eq(last->fs->ops->commit(last, 0, 0), 0);
	}
	must(atomic_load(&met));
	must(!atomic_load(&gone));
	atomic_store(&stopped_at, NULL);
	fs_node_put(d);
	fs_node_put(last);
	img_unmount(&img);
	must_eq(img_fsck(&img), 0);
	img_free(&img);
	free(ino);
	free(gen);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ext4 evict");
	TCase *t = tcase_create("ext4 evict");
	SRunner *r;
	int failed;

	if (system("PATH=$PATH:/sbin:/usr/sbin; command -v mke2fs >/dev/null")) {
		puts("mke2fs is missing");
		return 77;
	}
	tcase_set_timeout(t, 240);
	tcase_add_test(t, a_node_stays_while_a_commit_stores_it);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
