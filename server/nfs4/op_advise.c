/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * op_advise.c - IO_ADVISE (RFC 7862 §15.5), and what reads say about the next ones
 *
 * Decisions are advise/stream.h's, memory and reading ahead the cache's. Here they meet: who reads, on whose account, and what the
 * answer says.
 */
#include <errno.h>
#include <string.h>

#include "advise/stream.h"
#include "server/nfs4/compound.h"
#include "server/nfs4/counters.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"

/* ---- reads ------------------------------------------------------------------------------------------------------------------------ */

uint16_t who_reads(const struct compound *c, const stateid4 *sid)
{
	uint64_t a = st_client_id(c->st.client), b = 0;

	if (!st_is_special(sid)) {
		memcpy(&a, sid->other, sizeof a);
		memcpy(&b, sid->other + sizeof sid->other - sizeof b, sizeof b);
	}
	a = (a ^ (b << 32 | b >> 32)) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint16_t)(1 + (a >> 40) % CACHE_WHO_MAX);
}

/* What a client may have read ahead is on an account. */
static uint16_t account_of(const struct compound *c)
{
	uint64_t id = st_client_id(c->st.client);

	return (uint16_t)(1 + (id ^ id >> 32) % (CACHE_ACCOUNTS - 1));
}

/* What is read ahead for a file, for one of its runs or because somebody said so. */
#define TAG_SAID UINT64_C(15)
static uint64_t tag_of(const struct fs_node *n, uint64_t what)
{
	return (uint64_t)(uintptr_t)n << 4 | what;
}

void forget_ahead(struct fs_node *n)
{
	if (n->fs->ops->unwant)
		n->fs->ops->unwant(n->fs, tag_of(n, 0), ~UINT64_C(15));
}

static void read_ahead(struct fs_node *n, const struct adv_step *step)
{
	for (unsigned i = 0; i < step->ahead_n; i++) {
		struct fs_hint h = {
			.off = step->ahead_off + (uint64_t)step->ahead_step * i,
			.len = step->ahead_len,
			.how = FS_WILLNEED,
			.flags = FS_NOWAIT,
			.down = step->ahead_down,
			.tag = tag_of(n, step->run),
		};

		if (n->fs->ops->advise(n, &h) < 0)
			h.taken = h.down ? h.off + h.len : h.off;
		if (h.taken != (h.down ? h.off : h.off + h.len)) {
			adv_taken(&n->stream, step, h.taken, h.at_end);
			return;
		}
	}
}

void look_ahead(struct compound *c, uint32_t said, uint64_t off, uint32_t len, uint16_t who)
{
	struct fs_node *n = c->cfh.node;
	const struct fs_ops *ops = n->fs->ops;
	struct adv_step step;

	if (!ops->advise || !len)
		return;
	adv_read(&n->stream, &c->srv->advice, said, off, len, c->may_block, &step);
	for (unsigned i = 0; step.unwanted >> i; i++)
		if (step.unwanted >> i & 1)
			ops->unwant(n->fs, tag_of(n, i), UINT64_MAX);
	if (step.ahead_len)
		read_ahead(n, &step);
	if (step.drop_len) {
		struct fs_hint h = {
			.off = step.drop_off, .len = step.drop_len, .how = FS_NOREUSE, .flags = FS_NOWAIT, .who = who};

		ops->advise(n, &h);
	}
}

/* ---- hints ------------------------------------------------------------------------------------------------------------------------------ */

#define HINT(h) (1u << (h))

/* One-time instructions about a range, and what the file system makes of them. */
static const struct {
	uint32_t hint, against; /* asked together with one of these, it is not followed */
	enum fs_advice how;
} actions[] = {
	{HINT(IO_ADVISE4_WILLNEED), HINT(IO_ADVISE4_DONTNEED), FS_WILLNEED},
	{HINT(IO_ADVISE4_WILLNEED_OPPORTUNISTIC), HINT(IO_ADVISE4_DONTNEED), FS_MAPS},
	{HINT(IO_ADVISE4_WRITE), 0, FS_RESERVE},
	{HINT(IO_ADVISE4_DONTNEED), HINT(IO_ADVISE4_WILLNEED) | HINT(IO_ADVISE4_WILLNEED_OPPORTUNISTIC), FS_DONTNEED},
};

struct said {
	uint32_t hints, followed;
};

static uint32_t merge(uint32_t before, void *arg)
{
	struct said *s = arg;

	return adv_merge(before, s->hints, &s->followed);
}

/* Hints that hold from now on: for this open; or for what this client reads without one. */
static nfsstat4 take_hints(struct compound *c, const stateid4 *sid, uint32_t hints, uint32_t *followed)
{
	struct fs_stream *stream = &c->cfh.node->stream;
	struct said said = {.hints = hints};
	struct st_fhkey key = fh_key(&c->cfh);
	nfsstat4 st;

	if (st_is_special(sid)) {
		if (st_advise_unopened(&c->st, &key, merge, &said))
			*followed = said.followed;
		return NFS4_OK;
	}
	st = st_advise(c->srv->state, c->st.client, &key, sid, merge, &said);
	if (st == NFS4_OK && said.followed & ~(uint32_t)ADV_NOREUSE) {
		adv_anew(stream, said.followed);
		c->cfh.node->fs->ops->unwant(c->cfh.node->fs, tag_of(c->cfh.node, 0), ~(uint64_t)(FS_RUNS - 1));
	}
	*followed = said.followed;
	return st;
}

static void count_open(void *arg, const struct st_open_info *i)
{
	(void)i;
	++*(unsigned *)arg;
}

/* Has nobody else the file open? Then what its memory holds is the caller's to give up. */
static bool is_alone(struct compound *c, const stateid4 *sid)
{
	struct st_fhkey key = fh_key(&c->cfh);
	unsigned n = 0;

	st_each_open(c->srv->state, &key, count_open, &n);
	return n <= (st_is_special(sid) ? 0 : 1); /* its own */
}

/* Space is reserved for those who may write. */
static bool may_reserve(struct compound *c, const stateid4 *sid)
{
	struct st_fhkey key = fh_key(&c->cfh);

	return !st_is_special(sid) &&
	       st_io_check(c->srv->state, c->st.client, &key, sid, OPEN4_SHARE_ACCESS_WRITE, NULL) == NFS4_OK;
}

/* What is done once, about the range. *followed grows by what is. */
static nfsstat4 do_once(struct compound *c, const IO_ADVISE4args *a, uint32_t asked, uint32_t *followed)
{
	struct fs_node *n = c->cfh.node;

	for (size_t i = 0; i < ARRAY_LEN(actions); i++) {
		struct fs_hint h = {
			.off = a->iaa_offset,
			.len = a->iaa_count,
			.how = actions[i].how,
			.flags = nowait(c),
			.account = account_of(c),
			.tag = tag_of(n, TAG_SAID),
		};
		int err;

		if (!(asked & actions[i].hint) || asked & actions[i].against)
			continue;
		if (h.how == FS_RESERVE && (!may_reserve(c, &a->iaa_stateid) || c->cfh.exp->read_only))
			continue;
		if (h.how == FS_DONTNEED) {
			h.who = who_reads(c, &a->iaa_stateid);
			h.alone = is_alone(c, &a->iaa_stateid);
			n->fs->ops->unwant(n->fs, h.tag, UINT64_MAX);
		}
		err = n->fs->ops->advise(n, &h);
		if (err == -EAGAIN && !c->may_block)
			return ST_WAIT;
		if (!err)
			*followed |= actions[i].hint;
	}
	return NFS4_OK;
}

/* Of a server that reads nothing ahead, what can be followed. READ says what is done anyway when something else is followed. */
static uint32_t honoured(const struct compound *c, uint32_t asked, uint32_t followed)
{
	if (!c->srv->advice.window_max)
		followed &= ~(HINT(IO_ADVISE4_SEQUENTIAL) | HINT(IO_ADVISE4_SEQUENTIAL_BACKWARDS));
	return followed ? followed | (asked & HINT(IO_ADVISE4_READ)) : 0;
}

/* RFC 7862 §15.5: the answer holds the hints that are followed, of those that were given; an empty one is no error, and what is not
 * understood is none either. Never NFS4ERR_NOTSUPP, which would make clients stop sending hints for the whole mount. */
nfsstat4 op_io_advise(struct compound *c)
{
	IO_ADVISE4args a = {.iaa_offset = 0};
	IO_ADVISE4resok res = {.ior_hints = {.bitmap4_len = 0}};
	uint32_t asked, followed = 0;
	uint64_t end;
	nfsstat4 st;

	if ((st = C_DECODE(c, IO_ADVISE4args, &a)) != NFS4_OK || (st = may_io(c, &a.iaa_stateid, 0, NULL)) != NFS4_OK)
		return st;
	if (!add_ok(a.iaa_offset, a.iaa_count, &end))
		return NFS4ERR_INVAL;
	asked = a.iaa_hints.bitmap4_len ? a.iaa_hints.bitmap4_val[0] : 0;
	if (c->cfh.node->fs->ops->advise && ((st = take_hints(c, &a.iaa_stateid, asked, &followed)) != NFS4_OK ||
					     (st = do_once(c, &a, asked, &followed)) != NFS4_OK))
		return st;
	followed = honoured(c, asked, followed);
	count_hints(asked, followed);
	res.ior_hints = (bitmap4){.bitmap4_len = followed != 0, .bitmap4_val = &followed};
	return C_ENCODE(c, IO_ADVISE4resok, &res);
}
