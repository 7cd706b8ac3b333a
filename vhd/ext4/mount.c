/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.c - is it ext2, ext3 or ext4, may we write it, and the start and end of a mount
 *
 * Features are an allow-list: what is not on it makes the mount read-only, or refuses it when even reading would be wrong.
 */
#include <errno.h>
#include <e2p/e2p.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/endian.h"
#include "vhd/base/log.h"
#include "vhd/ext4/journal.h"

static const struct fs_ops ops;

/* ---- probe --------------------------------------------------------------------------------------------------------------- */

static int probe(struct cache_dev *dev)
{
	le16 magic;
	int err;

	if (cache_dev_size(dev) < SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE)
		return 0;
	err = cache_read(dev, &magic, sizeof magic, SUPERBLOCK_OFFSET + offsetof(struct ext2_super_block, s_magic), 0);
	return err ? err : le16_get(magic) == EXT2_SUPER_MAGIC;
}

/* ---- features -------------------------------------------------------------------------------------------------------------- */

#define COMPAT_OK                                                                                                      \
	(EXT2_FEATURE_COMPAT_DIR_PREALLOC | EXT3_FEATURE_COMPAT_HAS_JOURNAL | EXT2_FEATURE_COMPAT_EXT_ATTR |           \
	 EXT2_FEATURE_COMPAT_RESIZE_INODE | EXT2_FEATURE_COMPAT_DIR_INDEX | EXT4_FEATURE_COMPAT_SPARSE_SUPER2 |        \
	 EXT4_FEATURE_COMPAT_STABLE_INODES | EXT4_FEATURE_COMPAT_ORPHAN_FILE | EXT4_FEATURE_COMPAT_FAST_COMMIT)
#define INCOMPAT_OK                                                                                                    \
	(EXT2_FEATURE_INCOMPAT_FILETYPE | EXT2_FEATURE_INCOMPAT_META_BG | EXT3_FEATURE_INCOMPAT_EXTENTS |              \
	 EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_CSUM_SEED |               \
	 EXT4_FEATURE_INCOMPAT_LARGEDIR)
/* Readable, not writable by us. */
#define INCOMPAT_READ                                                                                                  \
	(EXT3_FEATURE_INCOMPAT_RECOVER | EXT4_FEATURE_INCOMPAT_MMP | EXT4_FEATURE_INCOMPAT_EA_INODE |                  \
	 EXT4_FEATURE_INCOMPAT_INLINE_DATA | EXT4_FEATURE_INCOMPAT_CASEFOLD)
#define RO_COMPAT_OK                                                                                                   \
	(EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |  \
	 EXT4_FEATURE_RO_COMPAT_GDT_CSUM | EXT4_FEATURE_RO_COMPAT_DIR_NLINK | EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |     \
	 EXT4_FEATURE_RO_COMPAT_METADATA_CSUM | EXT4_FEATURE_RO_COMPAT_PROJECT |                                       \
	 EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT | EXT4_FEATURE_RO_COMPAT_QUOTA)

static void name_features(char *buf, size_t cap, int set, uint32_t bits)
{
	buf[0] = '\0';
	for (uint32_t i = 0; i < 32; i++)
		if (bits & 1u << i)
			snprintf(buf + strlen(buf), cap - strlen(buf), "%s%s", buf[0] ? ", " : "",
				 e2p_feature2string(set, 1u << i));
}

/* Is there a feature that we do not write? Its name, or names, in @names. */
static bool has_unwritten(const struct ext2_super_block *s, char *names, size_t cap)
{
	const struct {
		int set;
		uint32_t bits;
	} sets[] = {
		{E2P_FEATURE_INCOMPAT,
		 s->s_feature_incompat & ~(uint32_t)(INCOMPAT_OK | EXT3_FEATURE_INCOMPAT_RECOVER)},
		{E2P_FEATURE_RO_INCOMPAT, s->s_feature_ro_compat & ~(uint32_t)RO_COMPAT_OK},
		{E2P_FEATURE_COMPAT, s->s_feature_compat & ~(uint32_t)COMPAT_OK},
	};

	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		if (!sets[i].bits)
			continue;
		name_features(names, cap, sets[i].set, sets[i].bits);
		return true;
	}
	return false;
}

static bool counts_quota(const struct ext2_super_block *s)
{
	return s->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_QUOTA;
}

static bool has_journal(const struct ext2_super_block *s)
{
	return s->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL;
}

/* With a journal and quotas "not checked" is what we leave behind (begin_writing()): the usage is not counted, all else is sound. */
bool ext4_is_sound(const struct ext2_super_block *s)
{
	return !(s->s_state & EXT2_ERROR_FS) && (s->s_state & EXT2_VALID_FS || (counts_quota(s) && has_journal(s)));
}

/* Why this file system may only be read; an empty line when it may be written. -ENOTSUP: not even read. @recovered: its journal
 * was replayed. */
static int check_features(const struct ext2_super_block *s, bool recovered, char *why_ro, size_t cap, struct why *why)
{
	uint32_t bad = s->s_feature_incompat & ~(uint32_t)(INCOMPAT_OK | INCOMPAT_READ);
	char names[200];

	why_ro[0] = '\0';
	if (bad) {
		name_features(names, sizeof names, E2P_FEATURE_INCOMPAT, bad);
		return why_set(why, -ENOTSUP, "ext4 with features that are not supported: %s", names);
	}
	if (s->s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER && !recovered)
		snprintf(why_ro, cap, "its journal must be replayed (mount it with Linux once, or run e2fsck)");
	else if (has_unwritten(s, names, sizeof names))
		snprintf(why_ro, cap, "it uses %s", names);
	else if (!has_journal(s) && s->s_last_orphan)
		snprintf(why_ro, cap, "it has orphaned inodes (mount it with Linux once, or run e2fsck)");
	else if (!ext4_is_sound(s))
		snprintf(why_ro, cap, "it was not closed cleanly or has errors (run e2fsck)");
	return 0;
}

/* ---- mount ---------------------------------------------------------------------------------------------------------------- */

static void fs_free(struct ext4_fs *fs)
{
	ext4_names_fini(fs);
	ext4_alloc_fini(fs);
	ext4_trim_fini(fs);
	ext4_zones_fini(fs);
	if (fs->e2) {
		fs->e2->flags &= ~(EXT2_FLAG_DIRTY | EXT2_FLAG_CHANGED); /* what is to be written, we have written */
		ext2fs_free(fs->e2);
	}
	lock_fini(&fs->mu);
	lock_fini(&fs->alloc_mu);
	free(fs->group_dirty);
	free(fs->raw_inode);
	free(fs);
}

/* What the library (1.47.0) takes as it is: it writes beyond its bitmaps then, and the journal is a file like others. */
static bool is_odd(const struct ext2_super_block *s)
{
	return s->s_first_data_block != (s->s_log_block_size ? 0u : 1u) || EXT2_FIRST_INO(s) < EXT2_GOOD_OLD_FIRST_INO;
}

/* The library opens what has the name of its device by itself, past the io_manager, for mmp's block: the name is one that no file can
 * have, and that block is not looked at. */
static errcode_t library_open(struct ext4_fs *fs, int flags)
{
	errcode_t e;

	ext4_io_fs = fs;
	e = ext2fs_open2("", NULL, flags | EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES | EXT2_FLAG_SKIP_MMP, 0, 0,
			 ext4_io_manager, &fs->e2);
	ext4_io_fs = NULL;
	return e;
}

static int open_e2(struct ext4_fs *fs, struct cache_dev *dev, bool write, struct why *why)
{
	errcode_t e = library_open(fs, write ? EXT2_FLAG_RW : 0);

	if (e)
		return why_set(why, ext4_errno(e), "ext4: %s", error_message(e));
	fs->block_size = fs->e2->blocksize;
	fs->block_bits = (uint32_t)__builtin_ctz(fs->block_size);
	if (ext2fs_blocks_count(fs->e2->super) > cache_dev_size(dev) >> fs->block_bits)
		return why_set(why, -EUCLEAN,
			       "ext4: the file system has %llu blocks of %u bytes, the volume %llu bytes",
			       (unsigned long long)ext2fs_blocks_count(fs->e2->super), fs->block_size,
			       (unsigned long long)cache_dev_size(dev));
	if (fs->block_size > CACHE_FRAME)
		return why_set(why, -ENOTSUP, "ext4: block size %u", fs->block_size);
	if (ext2fs_has_feature_bigalloc(fs->e2->super))
		return why_set(why, -ENOTSUP, "ext4 with features that are not supported: bigalloc");
	if (is_odd(fs->e2->super))
		return why_set(why, -EUCLEAN, "ext4: the first data block is %u, the first inode for files %u",
			       fs->e2->super->s_first_data_block, EXT2_FIRST_INO(fs->e2->super));
	fs->e2->flags |= EXT2_FLAG_MASTER_SB_ONLY;
	fs->e2->flags &= ~EXT2_FLAG_SWAP_BYTES;
	e = ext2fs_read_bitmaps(fs->e2);
	return e ? why_set(why, ext4_errno(e), "ext4: reading the bitmaps: %s", error_message(e)) : 0;
}

static void describe(struct ext4_fs *fs)
{
	const struct ext2_super_block *s = fs->e2->super;
	bool extents = s->s_feature_incompat & EXT3_FEATURE_INCOMPAT_EXTENTS;
	bool journal = s->s_feature_compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL;

	snprintf(fs->fs.type_name, sizeof fs->fs.type_name, "%s", extents ? "ext4" : journal ? "ext3" : "ext2");
	memcpy(fs->fs.label, s->s_volume_name, sizeof s->s_volume_name);
	memcpy(fs->fs.uuid, s->s_uuid, sizeof fs->fs.uuid);
	fs->fs.size = cache_dev_size(fs->dev);
	fs->has_csum = s->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
}

bool ext4_ends_valid(const struct ext4_fs *fs)
{
	return fs->was_valid && !(fs->quota && fs->changes != fs->changes_found);
}

/* From here on a crash leaves behind that the journal must be replayed or, without one, "not clean". */
static int begin_writing(struct ext4_fs *fs, struct why *why) NO_THREAD_SAFETY
{
	struct ext2_super_block *s = fs->e2->super;
	int err;

	fs->was_valid = s->s_state & EXT2_VALID_FS;
	fs->quota = counts_quota(s);
	if (has_journal(s))
		ext2fs_set_feature_journal_needs_recovery(s);
	if (!has_journal(s) || fs->quota)
		s->s_state &= (uint16_t)~EXT2_VALID_FS;
	if (fs->quota)
		log_info(
			"ext4: quotas are kept, but what is used is not counted; e2fsck counts it at its next run, for "
			"which the file system is marked once something changes");
	s->s_mtime = (uint32_t)time(NULL);
	s->s_mnt_count++;
	if ((err = ext4_write_super(fs)) < 0 || (err = cache_flush(fs->dev)) < 0)
		return err;
	fs->changes_found = fs->changes;
	if (!has_journal(s))
		return 0;
	err = ext4_journal_open(fs, why);
	fs->fs.keeps_unlinked = !err;
	return err ? err : ext4_orphans_clear(fs);
}

static int start(struct ext4_fs *fs, struct why *why) NO_THREAD_SAFETY
{
	struct ext4_node *root;
	int err;

	ext4_tx_hooks(fs);
	fs->group_dirty = calloc(fs->e2->group_desc_count, 1);
	fs->raw_inode = calloc(1, (size_t)EXT2_INODE_SIZE(fs->e2->super));
	if (!fs->group_dirty || !fs->raw_inode)
		return -ENOMEM;
	if ((err = ext4_zones_init(fs)) < 0 || (err = ext4_alloc_init(fs)) < 0 || (err = ext4_names_init(fs)) < 0)
		return err;
	if ((err = ext4_table_init(fs)) < 0)
		return err;
	err = ext4_node_get(fs, EXT2_ROOT_INO, 0, &root);
	if (!err && root->n.type != FS_DIR) {
		ext4_node_put(root);
		err = -EUCLEAN;
	}
	if (err) {
		ext4_table_fini(fs);
		return why_set(why, err, "ext4: the root directory: %s", strerror(-err));
	}
	fs->fs.root = &root->n;
	err = fs->fs.read_only ? 0 : begin_writing(fs, why);
	if (err) {
		ext4_table_fini(fs);
		if (fs->journal)
			ext4_journal_close(fs);
	}
	return err;
}

/* After a crash the journal goes home before anything else is read: superblock, descriptors and bitmaps may be in it, and what stands
 * on the disk need not fit together yet. *ok: it did. */
static int recover(struct ext4_fs *fs, bool write, bool *ok) NO_THREAD_SAFETY
{
	struct why why = {{0}};
	char names[200];
	le32 incompat;
	errcode_t e;
	int err = cache_read(fs->dev, &incompat, sizeof incompat,
			     SUPERBLOCK_OFFSET + offsetof(struct ext2_super_block, s_feature_incompat), 0);

	if (err || !(le32_get(incompat) & EXT3_FEATURE_INCOMPAT_RECOVER))
		return err;
	e = library_open(fs, EXT2_FLAG_IGNORE_CSUM_ERRORS);
	if (e)
		err = why_set(&why, ext4_errno(e), "ext4: %s", error_message(e));
	else
		err = ext4_journal_recover(fs->dev, fs->e2, !write || has_unwritten(fs->e2->super, names, sizeof names),
					   &why);
	if (fs->e2)
		ext2fs_free(TAKE(fs->e2));
	*ok = !err;
	if (err)
		log_warn("%s", why.line[0] ? why.line : strerror(-err));
	return 0;
}

static int mount(struct cache_dev *dev, const struct fs_mount_opts *o, struct fs **out,
		 struct why *why) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = calloc(1, sizeof *fs);
	struct why bad = {.line = ""};
	char why_ro[256];
	bool write = !o->read_only && cache_dev_writable(dev), recovered = false;
	int err;

	if (!fs)
		return -ENOMEM;
	add_error_table(&et_ext2_error_table);
	if (!ext4_csum_works())
		log_warn("ext4: the fast checksum is not in use");
	lock_init(&fs->mu);
	lock_init(&fs->alloc_mu);
	fs->dev = dev;
	list_init(&fs->logged);
	list_init(&fs->orphans);
	fs->fs.ops = &ops;
	fs->relatime = o->relatime;
	fs->keep_found = o->keep_unlinked;
	fs->async = o->async;
	if ((o->discard && (err = ext4_trim_init(fs)) < 0) || (err = recover(fs, write, &recovered)) < 0 ||
	    (err = open_e2(fs, dev, write, why)) < 0 ||
	    (err = check_features(fs->e2->super, recovered, why_ro, sizeof why_ro, why)) < 0) {
		fs_free(fs);
		return err;
	}
	describe(fs);
	if (o->need_journal && !why_ro[0] && !has_journal(fs->e2->super))
		snprintf(why_ro, sizeof why_ro,
			 "it has no journal: a crash would damage it (--no-journal-ok to write it anyway)");
	if (write && !why_ro[0] && has_journal(fs->e2->super) && ext4_journal_check(fs, &bad) < 0)
		snprintf(why_ro, sizeof why_ro, "its journal cannot be used: %.200s", bad.line);
	if (write && why_ro[0]) {
		why_set(why, 0, "%s is served read-only: %s", fs->fs.type_name, why_ro);
		write = false;
		fs->e2->flags &= ~EXT2_FLAG_RW;
	}
	fs->fs.read_only = !write;
	if ((err = start(fs, why)) < 0) {
		fs_free(fs);
		return err;
	}
	*out = &fs->fs;
	return 0;
}

/* ---- sync, statfs, unmount ----------------------------------------------------------------------------------------------------- */

int ext4_op_sync(struct fs *f) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	int err = ext4_store_all(fs);

	if (err || f->read_only)
		return err;
	if (!fs->journal || fs->block_size >= CACHE_UNIT) {
		err = ext4_journal_sync(fs);
		return err ? err : cache_flush(fs->dev);
	}
	/* Blocks smaller than a unit: data beside metadata that is held back would be left out. Nothing is held meanwhile. */
	lock_take(&fs->mu);
	err = ext4_journal_restart(fs);
	if (!err)
		err = cache_flush(fs->dev);
	lock_drop(&fs->mu);
	return err;
}

int ext4_op_statfs(struct fs *f, struct fs_statfs *st) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	struct ext2_super_block *s = fs->e2->super;
	uint64_t free_blocks = ext4_alloc_left(fs) + atomic_load_explicit(&fs->freeing, memory_order_relaxed);
	uint64_t reserved = ext2fs_r_blocks_count(s);

	*st = (struct fs_statfs){
		.bytes_total = ext2fs_blocks_count(s) << fs->block_bits,
		.bytes_free = free_blocks << fs->block_bits,
		.bytes_avail = (free_blocks > reserved ? free_blocks - reserved : 0) << fs->block_bits,
		.files_total = s->s_inodes_count,
		.files_free = s->s_free_inodes_count,
		.block_size = fs->block_size,
		.name_max = 255,
		.link_max = 65000,
		.file_size_max = (uint64_t)(UINT32_MAX - 1) << fs->block_bits,
	};
	return 0;
}

int ext4_op_unmount(struct fs *f) NO_THREAD_SAFETY
{
	struct ext4_fs *fs = ext4_fs_of(f);
	int err, err2 = 0;

	fs_node_put(f->root);
	if (fs->journal)
		ext4_journal_retry(fs);
	err = ext4_table_fini(fs);
	if (fs->journal) {
		err2 = ext4_journal_close(fs);
		err = err ? err : err2;
		if (!err) /* nothing is left to replay */
			ext2fs_clear_feature_journal_needs_recovery(fs->e2->super);
	}
	if (!f->read_only && !atomic_load(&fs->failed)) {
		lock_take(&fs->mu);
		if (!err)
			err = cache_flush(fs->dev);
		if (!err && (ext4_ends_valid(fs) || has_journal(fs->e2->super))) {
			if (ext4_ends_valid(fs))
				fs->e2->super->s_state |= EXT2_VALID_FS;
			err2 = ext4_write_super(fs);
			if (!err2)
				err2 = cache_flush(fs->dev);
		}
		lock_drop(&fs->mu);
	}
	fs_free(fs);
	return err ? err : err2;
}

/* ---- no space: what waits to be freed is freed first --------------------------------------------------------------------- */

/* And then it is tried once more, whoever it was that freed something. */
static bool make_room(struct fs *f, int err)
{
	if (err == -ENOSPC)
		ext4_reap_now(ext4_fs_of(f));
	return err == -ENOSPC;
}

static int create(struct fs_node *dir, const char *name, uint32_t len, const struct fs_create *c, struct fs_node **out,
		  struct fs_cinfo *ci)
{
	int err = ext4_op_create(dir, name, len, c, out, ci);

	return make_room(dir->fs, err) ? ext4_op_create(dir, name, len, c, out, ci) : err;
}

static int write_data(struct fs_node *n, uint64_t off, const struct iovec *iov, int niov, uint32_t len, unsigned flags)
{
	int err = ext4_op_write(n, off, iov, niov, len, flags);

	if (err == -ENOSPC && flags & FS_NOWAIT)
		return -EAGAIN;
	return make_room(n->fs, err) ? ext4_op_write(n, off, iov, niov, len, flags) : err;
}

static int reserve(struct fs_node *n, uint64_t off, uint64_t len)
{
	int err = ext4_op_alloc(n, off, len);

	return make_room(n->fs, err) ? ext4_op_alloc(n, off, len) : err;
}

static int setxattr(struct fs_node *n, const char *name, const void *value, uint32_t len)
{
	int err = ext4_op_setxattr(n, name, value, len);

	return make_room(n->fs, err) ? ext4_op_setxattr(n, name, value, len) : err;
}

static const struct fs_ops ops = {
	.name = "ext4",
	.get = ext4_op_get,
	.put = ext4_op_put,
	.lookup = ext4_op_lookup,
	.parent = ext4_op_parent,
	.getattr = ext4_op_getattr,
	.getattrs = ext4_op_getattrs,
	.setattr = ext4_op_setattr,
	.create = create,
	.link = ext4_op_link,
	.unlink = ext4_op_unlink,
	.rename = ext4_op_rename,
	.readdir = ext4_op_readdir,
	.readlink = ext4_op_readlink,
	.read = ext4_op_read,
	.write = write_data,
	.commit = ext4_op_commit,
	.seek = ext4_op_seek,
	.advise = ext4_op_advise,
	.unwant = ext4_op_unwant,
	.figures = ext4_op_figures,
	.alloc = reserve,
	.punch = ext4_op_punch,
	.getacl = ext4_op_getacl,
	.getxattr = ext4_op_getxattr,
	.setxattr = setxattr,
	.changed = ext4_op_changed,
	.order = ext4_op_order,
	.when_stable = ext4_op_when_stable,
	.hurry = ext4_op_hurry,
	.keep_unlinked = ext4_op_keep_unlinked,
	.resident = ext4_op_resident,
	.unused = ext4_op_unused,
	.sync = ext4_op_sync,
	.freeze = ext4_op_freeze,
	.thaw = ext4_op_thaw,
	.statfs = ext4_op_statfs,
	.unmount = ext4_op_unmount,
};

const struct fs_driver ext4_driver = {.name = "ext4", .probe = probe, .mount = mount};
