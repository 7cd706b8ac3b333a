/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * attr.c - fattr4: one table of attributes, read by everything
 *
 * Encoding walks the bits that are asked for and supported, in ascending order (RFC 8881 §5.2); the inode's attributes and
 * the file system's are fetched once, the latter only when a row needs them.
 */
#include <stdlib.h>
#include <string.h>

#include "server/nfs4/compound.h"
#include "vhd/base/endian.h"
#include "xdr/prims.h"

#define ROW_MAX 28u                               /* bytes of one attribute at most */
#define OWN_MAX (24u + ATTR_WORDS * 32 * ROW_MAX) /* of a fattr4, scratch behind it included */

struct attr_ctx {
	struct compound *c;
	const struct attr_plan *p;
	const struct fs_attr *a;
};

typedef uint8_t *get_fn(const struct attr_ctx *x, uint8_t *p); /* writes at p, returns behind */
typedef nfsstat4 set_fn(struct compound *c, XDR *in, struct fs_setattr *s);

enum { WANTS_STATFS = 1, NEW_ONLY = 2, EXISTING_ONLY = 4 };

struct attr_desc {
	get_fn *get;
	set_fn *set;
	uint8_t flags;
};

/* ---- getters -------------------------------------------------------------------------------------------------------------- */

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	const be32 b = be32_of(v);

	memcpy(p, &b, sizeof b);
	return p + sizeof b;
}

static uint8_t *put64(uint8_t *p, uint64_t v)
{
	const be64 b = be64_of(v);

	memcpy(p, &b, sizeof b);
	return p + sizeof b;
}

static uint8_t *put_time(uint8_t *p, const struct fs_time *t)
{
	return put32(put64(p, (uint64_t)t->sec), t->nsec);
}

/* An opaque<> or string<>, with its padding. */
static uint8_t *put_opaque(uint8_t *p, const void *from, uint32_t len)
{
	p = put32(p, len);
	memset(p + (len & ~3u), 0, 4);
	memcpy(p, from, len);
	return p + ((len + 3) & ~3u);
}

static uint8_t *put_bitmap(uint8_t *p, const uint32_t *w, uint32_t n)
{
	while (n && !w[n - 1])
		n--;
	p = put32(p, n);
	for (uint32_t i = 0; i < n; i++)
		p = put32(p, w[i]);
	return p;
}

/* Owners are numbers in decimal: RFC 8881 §5.9 allows it, and every client of AUTH_SYS understands it. */
static uint8_t *put_id(uint8_t *p, uint32_t id)
{
	char text[10], *t = text + sizeof text;

	do
		*--t = (char)('0' + id % 10);
	while (id /= 10);
	return put_opaque(p, t, (uint32_t)(text + sizeof text - t));
}

#define GET(name, expr)                                                                                                \
	static uint8_t *get_##name(const struct attr_ctx *x, uint8_t *p)                                               \
	{                                                                                                              \
		(void)x;                                                                                               \
		return expr;                                                                                           \
	}

static const uint32_t types[] = {
	[FS_REG] = NF4REG, [FS_DIR] = NF4DIR,   [FS_LNK] = NF4LNK,   [FS_BLK] = NF4BLK,
	[FS_CHR] = NF4CHR, [FS_FIFO] = NF4FIFO, [FS_SOCK] = NF4SOCK,
};

static const uint32_t *supported_words(void);
static const uint32_t *exclcreat_words(void);

static uint8_t *get_filehandle(const struct attr_ctx *x, uint8_t *p)
{
	uint8_t fh[NFS4_FHSIZE];
	uint32_t len = fh_encode(x->c->srv, x->p->exp, x->a->ino, x->a->gen, fh);

	return put_opaque(p, fh, len);
}

/* The root of an export is mounted on a directory of the pseudo-root. */
static uint8_t *get_mounted_on(const struct attr_ctx *x, uint8_t *p)
{
	struct fs_node *up, *on = NULL;
	const char *name;
	uint64_t ino = x->a->ino;

	if (!x->p->exp->pseudo && ino == x->p->exp->fs->root->ino) {
		up = export_mount_parent(x->c->srv->exports, x->p->exp);
		name = strrchr(x->p->exp->path, '/') + 1;
		if (up->fs->ops->lookup(up, name, (uint32_t)strlen(name), 0, &on) == 0)
			ino = on->ino;
		fs_node_put(on);
		fs_node_put(up);
	}
	return put64(p, ino);
}

GET(supported, put_bitmap(p, supported_words(), ATTR_WORDS))
GET(type, put32(p, types[x->a->type]))
GET(fh_expire, put32(p, FH4_PERSISTENT))
GET(change, put64(p, x->a->change + x->c->srv->change_base))
GET(size, put64(p, x->a->size))
GET(yes, put32(p, 1))
GET(no, put32(p, 0))
GET(fsid, put64(put64(p, x->p->exp->id), 0))
GET(lease, put32(p, st_lease_seconds(x->c->srv->state)))
GET(rdattr_error, put32(p, NFS4_OK))
GET(aclsupport, put32(p, 0))
GET(fileid, put64(p, x->a->ino))
GET(files_avail, put64(p, x->p->s.files_free))
GET(files_free, put64(p, x->p->s.files_free))
GET(files_total, put64(p, x->p->s.files_total))
GET(maxfilesize, put64(p, x->p->s.file_size_max))
GET(maxlink, put32(p, x->p->s.link_max))
GET(maxname, put32(p, x->p->s.name_max))
GET(maxread, put64(p, x->c->srv->max_read))
GET(maxwrite, put64(p, x->c->srv->max_write))
GET(mode, put32(p, x->a->mode))
GET(numlinks, put32(p, x->a->nlink))
GET(owner, put_id(p, x->a->uid))
GET(owner_group, put_id(p, x->a->gid))
GET(rawdev, put32(put32(p, x->a->rdev_major), x->a->rdev_minor))
GET(space_avail, put64(p, x->p->s.bytes_avail))
GET(space_free, put64(p, x->p->s.bytes_free))
GET(space_total, put64(p, x->p->s.bytes_total))
GET(space_used, put64(p, x->a->space))
GET(time_access, put_time(p, &x->a->atime))
GET(time_create, put_time(p, &x->a->btime))
GET(time_delta, put32(put64(p, 0), 1))
GET(time_metadata, put_time(p, &x->a->ctime))
GET(time_modify, put_time(p, &x->a->mtime))
GET(exclcreat, put_bitmap(p, exclcreat_words(), ATTR_WORDS))
GET(charset, put32(p, FSCHARSET_CAP4_CONTAINS_NON_UTF8))
GET(change_type, put32(p, NFS4_CHANGE_TYPE_IS_MONOTONIC_INCR))

/* ---- setters -------------------------------------------------------------------------------------------------------------- */

static nfsstat4 set_size(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	s->what |= FS_SET_SIZE;
	return xa_uint64(in, &s->size) ? NFS4_OK : NFS4ERR_BADXDR;
}

static nfsstat4 set_mode(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	s->what |= FS_SET_MODE;
	if (!xa_uint32(in, &s->mode))
		return NFS4ERR_BADXDR;
	return s->mode & ~07777u ? NFS4ERR_INVAL : NFS4_OK;
}

/* "1000", or "1000@domain" as some clients write it. */
static nfsstat4 take_id(XDR *in, uint32_t *id)
{
	utf8str_mixed who = {.utf8string_len = 0};
	uint64_t v = 0;
	uint32_t i;

	if (!xdr_utf8str_mixed(in, &who))
		return NFS4ERR_BADXDR;
	for (i = 0; i < who.utf8string_len && who.utf8string_val[i] != '@'; i++) {
		char ch = who.utf8string_val[i];

		if (ch < '0' || ch > '9' || v > UINT32_MAX)
			return NFS4ERR_BADOWNER;
		v = v * 10 + (uint64_t)(ch - '0');
	}
	/* All ones is nobody's number: chown(2) takes it for "leave it". */
	if (i == 0 || v >= UINT32_MAX)
		return who.utf8string_len == 0 ? NFS4ERR_INVAL : NFS4ERR_BADOWNER;
	*id = (uint32_t)v;
	return NFS4_OK;
}

static nfsstat4 set_owner(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	s->what |= FS_SET_UID;
	return take_id(in, &s->uid);
}

static nfsstat4 set_group(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	s->what |= FS_SET_GID;
	return take_id(in, &s->gid);
}

static nfsstat4 take_nfstime(XDR *in, struct fs_time *t)
{
	if (!xa_int64(in, &t->sec) || !xa_uint32(in, &t->nsec))
		return NFS4ERR_BADXDR;
	return t->nsec > 999999999 ? NFS4ERR_INVAL : NFS4_OK;
}

static nfsstat4 take_settime(XDR *in, struct fs_setattr *s, unsigned now, unsigned given, struct fs_time *t)
{
	uint32_t how = 0;

	if (!xa_uint32(in, &how) || how > SET_TO_CLIENT_TIME4)
		return NFS4ERR_BADXDR;
	s->what |= how == SET_TO_SERVER_TIME4 ? now : given;
	return how == SET_TO_SERVER_TIME4 ? NFS4_OK : take_nfstime(in, t);
}

static nfsstat4 set_atime(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	return take_settime(in, s, FS_SET_ATIME_NOW, FS_SET_ATIME, &s->atime);
}

static nfsstat4 set_mtime(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	return take_settime(in, s, FS_SET_MTIME_NOW, FS_SET_MTIME, &s->mtime);
}

static nfsstat4 set_btime(struct compound *c, XDR *in, struct fs_setattr *s)
{
	(void)c;
	s->what |= FS_SET_BTIME;
	return take_nfstime(in, &s->btime);
}

/* mode_set_masked: some bits of the mode; those that are not named keep what they have. */
static nfsstat4 set_masked(struct compound *c, XDR *in, struct fs_setattr *s)
{
	struct fs_attr now = {.mode = 0};
	uint32_t value = 0, mask = 0;

	if (!xa_uint32(in, &value) || !xa_uint32(in, &mask))
		return NFS4ERR_BADXDR;
	if ((value | mask) & ~07777u || value & ~mask || s->what & FS_SET_MODE)
		return NFS4ERR_INVAL;
	if (c->cfh.exp && c->cfh.node->fs->ops->getattr(c->cfh.node, 0, &now) < 0)
		return NFS4ERR_IO;
	s->mode = (now.mode & ~mask) | value;
	s->what |= FS_SET_MODE;
	return NFS4_OK;
}

/* mode_umask: RFC 8275. The mask does not count where the directory has a default list: the file system knows. */
static nfsstat4 set_umask(struct compound *c, XDR *in, struct fs_setattr *s)
{
	uint32_t mode = 0, umask = 0;

	(void)c;
	if (!xa_uint32(in, &mode) || !xa_uint32(in, &umask))
		return NFS4ERR_BADXDR;
	if (mode & ~07777u || umask & ~0777u || s->what & FS_SET_MODE)
		return NFS4ERR_INVAL;
	s->mode = mode;
	s->umask = umask;
	s->what |= FS_SET_MODE;
	return NFS4_OK;
}

/* ---- the table -------------------------------------------------------------------------------------------------------------- */

static const struct attr_desc table[ATTR_WORDS * 32] = {
	[FATTR4_SUPPORTED_ATTRS] = {get_supported, NULL, 0},
	[FATTR4_TYPE] = {get_type, NULL, 0},
	[FATTR4_FH_EXPIRE_TYPE] = {get_fh_expire, NULL, 0},
	[FATTR4_CHANGE] = {get_change, NULL, 0},
	[FATTR4_SIZE] = {get_size, set_size, 0},
	[FATTR4_LINK_SUPPORT] = {get_yes, NULL, 0},
	[FATTR4_SYMLINK_SUPPORT] = {get_yes, NULL, 0},
	[FATTR4_NAMED_ATTR] = {get_no, NULL, 0},
	[FATTR4_FSID] = {get_fsid, NULL, 0},
	[FATTR4_UNIQUE_HANDLES] = {get_yes, NULL, 0},
	[FATTR4_LEASE_TIME] = {get_lease, NULL, 0},
	[FATTR4_RDATTR_ERROR] = {get_rdattr_error, NULL, 0},
	[FATTR4_ACLSUPPORT] = {get_aclsupport, NULL, 0},
	[FATTR4_CANSETTIME] = {get_yes, NULL, 0},
	[FATTR4_CASE_INSENSITIVE] = {get_no, NULL, 0},
	[FATTR4_CASE_PRESERVING] = {get_yes, NULL, 0},
	[FATTR4_CHOWN_RESTRICTED] = {get_yes, NULL, 0},
	[FATTR4_FILEHANDLE] = {get_filehandle, NULL, 0},
	[FATTR4_FILEID] = {get_fileid, NULL, 0},
	[FATTR4_FILES_AVAIL] = {get_files_avail, NULL, WANTS_STATFS},
	[FATTR4_FILES_FREE] = {get_files_free, NULL, WANTS_STATFS},
	[FATTR4_FILES_TOTAL] = {get_files_total, NULL, WANTS_STATFS},
	[FATTR4_HOMOGENEOUS] = {get_yes, NULL, 0},
	[FATTR4_MAXFILESIZE] = {get_maxfilesize, NULL, WANTS_STATFS},
	[FATTR4_MAXLINK] = {get_maxlink, NULL, WANTS_STATFS},
	[FATTR4_MAXNAME] = {get_maxname, NULL, WANTS_STATFS},
	[FATTR4_MAXREAD] = {get_maxread, NULL, 0},
	[FATTR4_MAXWRITE] = {get_maxwrite, NULL, 0},
	[FATTR4_MODE] = {get_mode, set_mode, 0},
	[FATTR4_NO_TRUNC] = {get_yes, NULL, 0},
	[FATTR4_NUMLINKS] = {get_numlinks, NULL, 0},
	[FATTR4_OWNER] = {get_owner, set_owner, 0},
	[FATTR4_OWNER_GROUP] = {get_owner_group, set_group, 0},
	[FATTR4_RAWDEV] = {get_rawdev, NULL, 0},
	[FATTR4_SPACE_AVAIL] = {get_space_avail, NULL, WANTS_STATFS},
	[FATTR4_SPACE_FREE] = {get_space_free, NULL, WANTS_STATFS},
	[FATTR4_SPACE_TOTAL] = {get_space_total, NULL, WANTS_STATFS},
	[FATTR4_SPACE_USED] = {get_space_used, NULL, 0},
	[FATTR4_TIME_ACCESS] = {get_time_access, NULL, 0},
	[FATTR4_TIME_ACCESS_SET] = {NULL, set_atime, 0},
	[FATTR4_TIME_CREATE] = {get_time_create, set_btime, 0},
	[FATTR4_TIME_DELTA] = {get_time_delta, NULL, 0},
	[FATTR4_TIME_METADATA] = {get_time_metadata, NULL, 0},
	[FATTR4_TIME_MODIFY] = {get_time_modify, NULL, 0},
	[FATTR4_TIME_MODIFY_SET] = {NULL, set_mtime, 0},
	[FATTR4_MOUNTED_ON_FILEID] = {get_mounted_on, NULL, 0},
	[FATTR4_MODE_SET_MASKED] = {NULL, set_masked, EXISTING_ONLY},
	[FATTR4_SUPPATTR_EXCLCREAT] = {get_exclcreat, NULL, 0},
	[FATTR4_FS_CHARSET_CAP] = {get_charset, NULL, 0},
	[FATTR4_CHANGE_ATTR_TYPE] = {get_change_type, NULL, 0},
	[FATTR4_MODE_UMASK] = {NULL, set_umask, NEW_ONLY},
};

static bool has(const struct attr_desc *d)
{
	return d->get || d->set;
}

/* Both masks follow from the table; computing them twice at once gives the same words. */
static const uint32_t *mask_words(bool excl)
{
	static _Thread_local uint32_t words[2][ATTR_WORDS];
	static _Thread_local bool ready;

	for (uint32_t i = 0; !ready && i < ATTR_WORDS * 32; i++) {
		if (has(&table[i]))
			words[0][i / 32] |= 1u << i % 32;
		/* Times carry the verifier of an exclusive create. */
		if (table[i].set && i != FATTR4_TIME_ACCESS_SET && i != FATTR4_TIME_MODIFY_SET &&
		    i != FATTR4_MODE_SET_MASKED)
			words[1][i / 32] |= 1u << i % 32;
	}
	ready = true;
	return words[excl];
}

static const uint32_t *supported_words(void)
{
	return mask_words(false);
}

static const uint32_t *exclcreat_words(void)
{
	return mask_words(true);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------------- */

nfsstat4 attr_plan(struct export *exp, const bitmap4 *want, struct attr_plan *p)
{
	const uint32_t *sup = supported_words();
	bool statfs = false;

	p->exp = exp;
	p->n = 0;
	memset(p->w, 0, sizeof p->w);
	for (uint32_t i = 0; i < ATTR_WORDS && i < want->bitmap4_len; i++)
		p->w[i] = want->bitmap4_val[i] & sup[i];
	/* What can only be set cannot be asked for: RFC 8881 §5.5. */
	for (uint32_t i = 0; i < ATTR_WORDS; i++)
		for (uint32_t m = p->w[i]; m; m &= m - 1) {
			uint32_t k = i * 32 + (uint32_t)__builtin_ctz(m);

			if (!table[k].get)
				return NFS4ERR_INVAL;
			statfs |= table[k].flags & WANTS_STATFS;
			p->row[p->n++] = (uint8_t)k;
		}
	p->head_len = (uint32_t)(put_bitmap(p->head, p->w, ATTR_WORDS) - p->head);
	return statfs ? errno_status(exp->fs->ops->statfs(exp->fs, &p->s)) : NFS4_OK;
}

/* The fattr4; 24 bytes and ROW_MAX for each attribute must be there. Returns its length. */
static uint32_t put_fattr(const struct attr_ctx *x, uint8_t *to)
{
	uint8_t *len_at = to + x->p->head_len, *p = len_at + 4;

	memcpy(to, x->p->head, sizeof x->p->head);
	for (uint32_t i = 0; i < x->p->n; i++)
		p = table[x->p->row[i]].get(x, p);
	put32(len_at, (uint32_t)(p - len_at) - 4);
	return (uint32_t)(p - to);
}

nfsstat4 attr_put(struct compound *c, const struct attr_plan *plan, const struct fs_attr *a)
{
	const struct attr_ctx x = {.c = c, .p = plan, .a = a};
	uint8_t own[OWN_MAX];

	if (xa_out_open_room(c->out) >= 24 + plan->n * ROW_MAX) {
		xa_out_took(c->out, put_fattr(&x, xa_out_open(c->out)));
		return NFS4_OK;
	}
	return xa_opaque(&c->out->x, (char *)own, put_fattr(&x, own)) ? NFS4_OK : NFS4ERR_REP_TOO_BIG;
}

nfsstat4 attr_encode(struct compound *c, const struct obj *o, const bitmap4 *want)
{
	unsigned flags = nowait(c);
	struct attr_plan p;
	struct fs_attr a;
	nfsstat4 st = errno_status(o->node->fs->ops->getattr(o->node, flags, &a));

	if (st != NFS4_OK || (st = attr_plan(o->exp, want, &p)) != NFS4_OK)
		return st;
	return attr_put(c, &p, &a);
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------------- */

nfsstat4 attr_decode(struct compound *c, const fattr4 *a, bool creating, struct attr_set *out)
{
	XDR in;

	*out = (struct attr_set){.mask = a->attrmask};
	/* It is sent back when all is done, so it is no longer than what it says. */
	while (out->mask.bitmap4_len && !out->mask.bitmap4_val[out->mask.bitmap4_len - 1])
		out->mask.bitmap4_len--;
	for (uint32_t i = 0; i < a->attrmask.bitmap4_len; i++)
		for (uint32_t m = a->attrmask.bitmap4_val[i]; m; m &= m - 1) {
			uint32_t n = i * 32 + (uint32_t)__builtin_ctz(m);

			if (i >= ATTR_WORDS || !has(&table[n]))
				return NFS4ERR_ATTRNOTSUPP;
			if (!table[n].set || table[n].flags & (creating ? EXISTING_ONLY : NEW_ONLY))
				return NFS4ERR_INVAL;
		}
	xa_in_init(&in, &c->call->arena, a->attr_vals.attrlist4_val, a->attr_vals.attrlist4_len);
	for (uint32_t i = 0; i < ATTR_WORDS && i < a->attrmask.bitmap4_len; i++)
		for (uint32_t m = a->attrmask.bitmap4_val[i]; m; m &= m - 1) {
			nfsstat4 st = table[i * 32 + (uint32_t)__builtin_ctz(m)].set(c, &in, &out->fs);

			if (st != NFS4_OK)
				return st;
		}
	return xa_in_left(&in) ? NFS4ERR_BADXDR : NFS4_OK;
}

/* ---- VERIFY, NVERIFY --------------------------------------------------------------------------------------------------------------- */

/* Encode what we have for the same mask, elsewhere than in the reply, and compare. */
static nfsstat4 compare(struct compound *c, bool *same)
{
	VERIFY4args a = {.obj_attributes = {.attrmask = {0}}};
	const fattr4 *f = &a.obj_attributes;
	struct xa_out *reply = c->out, own;
	uint8_t mine[OWN_MAX];
	size_t len, head = 4;
	nfsstat4 st = C_DECODE(c, VERIFY4args, &a);

	if (st != NFS4_OK)
		return st;
	for (uint32_t i = 0; i < f->attrmask.bitmap4_len; i++)
		for (uint32_t m = f->attrmask.bitmap4_val[i]; m; m &= m - 1) {
			uint32_t n = i * 32 + (uint32_t)__builtin_ctz(m);

			if (i >= ATTR_WORDS || !has(&table[n]))
				return NFS4ERR_ATTRNOTSUPP;
			if (!table[n].get || n == FATTR4_RDATTR_ERROR)
				return NFS4ERR_INVAL;
			head = 4 + (i + 1) * 4;
		}
	xa_out_init(&own, &c->call->arena, sizeof mine);
	c->out = &own;
	st = attr_encode(c, &c->cfh, &f->attrmask);
	c->out = reply;
	if (st != NFS4_OK)
		return st == NFS4ERR_REP_TOO_BIG ? NFS4ERR_DELAY : st; /* no memory: all attributes fit */
	len = xa_out_len(&own);
	if (!xa_out_copy(&own, mine, len))
		return NFS4ERR_DELAY;
	head += 4; /* the length of the values */
	*same = len - head == f->attr_vals.attrlist4_len &&
		memcmp(mine + head, f->attr_vals.attrlist4_val, f->attr_vals.attrlist4_len) == 0;
	return NFS4_OK;
}

nfsstat4 op_verify(struct compound *c)
{
	bool same;
	nfsstat4 st = compare(c, &same);

	return st != NFS4_OK ? st : same ? NFS4_OK : NFS4ERR_NOT_SAME;
}

nfsstat4 op_nverify(struct compound *c)
{
	bool same;
	nfsstat4 st = compare(c, &same);

	return st != NFS4_OK ? st : same ? NFS4ERR_SAME : NFS4_OK;
}

nfsstat4 op_getattr(struct compound *c)
{
	GETATTR4args a = {.attr_request = {0}};
	nfsstat4 st = C_DECODE(c, GETATTR4args, &a);

	return st != NFS4_OK ? st : attr_encode(c, &c->cfh, &a.attr_request);
}

/* ---- SETATTR ------------------------------------------------------------------------------------------------------------------------- */

static nfsstat4 encode_set(struct compound *c, const bitmap4 *set)
{
	bitmap4 b = *set;

	return xdr_bitmap4(&c->out->x, &b) ? NFS4_OK : NFS4ERR_REP_TOO_BIG;
}

nfsstat4 setattr_fail(struct compound *c, nfsstat4 st)
{
	static const bitmap4 none;

	xa_out_set_limit(c->out, c->limit); /* the room that is kept for failures */
	return encode_set(c, &none) == NFS4_OK ? st : NFS4ERR_REP_TOO_BIG;
}

static nfsstat4 setattr(struct compound *c, struct attr_set *s)
{
	SETATTR4args a = {.stateid = {0}};
	struct st_fhkey key = fh_key(&c->cfh);
	struct st_io io = {.who = c_principal(c)};
	struct fs_attr now;
	stateid4 sid;
	nfsstat4 st;

	if ((st = C_DECODE(c, SETATTR4args, &a)) != NFS4_OK ||
	    (st = attr_decode(c, &a.obj_attributes, false, s)) != NFS4_OK ||
	    (st = errno_status(c->cfh.node->fs->ops->getattr(c->cfh.node, 0, &now))) != NFS4_OK)
		return st;
	if (s->fs.what & FS_SET_SIZE) {
		if (now.type == FS_DIR)
			return NFS4ERR_ISDIR;
		if (now.type != FS_REG)
			return NFS4ERR_INVAL;
		if ((st = c_stateid(c, &a.stateid, &sid)) != NFS4_OK ||
		    (st = c_io_check(c, &key, &sid, OPEN4_SHARE_ACCESS_WRITE, &io)) != NFS4_OK)
			return st;
		forget_ahead(c->cfh.node);
	}
	if ((st = attr_may_set(c, c->cfh.node, &now, io.own, s)) != NFS4_OK)
		return st;
	return s->fs.what ? errno_status(c->cfh.node->fs->ops->setattr(c->cfh.node, &s->fs, NULL)) : NFS4_OK;
}

nfsstat4 op_setattr(struct compound *c)
{
	struct attr_set s = {.mask = {0}};
	nfsstat4 st = setattr(c, &s);

	if (st == ST_WAIT)
		return st;
	return st == NFS4_OK ? encode_set(c, &s.mask) : setattr_fail(c, st);
}

change_info4 cinfo_of(const struct compound *c, const struct fs_cinfo *ci)
{
	uint64_t base = c->srv->change_base;

	return (change_info4){.atomic = ci->atomic, .before = ci->before + base, .after = ci->after + base};
}
