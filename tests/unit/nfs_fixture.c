/* SPDX-License-Identifier: BSD-3-Clause */
/* nfs_fixture.c - see nfs_fixture.h */
#include "tests/unit/nfs_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "server/rpc/rpc_int.h" /* a connection that is not one */
#include "xdr/prims.h"

enum { RPC_HEAD = 28 };

static struct rpc_conn nowhere;

/* ---- the server -------------------------------------------------------------------------------------------------------- */

static void closed(void *arg, int err)
{
	(void)arg;
	ck_assert_int_eq(err, 0);
}

void nf_server_start(struct nf_server *s)
{
	static const struct export_opts eo = {.anon_uid = 65534, .anon_gid = 65534};
	static const struct st_opts so;

	*s = (struct nf_server){
		.srv = {.max_read = 65536, .max_write = 65536, .fh = {.on = true, .key = "tests' own key"}}};
	s->fs = memfs_new();
	ck_assert_ptr_nonnull(s->fs);
	ck_assert_int_eq(st_new(&s->srv.state, &so, NULL), 0);
	ck_assert_int_eq(exports_new(&s->srv.exports, NULL), 0);
	ck_assert_int_eq(exports_add(s->srv.exports, "/mem", s->fs, &eo, closed, NULL, NULL), 0);
}

void nf_server_stop(struct nf_server *s)
{
	st_free(s->srv.state);
	ck_assert_int_eq(exports_free(s->srv.exports), 0);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void put_word(void *at, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(at, &v, sizeof v);
}

void nf_begin_bare(struct nf *n)
{
	uint32_t none = 0;

	arena_reset(&n->arena);
	xa_out_init(&n->out, &n->arena, 1 << 20);
	n->nops = 0;
	ck_assert(xa_uint32(&n->out.x, &none)); /* tag */
	ck_assert(xa_uint32(&n->out.x, &n->minor));
	n->nops_at = xa_out_reserve(&n->out, 4);
	ck_assert_ptr_nonnull(n->nops_at);
}

void nf_op(struct nf *n, uint32_t op)
{
	ck_assert(xa_uint32(&n->out.x, &op));
	n->nops++;
}

void nf_begin(struct nf *n)
{
	SEQUENCE4args a = {.sa_sequenceid = ++n->seq[n->slot],
			   .sa_slotid = n->slot,
			   .sa_highest_slotid = n->slot,
			   .sa_cachethis = n->cache_this};

	nf_begin_bare(n);
	memcpy(a.sa_sessionid, n->session, sizeof n->session);
	nf_op(n, OP_SEQUENCE);
	NF_PUT(n, SEQUENCE4args, &a);
}

static void take_reply(struct nf *n, struct rpc_call *call)
{
	uint8_t *all = malloc(xa_out_len(&call->out));

	ck_assert_ptr_nonnull(all);
	ck_assert(xa_out_copy(&call->out, all, xa_out_len(&call->out)));
	n->reply_len = xa_out_len(&call->out) - RPC_HEAD;
	free(n->reply);
	n->reply = malloc(n->reply_len + 1);
	ck_assert_ptr_nonnull(n->reply);
	memcpy(n->reply, all + RPC_HEAD, n->reply_len);
	free(all);
}

void nf_try(struct nf *n)
{
	struct rpc_call call = {
		.conn = &nowhere, .vers = 4, .proc = 1, .cred = {.flavor = AUTH_SYS, .uid = n->uid, .gid = n->uid}};
	enum rpc_verdict v;

	arena_init(&call.arena, n->memory ? n->memory : 4 << 20);
	xa_in_init(&call.in, &call.arena, n->record, n->record_len);
	xa_out_init(&call.out, &call.arena, 1 << 20);
	ck_assert_ptr_nonnull(xa_out_reserve(&call.out, RPC_HEAD));
	call.header_len = RPC_HEAD;
	call.record_len = n->record_len + RPC_HEAD;
	v = nfs4_call(&n->s->srv, &call);
	if (v == RPC_PARK) {
		n->s->parked++;
		call.may_block = true;
		v = nfs4_call(&n->s->srv, &call);
	}
	ck_assert_int_eq(v, RPC_REPLY);
	n->accept = call.accept;
	take_reply(n, &call);
	nfs4_done(&n->s->srv, &call);
	xa_out_fini(&call.out);
	arena_fini(&call.arena);
}

static nfsstat4 read_head(struct nf *n)
{
	uint32_t st = 0, tag_len = 0;

	arena_reset(&n->in_arena);
	xa_in_init(&n->in, &n->in_arena, n->reply, n->reply_len);
	ck_assert(xa_uint32(&n->in, &st) && xa_uint32(&n->in, &tag_len) && xa_uint32(&n->in, &n->count));
	ck_assert_uint_eq(tag_len, 0);
	return (nfsstat4)st;
}

nfsstat4 nf_resend(struct nf *n)
{
	nf_try(n);
	ck_assert_uint_eq(n->accept, SUCCESS);
	return read_head(n);
}

nfsstat4 nf_send_bare(struct nf *n)
{
	put_word(n->nops_at, n->nops);
	n->record_len = xa_out_len(&n->out);
	free(n->record);
	n->record = malloc(n->record_len + 1);
	ck_assert_ptr_nonnull(n->record);
	ck_assert(xa_out_copy(&n->out, n->record, n->record_len));
	xa_out_fini(&n->out);
	return nf_resend(n);
}

nfsstat4 nf_result(struct nf *n, uint32_t op)
{
	uint32_t num = 0, st = 0;

	ck_assert(xa_uint32(&n->in, &num) && xa_uint32(&n->in, &st));
	ck_assert_uint_eq(num, op);
	return (nfsstat4)st;
}

nfsstat4 nf_send(struct nf *n)
{
	nfsstat4 st = nf_send_bare(n);
	SEQUENCE4resok res;

	ck_assert_int_eq(nf_result(n, OP_SEQUENCE), NFS4_OK);
	NF_GET(n, SEQUENCE4resok, &res);
	return st;
}

/* ---- the client ------------------------------------------------------------------------------------------------------------ */

static void exchange_id(struct nf *n, const char *owner)
{
	EXCHANGE_ID4args a = {.eia_flags = EXCHGID4_FLAG_USE_NON_PNFS};
	EXCHANGE_ID4resok res;

	memcpy(a.eia_clientowner.co_verifier, "verifier", 8);
	a.eia_clientowner.co_ownerid.co_ownerid_val = (char *)(uintptr_t)owner;
	a.eia_clientowner.co_ownerid.co_ownerid_len = (u_int)strlen(owner);
	nf_begin_bare(n);
	nf_op(n, OP_EXCHANGE_ID);
	NF_PUT(n, EXCHANGE_ID4args, &a);
	ck_assert_int_eq(nf_send_bare(n), NFS4_OK);
	nf_result(n, OP_EXCHANGE_ID);
	NF_GET(n, EXCHANGE_ID4resok, &res);
	n->clientid = res.eir_clientid;
}

static void create_session(struct nf *n)
{
	const channel_attrs4 ch = {.ca_maxrequestsize = 1 << 17,
				   .ca_maxresponsesize = 1 << 17,
				   .ca_maxresponsesize_cached = 2048,
				   .ca_maxoperations = 32,
				   .ca_maxrequests = 8};
	CREATE_SESSION4args a = {.csa_clientid = n->clientid,
				 .csa_sequence = 1,
				 .csa_fore_chan_attrs = ch,
				 .csa_back_chan_attrs = ch,
				 .csa_cb_program = 0x40000000};
	CREATE_SESSION4resok res;

	nf_begin_bare(n);
	nf_op(n, OP_CREATE_SESSION);
	NF_PUT(n, CREATE_SESSION4args, &a);
	ck_assert_int_eq(nf_send_bare(n), NFS4_OK);
	nf_result(n, OP_CREATE_SESSION);
	NF_GET(n, CREATE_SESSION4resok, &res);
	memcpy(n->session, res.csr_sessionid, sizeof n->session);
}

void nf_client(struct nf *n, struct nf_server *s, const char *owner)
{
	RECLAIM_COMPLETE4args rc = {.rca_one_fs = false};

	*n = (struct nf){.s = s, .minor = 2};
	arena_init(&n->arena, 4 << 20);
	arena_init(&n->in_arena, 4 << 20);
	exchange_id(n, owner);
	create_session(n);
	nf_begin(n);
	nf_op(n, OP_RECLAIM_COMPLETE);
	NF_PUT(n, RECLAIM_COMPLETE4args, &rc);
	ck_assert_int_eq(nf_send(n), NFS4_OK);
}

void nf_client_free(struct nf *n)
{
	free(n->record);
	free(n->reply);
	arena_fini(&n->arena);
	arena_fini(&n->in_arena);
}

/* ---- operations -------------------------------------------------------------------------------------------------------------- */

void nf_lookup(struct nf *n, const char *name)
{
	LOOKUP4args a;

	a.objname.utf8string_val = (char *)(uintptr_t)name;
	a.objname.utf8string_len = (u_int)strlen(name);
	nf_op(n, OP_LOOKUP);
	NF_PUT(n, LOOKUP4args, &a);
}

void nf_goto_mem(struct nf *n)
{
	nf_op(n, OP_PUTROOTFH);
	nf_lookup(n, "mem");
}

void nf_at_mem(struct nf *n)
{
	ck_assert_int_eq(nf_result(n, OP_PUTROOTFH), NFS4_OK);
	ck_assert_int_eq(nf_result(n, OP_LOOKUP), NFS4_OK);
}

void nf_putfh(struct nf *n, const nfs_fh4 *fh)
{
	PUTFH4args a = {.object = *fh};

	nf_op(n, OP_PUTFH);
	NF_PUT(n, PUTFH4args, &a);
}

void nf_stateid_op(struct nf *n, uint32_t op, const stateid4 *sid)
{
	FREE_STATEID4args f = {.fsa_stateid = *sid};
	CLOSE4args c = {.open_stateid = *sid};

	nf_op(n, op);
	if (op == OP_CLOSE)
		NF_PUT(n, CLOSE4args, &c);
	else
		NF_PUT(n, FREE_STATEID4args, &f);
}

static fattr4 attr(struct nf *n, unsigned num, const uint8_t *value, u_int len)
{
	fattr4 a = {{0}, {0}};

	a.attrmask.bitmap4_len = num / 32 + 1;
	a.attrmask.bitmap4_val = arena_zalloc(&n->arena, a.attrmask.bitmap4_len * sizeof(uint32_t));
	a.attr_vals.attrlist4_val = arena_alloc(&n->arena, len);
	ck_assert_ptr_nonnull(a.attrmask.bitmap4_val);
	ck_assert_ptr_nonnull(a.attr_vals.attrlist4_val);
	a.attrmask.bitmap4_val[num / 32] |= 1u << num % 32;
	memcpy(a.attr_vals.attrlist4_val, value, len);
	a.attr_vals.attrlist4_len = len;
	return a;
}

fattr4 nf_attr_mode(struct nf *n, uint32_t mode)
{
	uint8_t v[4];

	put_word(v, mode);
	return attr(n, FATTR4_MODE, v, sizeof v);
}

fattr4 nf_attr_size(struct nf *n, uint64_t size)
{
	uint8_t v[8];

	put_word(v, (uint32_t)(size >> 32));
	put_word(v + 4, (uint32_t)size);
	return attr(n, FATTR4_SIZE, v, sizeof v);
}

bool nf_mask_has(const bitmap4 *m, unsigned num)
{
	return m->bitmap4_len > num / 32 && m->bitmap4_val[num / 32] & 1u << num % 32;
}
