/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fs.h - the interface between the server and a file system in an image
 *
 * A struct fs is one mounted file system, a struct fs_node one inode of it that is in memory, reference counted. Drivers
 * embed both heads in structures of their own. The driver keeps an unlinked inode alive until its last reference goes;
 * so an open-unlinked file stays readable as long as somebody holds the node.
 *
 * FS_NOWAIT: the call does what it can from memory and without waiting for a lock that is held across I/O, else it
 * returns -EAGAIN having changed nothing; the caller repeats it without the flag on a thread that may block. Calls
 * without a flags argument may block (lookup of nothing but memory excepted) and must not come from an event loop.
 *
 * Names are byte strings, 1 … 255 bytes, without '/' and NUL; "." and ".." are never passed. Permissions are not checked
 * here: the server does, with what fs_getattr() says. Errors are negative errnos; those that have one meaning here:
 *
 *     -EAGAIN  would wait (FS_NOWAIT)       -ESTALE  no such inode, or another generation
 *     -EROFS   mounted read-only            -EUCLEAN the file system is damaged here
 *     -EMLINK  too many links               -ENOSPC  no block or no inode
 *
 * Locks: the server holds none of its own when it calls in; a driver never calls out of vhd/.
 */
#ifndef VHDNFS_VOLUME_FS_H
#define VHDNFS_VOLUME_FS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "vhd/base/why.h"
#include "vhd/base/list.h"
#include "vhd/cache/cache.h"
#include "vhd/volume/acl.h"

struct fs;
struct fs_node;

enum fs_flags { FS_NOWAIT = 1 << 0 };
/* Besides, of reads: who reads; see CACHE_WHO(). */
#define FS_WHO(who) CACHE_WHO(who)

enum fs_type { FS_REG = 1, FS_DIR, FS_LNK, FS_BLK, FS_CHR, FS_FIFO, FS_SOCK };

struct fs_time {
	int64_t sec; /* since 1970, may be negative */
	uint32_t nsec;
};

enum fs_attr_flags {
	FS_ATTR_IMMUTABLE = 1 << 0, /* nothing of it may be changed, by nobody; of a directory: none of its names */
	FS_ATTR_APPEND = 1 << 1,    /* it may only get longer; of a directory: names may only be added */
	FS_ATTR_ACL = 1 << 2,       /* it has an access control list, which says more than the mode does: getacl() */
};

struct fs_attr {
	uint64_t ino;
	uint32_t gen;
	enum fs_type type;
	uint32_t flags; /* FS_ATTR_* */
	uint32_t
		mode; /* permission, set-id and sticky bits: 07777; with an access control list the group's are its mask */
	uint32_t nlink, uid, gid;
	uint32_t rdev_major, rdev_minor;
	uint64_t size;                             /* bytes */
	uint64_t space;                            /* bytes allocated */
	uint64_t change;                           /* grows with every change of data or metadata */
	struct fs_time atime, mtime, ctime, btime; /* btime {0,0} when the inode cannot keep one */
};

enum fs_set {
	FS_SET_MODE = 1 << 0,
	FS_SET_UID = 1 << 1,
	FS_SET_GID = 1 << 2,
	FS_SET_SIZE = 1 << 3,
	FS_SET_ATIME = 1 << 4,
	FS_SET_MTIME = 1 << 5,
	FS_SET_ATIME_NOW = 1 << 6,
	FS_SET_MTIME_NOW = 1 << 7,
	FS_SET_BTIME = 1 << 8, /* ignored where btime cannot be kept */
};

struct fs_setattr {
	unsigned what; /* FS_SET_* */
	uint32_t mode, uid, gid;
	uint32_t
		umask; /* create: bits that the mode is without, unless the directory has a default list: that counts then */
	uint64_t size;
	struct fs_time atime, mtime, btime;
};

/* A directory before and after a change, for change_info4. */
struct fs_cinfo {
	bool atomic;
	uint64_t before, after;
};

struct fs_create {
	enum fs_type type;
	struct fs_setattr set; /* MODE, UID, GID are always set; times optional; SIZE not */
	uint32_t rdev_major, rdev_minor;
	const char *target; /* symlink: 1 … 4095 bytes */
	uint32_t target_len;
	unsigned flags; /* FS_NOWAIT */
	bool has_verf;  /* exclusive create: verf is kept as the seconds of atime (high half) and mtime (low half) */
	uint64_t verf;
};

struct fs_dirent {
	uint64_t cookie; /* > 2; where to continue after this entry; stable while others come and go */
	uint64_t ino;
	const char *name; /* not NUL-terminated; valid during the call */
	uint32_t len;
};
/* false stops the listing before this entry (it was not taken). Must not call into the file system. */
typedef bool fs_emit_fn(void *arg, const struct fs_dirent *d);

/* Who waits for a change to be on stable storage; the caller's until done() is called. It must not block. */
struct fs_waiter {
	struct list link;
	uint64_t change;
	void (*done)(struct fs_waiter *w, int err); /* 0, -EIO or -ENOSPC */
};

struct fs_statfs {
	uint64_t bytes_total, bytes_free, bytes_avail; /* avail: for others than the superuser */
	uint64_t files_total, files_free;
	uint32_t block_size;
	uint32_t name_max;
	uint32_t link_max;
	uint64_t file_size_max;
};

enum fs_seek { FS_SEEK_DATA, FS_SEEK_HOLE };

enum fs_advice {
	FS_WILLNEED, /* start reading the range, or as much of it as is sensible */
	FS_MAPS,     /* only what says where it is; the range when there is nothing else to do */
	FS_NOREUSE,  /* its memory may go first; what is dirty of it stays */
	FS_DONTNEED, /* its memory may go first; what is dirty of it is written back before */
	FS_RESERVE,  /* it will be written: a contiguous place for it, until the file is closed or the room is needed */
};

struct fs_hint {
	uint64_t off, len; /* bytes; len 0: to the end. Beyond the end, and holes, are no error */
	enum fs_advice how;
	unsigned flags;        /* FS_NOWAIT */
	uint16_t who, account; /* see cache_demote(), struct cache_want */
	bool alone;            /* nobody but who has the file open: see cache_demote() */
	bool down;             /* the end of the range first */
	uint64_t tag;          /* of what is read ahead, for cache_unwant() */
	uint64_t
		taken; /* out, of FS_WILLNEED and FS_MAPS: what lies before this offset (down: behind it) will be in memory */
	bool at_end; /* out: and it is the file's end, or lies behind it */
};

struct fs_ops {
	const char *name; /* "ext4" */

	/* The node of a filehandle. 0, -ESTALE, -EAGAIN. The reference is the caller's. */
	int (*get)(struct fs *fs, uint64_t ino, uint32_t gen, unsigned flags, struct fs_node **out);
	void (*put)(struct fs_node *n); /* called by fs_node_put() on the last reference; may free the inode on disk */

	int (*lookup)(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_node **out);
	int (*parent)(struct fs_node *dir, unsigned flags, struct fs_node **out); /* "..", the root's is the root */
	int (*getattr)(struct fs_node *n, unsigned flags, struct fs_attr *a);
	/* Of many inodes, as a listing wants them: a[i].ino says of which. type 0 and an errno in a[i].gen: that one cannot be
	 * had (ESTALE: it is gone). 0, or -EAGAIN when not all are in memory. NULL where inodes are not found by number. */
	int (*getattrs)(struct fs *fs, struct fs_attr *a, unsigned n, unsigned flags);
	/* All or nothing. SIZE only on FS_REG (-EINVAL, -EFBIG). *after may be NULL. -EPERM: it is immutable, or append-only. MODE changes
	 * the access control list with it; SIZE, UID and GID take file capabilities away, as write, alloc and punch do. */
	int (*setattr)(struct fs_node *n, const struct fs_setattr *s, struct fs_attr *after);

	/* -EEXIST when the name exists (then *out is the existing node when that is cheap, else NULL). The directory's default list becomes
	 * the new one's, but for symlinks; -EUCLEAN: it is one that is not understood. */
	int (*create)(struct fs_node *dir, const char *name, uint32_t len, const struct fs_create *c,
		      struct fs_node **out, struct fs_cinfo *ci);
	int (*link)(struct fs_node *n, struct fs_node *dir, const char *name, uint32_t len, struct fs_cinfo *ci);
	/* Files and empty directories (-ENOTEMPTY). */
	int (*unlink)(struct fs_node *dir, const char *name, uint32_t len, unsigned flags, struct fs_cinfo *ci);
	/* POSIX rename: replaces an existing target of the same kind (-EISDIR, -ENOTDIR, -ENOTEMPTY, -EEXIST); -EINVAL
	 * into itself or below. Nothing happens when both names are the same inode. */
	int (*rename)(struct fs_node *from, const char *name, uint32_t len, struct fs_node *to, const char *nname,
		      uint32_t nlen, struct fs_cinfo *cfrom, struct fs_cinfo *cto);
	/* Entries after @cookie (0 = from the start), without "." and "..". *eof when the last one was taken. */
	int (*readdir)(struct fs_node *dir, uint64_t cookie, unsigned flags, fs_emit_fn *emit, void *arg, bool *eof);
	int (*readlink)(struct fs_node *n, unsigned flags, char *buf, uint32_t cap); /* length, or negative errno */

	/* Pins [off, off + len) cut at the end of file; holes are pieces of zeros. Number of pieces (0 at or past the
	 * end), or negative errno. Updates atime as relatime does. fs_seg_max(len) pieces are enough. */
	int (*read)(struct fs_node *n, uint64_t off, uint32_t len, unsigned flags, struct cache_seg *seg, unsigned max,
		    bool *eof);
	/* Whole or not at all. Extends the file. -EFBIG, -ENOSPC, -EAGAIN. Blocks are found now, so that nothing answered
	 * here fails later for lack of space; extents reach the image at commit or by write-behind. */
	int (*write)(struct fs_node *n, uint64_t off, const struct iovec *iov, int niov, uint32_t len, unsigned flags);
	/* Data of the range and all metadata needed to find it are on stable storage. len 0 = to the end. */
	int (*commit)(struct fs_node *n, uint64_t off, uint64_t len);
	/* -ENXIO past the end (for DATA: nothing but hole follows). A hole starts at the end of file at the latest. */
	int (*seek)(struct fs_node *n, uint64_t off, enum fs_seek what, uint64_t *out);
	int (*alloc)(struct fs_node *n, uint64_t off, uint64_t len); /* reads as before; extends the file */
	int (*punch)(struct fs_node *n, uint64_t off, uint64_t len); /* reads as zeros; size stays */

	/* 0; -ENOBUFS: nothing of what was wanted can be read ahead, or reserved, now; -EROFS (FS_RESERVE); -EAGAIN. NULL: no advice is taken. */
	int (*advise)(struct fs_node *n, struct fs_hint *h);
	/* What was wanted with a tag is not needed any more; see cache_unwant(). Never blocks. With advise. */
	void (*unwant)(struct fs *fs, uint64_t tag, uint64_t mask);

	/* Bytes of the file's data that are in memory now. Optional. */
	int (*resident)(struct fs_node *n, uint64_t *bytes);

	/* The list of this kind; the reference is the caller's. -ENODATA there is none, -EUCLEAN one that is not understood: who depends on
	 * it gets nothing. -EAGAIN. NULL where FS_ATTR_ACL is never set. */
	int (*getacl)(struct fs_node *n, enum fs_acl_kind kind, unsigned flags, struct fs_acl **out);

	/* An extended attribute, its name with the prefix ("user.io_advise"; also "trusted." and "security."): the value's length.
	 * -ENODATA there is none, -ERANGE it is longer than @cap (0 asks for the length alone), -EAGAIN, -EUCLEAN, -ENOTSUP another
	 * prefix, or a value that is kept in a way that is not read. Optional, as the next. */
	int (*getxattr)(struct fs_node *n, const char *name, void *buf, uint32_t cap, unsigned flags);
	/* @value NULL removes it (-ENODATA). -ENOSPC also where the file's attributes together are too long, -EROFS, -EPERM on an
	 * immutable file and for "user." on what is neither a file nor a directory. */
	int (*setxattr)(struct fs_node *n, const char *name, const void *value, uint32_t len);

	/* What this thread has changed since it last asked: a number that stands for it until it is on stable storage, or 0 when
	 * there is nothing to wait for. Optional, with the next. */
	uint64_t (*changed)(struct fs *fs);
	/* As commit, without waiting: the range (len 0: to the end) and what leads to it are part of a change, whose number is
	 * *change; for when_stable(). -EAGAIN (FS_NOWAIT); -ENOTSUP: use commit. Optional. */
	int (*order)(struct fs_node *n, uint64_t off, uint64_t len, unsigned flags, uint64_t *change);
	/* Tell when that is so: 1 it is; 0 w->done() will be called, once, from another thread, maybe before this returns; -EIO it
	 * will not be; -ENOSPC not now, and the server stops. Does not block. */
	int (*when_stable)(struct fs *fs, uint64_t change, struct fs_waiter *w);
	/* The server stops: whoever waits for what cannot be made stable now, since the host has no room, is told -ENOSPC, and so is who
	 * comes to wait for it. Else nothing changes. Optional. */
	void (*hurry)(struct fs *fs);
	/* @keep: whoever gives a file without a name back from now on does so because the server stops: it is not freed, and the next
	 * mount finds it. !@keep: those that this mount found are freed when nobody has them. Optional; see keeps_unlinked. */
	void (*keep_unlinked)(struct fs *fs, bool keep);
	/* Ranges of the volume that no file and no structure uses, ascending; @fn's first error ends it. For a mount that is only read.
	 * -EUCLEAN: it was not closed cleanly, or has errors. Optional. */
	int (*unused)(struct fs *fs, int (*fn)(void *arg, uint64_t off, uint64_t len), void *arg);
	int (*sync)(struct fs *fs); /* everything on stable storage */
	/* Everything is on stable storage, and what is there is as after an unmount; changes of metadata wait until thaw(), which the
	 * same thread calls, unless this fails. Optional. */
	int (*freeze)(struct fs *fs);
	void (*thaw)(struct fs *fs);
	int (*statfs)(struct fs *fs, struct fs_statfs *st);
	void (*figures)(struct fs *fs, struct cache_dev_stats *st); /* of the volume; optional */
	int (*unmount)(struct fs *fs); /* no references left but the root's; frees fs; 0 or the first write error */
};

struct fs {
	const struct fs_ops *ops;
	bool read_only;
	bool keeps_unlinked; /* a file without a name can be found again after a restart, as long as somebody may want it */
	char type_name[8]; /* "ext4", "ext2" */
	char label[17];
	uuid_t uuid;
	uint64_t size;        /* bytes of the volume */
	struct fs_node *root; /* one reference held by the fs itself */
};

/* Reads that belong together. */
struct fs_run {
	uint64_t low, high; /* bytes: what they cover */
	uint64_t ahead;     /* up to here, or downwards to here, was read ahead */
	uint64_t last;      /* where the last read began */
	int64_t step;       /* from one read to the next, when they leave gaps */
	uint32_t bytes;     /* read; 0: none, the rest says nothing */
	uint32_t window;    /* bytes to be ahead */
	uint32_t seen;      /* the read of the file that was the last of these */
	uint8_t up, down;   /* reads in a row that went on at that end */
	uint8_t same;       /* steps that were equal */
	int8_t dir;         /* +1, -1; 0: not known yet */
};

/* How the file is read. Kept with the node for those who decide on reading ahead (advise/); drivers only clear it, and count in
 * `sized`. */
#define FS_RUNS 4u
struct fs_stream {
	atomic_uint mode;  /* hints that hold */
	atomic_uint sized; /* how often the file got another length; counted while nobody can see the new one */
	atomic_flag busy;  /* somebody works on what follows */
	uint8_t distrust;  /* how often what was read ahead was of no use, lately */
	uint32_t reads;
	uint32_t end_as_of;           /* 1 + `sized` when the next was seen; 0: never */
	uint64_t end;                 /* nothing is to be read from here on */
	uint64_t last;                /* where the last read began */
	uint64_t bytes;               /* read, while something could be read ahead */
	uint64_t ahead, used, wasted; /* bytes: asked for; read later; given up */
	struct fs_run run[FS_RUNS];
};

/* Advice that holds for the file when it is opened: kept for those who give it (server/nfs4/standing.h), as above. */
struct fs_standing {
	atomic_uint_least64_t dir_ino; /* where it was found last; 0: not known */
	atomic_uint dir_gen;
	atomic_uint rule;           /* hints because of its name */
	atomic_uint hints, version; /* hints because of attributes, and as of when */
};

struct fs_node {
	struct fs *fs;
	uint64_t ino;
	uint32_t gen;
	enum fs_type type;
	atomic_uint refs;
	struct fs_stream stream;
	struct fs_standing standing;
};

static inline struct fs_node *fs_node_get(struct fs_node *n)
{
	atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}

/* NULL is accepted. ops->put() owns the decrement, so that it can race safely with a lookup in the driver's table; it may
 * only block when the inode is unlinked and this was its last reference: then the driver hands the work to a thread of
 * its own. So this is safe on an event loop. */
static inline void fs_node_put(struct fs_node *n)
{
	if (n)
		n->fs->ops->put(n);
}

static inline unsigned fs_seg_max(uint32_t len)
{
	return len / CACHE_UNIT + 3;
}

/* How a mount should be. */
struct fs_mount_opts {
	bool read_only;
	bool relatime;      /* else atime is never updated by reads */
	bool need_journal;  /* a file system that could have one and has none is only read */
	bool async;         /* changes of metadata need not be waited for: changed() says 0 */
	bool keep_unlinked; /* files without a name that are found stay until fs_ops.keep_unlinked() is called */
	bool discard;       /* the space of freed blocks goes back to the host, some seconds later */
};

struct fs_driver {
	const char *name;
	/* 1 when the volume holds this kind, 0 when not, negative errno. */
	int (*probe)(struct cache_dev *dev);
	/* -EUCLEAN damaged, -ENOTSUP features (one line in @why); when it can only be served read-only the mount succeeds
	 * with fs->read_only set and a line in @why. The device stays the caller's and outlives the fs. */
	int (*mount)(struct cache_dev *dev, const struct fs_mount_opts *o, struct fs **out, struct why *why);
};

extern const struct fs_driver ext4_driver;

#endif
