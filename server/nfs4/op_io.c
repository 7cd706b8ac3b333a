/* SPDX-License-Identifier: BSD-3-Clause */
/* op_io.c - file data: READ, WRITE, COMMIT, SEEK, ALLOCATE, DEALLOCATE (RFC 8881 §18, RFC 7862 §15) */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "xdr/prims.h"

nfsstat4 c_io_check(struct compound *c, const struct st_fhkey *key, const stateid4 *sid, uint32_t access,
		    struct st_io *io)
{
	nfsstat4 st = st_io_check(c->srv->state, c->st.client, key, sid, access, io);

	if (st != NFS4ERR_LOCKED)
		return st;
	st = st_give_way(c->srv->state, key, access & OPEN4_SHARE_ACCESS_BOTH, c->may_block);
	return st == NFS4_OK ? st_io_check(c->srv->state, c->st.client, key, sid, access, io) : st;
}

nfsstat4 may_data(struct compound *c, uint32_t access)
{
	struct fs_attr a;
	nfsstat4 st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, nowait(c), &a));

	if (st != NFS4_OK)
		return st;
	st = may_attr(c, c->cfh.node, &a, access == OPEN4_SHARE_ACCESS_READ ? MAY_READ : MAY_WRITE | MAY_CUT);
	/* What may be run but not read has to be read to be run. */
	if (st == NFS4ERR_ACCESS && access == OPEN4_SHARE_ACCESS_READ)
		st = may_attr(c, c->cfh.node, &a, MAY_EXEC);
	/* The mode does not bind the owner. */
	return st == NFS4ERR_ACCESS && c->cred.uid == a.uid ? NFS4_OK : st;
}

nfsstat4 may_io(struct compound *c, stateid4 *given, uint32_t access, uint32_t *advice)
{
	struct st_fhkey key = fh_key(&c->cfh);
	struct st_io io = {.who = c_principal(c)};
	stateid4 sid;
	nfsstat4 st;

	if ((st = must_be_regular(c->cfh.node)) != NFS4_OK || (st = c_stateid(c, given, &sid)) != NFS4_OK)
		return st;
	st = c_io_check(c, &key, &sid, access | ST_AS_OPENED, &io);
	if (st == NFS4ERR_OPENMODE && access == OPEN4_SHARE_ACCESS_READ) { /* nobody asked whether it may be read */
		st = c_io_check(c, &key, &sid, access, &io);
		io.own = false;
	}
	if (st != NFS4_OK)
		return st;
	*given = sid;
	if (advice)
		*advice = !io.own && st_is_special(&sid) ? st_said(c->st.client, &key) : io.advice;
	/* Hints move data about, and say whether it was in memory: they are for those who may read it. */
	return io.own ? NFS4_OK : may_data(c, access ? access : OPEN4_SHARE_ACCESS_READ);
}

/* ---- READ ---------------------------------------------------------------------------------------------------------------------- */

/* Frames that replies hold, of all connections together. */
static atomic_uint linked;

static void unpin(void *seg)
{
	cache_unpin(seg, 1);
	atomic_fetch_sub_explicit(&linked, 1, memory_order_relaxed);
}

/* May a reply hold so many frames more? Then they are counted. A client that takes its replies slowly must not keep the cache from
 * everybody. */
static bool may_link(const struct nfs_server *srv, unsigned pins)
{
	unsigned was = atomic_fetch_add_explicit(&linked, pins, memory_order_relaxed);

	if (!srv->links_max || was + pins <= srv->links_max)
		return true;
	atomic_fetch_sub_explicit(&linked, pins, memory_order_relaxed);
	return false;
}

/* The pieces become part of the reply as they are; each gives its pin back when the reply is gone. */
static nfsstat4 link_pieces(struct compound *c, struct cache_seg *seg, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!xa_out_link(c->out, seg[i].base, seg[i].len, seg[i].pin ? unpin : NULL, &seg[i])) {
			for (; i < n; i++)
				if (seg[i].pin)
					unpin(&seg[i]);
			return NFS4ERR_REP_TOO_BIG;
		}
	return NFS4_OK;
}

/* Their bytes do, in memory that the connection has to answer for (rpc_opts.max_memory). */
static nfsstat4 copy_pieces(struct compound *c, struct cache_seg *seg, unsigned n, uint32_t len)
{
	uint8_t *copy = arena_alloc(&c->call->arena, len), *to = copy;

	for (unsigned i = 0; copy && i < n; to += seg[i++].len)
		memcpy(to, seg[i].base, seg[i].len);
	cache_unpin(seg, n);
	if (!copy)
		return NFS4ERR_DELAY;
	return !len || xa_out_link(c->out, copy, len, NULL, NULL) ? NFS4_OK : NFS4ERR_REP_TOO_BIG;
}

static nfsstat4 give_pieces(struct compound *c, struct cache_seg *seg, unsigned n, uint32_t len)
{
	unsigned pins = 0;

	for (unsigned i = 0; i < n; i++)
		pins += seg[i].pin != NULL;
	return may_link(c->srv, pins) ? link_pieces(c, seg, n) : copy_pieces(c, seg, n, len);
}

nfsstat4 op_read(struct compound *c)
{
	READ4args a = {.offset = 0};
	struct cache_seg *seg;
	uint32_t words[2] = {0, 0}, max, said;
	bool eof = false;
	uint8_t *head;
	size_t room;
	uint16_t who;
	int n;
	nfsstat4 st;

	if ((st = C_DECODE(c, READ4args, &a)) != NFS4_OK ||
	    (st = may_io(c, &a.stateid, OPEN4_SHARE_ACCESS_READ, &said)) != NFS4_OK)
		return st;
	if (a.count > c->srv->max_read)
		a.count = c->srv->max_read;
	/* eof, length and padding come with the data. */
	room = xa_out_room(c->out);
	if (room < 16)
		return NFS4ERR_REP_TOO_BIG;
	if (a.count > room - 16)
		return NFS4ERR_REP_TOO_BIG;
	max = fs_seg_max(a.count);
	seg = arena_array(&c->call->arena, max, sizeof *seg);
	if (!seg)
		return NFS4ERR_DELAY;
	who = who_reads(c, &a.stateid);
	n = c->cfh.node->fs->ops->read(c->cfh.node, a.offset, a.count, nowait(c) | FS_WHO(who), seg, max, &eof);
	if (n < 0)
		return errno_status(n);
	head = xa_out_reserve(c->out, 8);
	if (!head) {
		cache_unpin(seg, (unsigned)n);
		return NFS4ERR_REP_TOO_BIG;
	}
	for (int i = 0; i < n; i++)
		words[1] += seg[i].len;
	look_ahead(c, said, a.offset, words[1], who);
	words[0] = __builtin_bswap32(eof);
	if ((st = give_pieces(c, seg, (unsigned)n, words[1])) != NFS4_OK)
		return st;
	if (!xa_out_pad(c->out, words[1]))
		return NFS4ERR_REP_TOO_BIG;
	words[1] = __builtin_bswap32(words[1]);
	memcpy(head, words, sizeof words);
	return NFS4_OK;
}

/* ---- WRITE, COMMIT ---------------------------------------------------------------------------------------------------------------- */

/* Writing by somebody else takes the set-id bits away (POSIX). Only executables have them: a cheap look first. */
static nfsstat4 drop_setid(struct compound *c)
{
	struct fs_setattr s = {.what = FS_SET_MODE};
	struct fs_attr a;
	nfsstat4 st;

	if ((st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, nowait(c), &a))) != NFS4_OK)
		return st;
	s.mode = mode_changed(&c->cred, &a);
	if (s.mode == a.mode)
		return NFS4_OK;
	if (!c->may_block)
		return ST_WAIT;
	return errno_status(c->cfh.node->fs->ops->setattr(c->cfh.node, &s, NULL));
}

/* What was written in a range goes to stable storage before the reply does. */
static nfsstat4 make_stable(struct compound *c, uint64_t off, uint64_t len)
{
	const struct fs_ops *ops = c->cfh.node->fs->ops;
	int err = ops->order ? ops->order(c->cfh.node, off, len, nowait(c), &c->change) : -ENOTSUP;

	if (err != -ENOTSUP)
		return errno_status(err);
	return c->may_block ? errno_status(ops->commit(c->cfh.node, off, len)) : ST_WAIT;
}

nfsstat4 op_write(struct compound *c)
{
	WRITE4args a = {.offset = 0};
	WRITE4resok res;
	struct iovec iov;
	nfsstat4 st;

	if ((st = C_DECODE(c, WRITE4args, &a)) != NFS4_OK ||
	    (st = may_io(c, &a.stateid, OPEN4_SHARE_ACCESS_WRITE, NULL)) != NFS4_OK)
		return st;
	if (a.stable != UNSTABLE4 && a.stable != DATA_SYNC4 && a.stable != FILE_SYNC4)
		return NFS4ERR_INVAL;
	if (a.data.data_len > c->srv->max_write)
		a.data.data_len = c->srv->max_write;
	if (a.data.data_len && (st = drop_setid(c)) != NFS4_OK)
		return st;
	iov = (struct iovec){a.data.data_val, a.data.data_len};
	st = errno_status(c->cfh.node->fs->ops->write(c->cfh.node, a.offset, &iov, 1, a.data.data_len, nowait(c)));
	/* Repeated from the start where it may block, if it must: the same bytes again. */
	if (st == NFS4_OK && a.stable != UNSTABLE4 && a.data.data_len)
		st = make_stable(c, a.offset, a.data.data_len);
	if (st != NFS4_OK)
		return st;
	res = (WRITE4resok){.count = a.data.data_len, .committed = a.stable == UNSTABLE4 ? UNSTABLE4 : FILE_SYNC4};
	memcpy(res.writeverf, c->srv->write_verf, sizeof res.writeverf);
	return C_ENCODE(c, WRITE4resok, &res);
}

/* COMMIT names no open: whoever may write, or has it open for that, whatever the mode has become since. */
static nfsstat4 may_commit(struct compound *c)
{
	struct st_principal who = c_principal(c);
	struct st_fhkey key = fh_key(&c->cfh);
	nfsstat4 st = may_data(c, OPEN4_SHARE_ACCESS_WRITE);

	if (st == NFS4ERR_ACCESS && st_has_open(c->srv->state, c->st.client, &key, &who, OPEN4_SHARE_ACCESS_WRITE))
		return NFS4_OK;
	return st;
}

nfsstat4 op_commit(struct compound *c)
{
	COMMIT4args a = {.offset = 0};
	COMMIT4resok res;
	uint64_t end;
	nfsstat4 st;

	if ((st = C_DECODE(c, COMMIT4args, &a)) != NFS4_OK || (st = must_be_regular(c->cfh.node)) != NFS4_OK)
		return st;
	if (!add_ok(a.offset, (uint64_t)a.count, &end))
		return NFS4ERR_INVAL;
	if ((st = may_commit(c)) != NFS4_OK || (st = make_stable(c, a.offset, a.count)) != NFS4_OK)
		return st;
	memcpy(res.writeverf, c->srv->write_verf, sizeof res.writeverf);
	return C_ENCODE(c, COMMIT4resok, &res);
}

/* ---- sparse files -------------------------------------------------------------------------------------------------------------------- */

nfsstat4 op_seek(struct compound *c)
{
	SEEK4args a = {.sa_offset = 0};
	seek_res4 res = {.sr_eof = false};
	struct fs_attr at;
	uint64_t found = 0;
	nfsstat4 st;
	int err;

	if ((st = C_DECODE(c, SEEK4args, &a)) != NFS4_OK ||
	    (st = may_io(c, &a.sa_stateid, OPEN4_SHARE_ACCESS_READ, NULL)) != NFS4_OK)
		return st;
	if (a.sa_what != NFS4_CONTENT_DATA && a.sa_what != NFS4_CONTENT_HOLE)
		return NFS4ERR_UNION_NOTSUPP;
	if ((st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, nowait(c), &at))) != NFS4_OK)
		return st;
	if (a.sa_offset >= at.size)
		return NFS4ERR_NXIO;
	err = c->cfh.node->fs->ops->seek(c->cfh.node, a.sa_offset,
					 a.sa_what == NFS4_CONTENT_DATA ? FS_SEEK_DATA : FS_SEEK_HOLE, &found);
	/* RFC 7862 §15.11.3: no more data behind the offset is eof, not an error. */
	if (err == -ENXIO) {
		res.sr_eof = true;
		found = at.size;
		err = 0;
	}
	if (err)
		return errno_status(err);
	if (a.sa_what == NFS4_CONTENT_HOLE && found >= at.size)
		res.sr_eof = true;
	res.sr_offset = found;
	return C_ENCODE(c, seek_res4, &res);
}

static nfsstat4 range(struct compound *c, stateid4 *sid, uint64_t off, uint64_t len)
{
	uint64_t end;
	nfsstat4 st = may_io(c, sid, OPEN4_SHARE_ACCESS_WRITE, NULL);

	if (st == NFS4_OK && (len == 0 || !add_ok(off, len, &end)))
		st = NFS4ERR_INVAL;
	return st != NFS4_OK ? st : drop_setid(c);
}

nfsstat4 op_allocate(struct compound *c)
{
	ALLOCATE4args a = {.aa_offset = 0};
	nfsstat4 st = C_DECODE(c, ALLOCATE4args, &a);

	if (st == NFS4_OK)
		st = range(c, &a.aa_stateid, a.aa_offset, a.aa_length);
	return st != NFS4_OK ? st : errno_status(c->cfh.node->fs->ops->alloc(c->cfh.node, a.aa_offset, a.aa_length));
}

nfsstat4 op_deallocate(struct compound *c)
{
	DEALLOCATE4args a = {.da_offset = 0};
	nfsstat4 st = C_DECODE(c, DEALLOCATE4args, &a);

	if (st == NFS4_OK)
		st = range(c, &a.da_stateid, a.da_offset, a.da_length);
	return st != NFS4_OK ? st : errno_status(c->cfh.node->fs->ops->punch(c->cfh.node, a.da_offset, a.da_length));
}
