/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * op_session.c - clients and sessions: EXCHANGE_ID … RECLAIM_COMPLETE, SEQUENCE
 *
 * The rules are in server/state/; here arguments are checked for form and results are put together. Operations that may
 * stand without SEQUENCE must then stand alone (RFC 8881 §18.35.3 and its kin).
 */
#include <string.h>

#include "server/nfs4/compound.h"
#include "xdr/prims.h"

#define IMPL_DOMAIN "vhdnfs.org"
#define IMPL_NAME "vhdnfs " VHDNFS_VERSION

/* Ahead of a session, an operation has the COMPOUND to itself. */
static nfsstat4 alone_or_in_session(const struct compound *c)
{
	return c->has_session || c->nops == 1 ? NFS4_OK : NFS4ERR_NOT_ONLY_OP;
}

/* ---- EXCHANGE_ID ------------------------------------------------------------------------------------------------------------ */

static nfsstat4 check_exchange(const struct compound *c, const EXCHANGE_ID4args *a)
{
	uint32_t known = EXCHGID4_FLAG_SUPP_MOVED_REFER | EXCHGID4_FLAG_SUPP_MOVED_MIGR |
			 EXCHGID4_FLAG_BIND_PRINC_STATEID | EXCHGID4_FLAG_MASK_PNFS | EXCHGID4_FLAG_UPD_CONFIRMED_REC_A;

	if (c->minor >= 2)
		known |= EXCHGID4_FLAG_SUPP_FENCE_OPS;
	if (a->eia_flags & ~known)
		return NFS4ERR_INVAL;
	switch (a->eia_state_protect.spa_how) {
	case SP4_NONE:
		return NFS4_OK;
	case SP4_MACH_CRED: /* only for a caller that came with RPCSEC_GSS integrity or privacy, RFC 8881 §18.35.3 */
		return NFS4ERR_INVAL;
	case SP4_SSV: /* none of the algorithms that were offered is ours */
		return NFS4ERR_ENCR_ALG_UNSUPP;
	}
	return NFS4ERR_BADXDR;
}

/* RFC 8881 §18.35. Referrals and migration are not offered, nor binding of stateids to principals. */
nfsstat4 op_exchange_id(struct compound *c)
{
	struct st *s = c->srv->state;
	nfs_impl_id4 impl = {0};
	struct st_exchange x = {0};
	EXCHANGE_ID4resok res = {0};
	EXCHANGE_ID4args a = {0};
	nfsstat4 st;

	if ((st = alone_or_in_session(c)) != NFS4_OK || (st = C_DECODE(c, EXCHANGE_ID4args, &a)) != NFS4_OK ||
	    (st = check_exchange(c, &a)) != NFS4_OK)
		return st;
	x.owner.bytes = a.eia_clientowner.co_ownerid.co_ownerid_val;
	x.owner.len = a.eia_clientowner.co_ownerid.co_ownerid_len;
	memcpy(x.verifier, a.eia_clientowner.co_verifier, sizeof x.verifier);
	x.update = a.eia_flags & EXCHGID4_FLAG_UPD_CONFIRMED_REC_A;
	x.who = c_principal(c);
	x.peer = rpc_conn_peer(c->call->conn);
	st = st_exchange_id(s, &x);
	if (st != NFS4_OK)
		return st;

	res.eir_clientid = x.clientid;
	res.eir_sequenceid = x.sequenceid;
	res.eir_flags = EXCHGID4_FLAG_USE_NON_PNFS;
	if (x.confirmed)
		res.eir_flags |= EXCHGID4_FLAG_CONFIRMED_R;
	res.eir_state_protect.spr_how = SP4_NONE;
	res.eir_server_owner.so_major_id.so_major_id_val = (char *)(uintptr_t)st_server_owner(s);
	res.eir_server_owner.so_major_id.so_major_id_len = (u_int)strlen(st_server_owner(s));
	res.eir_server_scope.eir_server_scope_val = (char *)(uintptr_t)st_server_scope(s);
	res.eir_server_scope.eir_server_scope_len = (u_int)strlen(st_server_scope(s));
	impl.nii_domain.utf8string_val = (char *)(uintptr_t)IMPL_DOMAIN;
	impl.nii_domain.utf8string_len = sizeof IMPL_DOMAIN - 1;
	impl.nii_name.utf8string_val = (char *)(uintptr_t)IMPL_NAME;
	impl.nii_name.utf8string_len = sizeof IMPL_NAME - 1;
	res.eir_server_impl_id.eir_server_impl_id_val = &impl;
	res.eir_server_impl_id.eir_server_impl_id_len = 1;
	return C_ENCODE(c, EXCHANGE_ID4resok, &res);
}

/* ---- CREATE_SESSION, DESTROY_SESSION -------------------------------------------------------------------------------------------- */

static struct st_channel channel_in(const channel_attrs4 *a)
{
	return (struct st_channel){.max_request = a->ca_maxrequestsize,
				   .max_response = a->ca_maxresponsesize,
				   .max_cached = a->ca_maxresponsesize_cached,
				   .max_ops = a->ca_maxoperations,
				   .max_slots = a->ca_maxrequests};
}

static channel_attrs4 channel_out(const struct st_channel *ch)
{
	return (channel_attrs4){.ca_maxrequestsize = ch->max_request,
				.ca_maxresponsesize = ch->max_response,
				.ca_maxresponsesize_cached = ch->max_cached,
				.ca_maxoperations = ch->max_ops,
				.ca_maxrequests = ch->max_slots};
}

/* The first kind that we can send callbacks with; AUTH_NONE when there is none. */
static struct st_cb_sec cb_sec(const callback_sec_parms4 *p, u_int n)
{
	struct st_cb_sec sec = {.flavor = AUTH_NONE};

	for (u_int i = 0; i < n; i++) {
		if (p[i].cb_secflavor == AUTH_NONE)
			return sec;
		if (p[i].cb_secflavor == AUTH_SYS) {
			sec.flavor = AUTH_SYS;
			sec.uid = p[i].callback_sec_parms4_u.cbsp_sys_cred.uid;
			sec.gid = p[i].callback_sec_parms4_u.cbsp_sys_cred.gid;
			return sec;
		}
	}
	return sec;
}

/* RFC 8881 §18.36. No persistent reply cache, no RDMA: those flags are simply not granted. */
nfsstat4 op_create_session(struct compound *c)
{
	CREATE_SESSION4resok res = {0};
	CREATE_SESSION4args a = {0};
	struct st_create x = {0};
	nfsstat4 st;

	if ((st = alone_or_in_session(c)) != NFS4_OK || (st = C_DECODE(c, CREATE_SESSION4args, &a)) != NFS4_OK)
		return st;
	x.clientid = a.csa_clientid;
	x.sequence = a.csa_sequence;
	x.flags = a.csa_flags;
	x.fore = channel_in(&a.csa_fore_chan_attrs);
	x.back = channel_in(&a.csa_back_chan_attrs);
	x.cb_program = a.csa_cb_program;
	x.cb_sec = cb_sec(a.csa_sec_parms.csa_sec_parms_val, a.csa_sec_parms.csa_sec_parms_len);
	x.who = c_principal(c);
	x.conn = c->call->conn;
	st = st_create_session(c->srv->state, &x);
	if (st != NFS4_OK)
		return st;

	memcpy(res.csr_sessionid, x.sessionid, sizeof res.csr_sessionid);
	res.csr_sequence = x.sequence;
	res.csr_flags = x.flags;
	res.csr_fore_chan_attrs = channel_out(&x.fore);
	res.csr_back_chan_attrs = channel_out(&x.back);
	return C_ENCODE(c, CREATE_SESSION4resok, &res);
}

/* RFC 8881 §18.37: over a connection of the session. In the session that it destroys it is the last operation; the reply still goes
 * out. */
nfsstat4 op_destroy_session(struct compound *c)
{
	DESTROY_SESSION4args a = {0};
	nfsstat4 st;

	if ((st = alone_or_in_session(c)) != NFS4_OK || (st = C_DECODE(c, DESTROY_SESSION4args, &a)) != NFS4_OK)
		return st;
	if (c->has_session && c->op + 1 != c->nops &&
	    !memcmp(st_session_id(c->st.session), a.dsa_sessionid, sizeof a.dsa_sessionid))
		return NFS4ERR_NOT_ONLY_OP;
	return st_destroy_session(c->srv->state, (const uint8_t *)a.dsa_sessionid, rpc_conn_id(c->call->conn));
}

/* RFC 8881 §18.50. */
nfsstat4 op_destroy_clientid(struct compound *c)
{
	struct st_principal who = c_principal(c);
	DESTROY_CLIENTID4args a = {0};
	nfsstat4 st;

	if ((st = alone_or_in_session(c)) != NFS4_OK || (st = C_DECODE(c, DESTROY_CLIENTID4args, &a)) != NFS4_OK)
		return st;
	return st_destroy_clientid(c->srv->state, a.dca_clientid, c->has_session ? NULL : &who);
}

/* RFC 8881 §18.34: always the only operation. */
nfsstat4 op_bind_conn_to_session(struct compound *c)
{
	BIND_CONN_TO_SESSION4resok res = {0};
	BIND_CONN_TO_SESSION4args a = {0};
	uint32_t dir;
	nfsstat4 st;

	if (c->nops != 1)
		return NFS4ERR_NOT_ONLY_OP;
	if ((st = C_DECODE(c, BIND_CONN_TO_SESSION4args, &a)) != NFS4_OK)
		return st;
	dir = (uint32_t)a.bctsa_dir;
	st = st_bind_conn(c->srv->state, (const uint8_t *)a.bctsa_sessid, c->call->conn, &dir);
	if (st != NFS4_OK)
		return st;
	memcpy(res.bctsr_sessid, a.bctsa_sessid, sizeof res.bctsr_sessid);
	res.bctsr_dir = (channel_dir_from_server4)dir;
	return C_ENCODE(c, BIND_CONN_TO_SESSION4resok, &res);
}

/* RFC 8881 §18.33. */
nfsstat4 op_backchannel_ctl(struct compound *c)
{
	BACKCHANNEL_CTL4args a = {0};
	struct st_cb_sec sec;
	nfsstat4 st;

	if ((st = C_DECODE(c, BACKCHANNEL_CTL4args, &a)) != NFS4_OK)
		return st;
	sec = cb_sec(a.bca_sec_parms.bca_sec_parms_val, a.bca_sec_parms.bca_sec_parms_len);
	st_backchannel_ctl(c->srv->state, c->st.session, a.bca_cb_program, &sec);
	return NFS4_OK;
}

/* RFC 8881 §18.51. */
nfsstat4 op_reclaim_complete(struct compound *c)
{
	RECLAIM_COMPLETE4args a = {0};
	nfsstat4 st;

	if ((st = C_DECODE(c, RECLAIM_COMPLETE4args, &a)) != NFS4_OK)
		return st;
	if (a.rca_one_fs && !c->cfh.exp)
		return NFS4ERR_NOFILEHANDLE;
	return st_reclaim_complete(c->srv->state, c->st.client, a.rca_one_fs);
}

/* RFC 8881 §18.47: only for clients that were given SP4_SSV, and none is. */
nfsstat4 op_set_ssv(struct compound *c)
{
	SET_SSV4args a = {0};
	nfsstat4 st = C_DECODE(c, SET_SSV4args, &a);

	return st == NFS4_OK ? NFS4ERR_INVAL : st;
}

/* ---- SEQUENCE ------------------------------------------------------------------------------------------------------------------- */

/* Tells one request from another in the same slot (RFC 8881 §2.10.6.1.3.1): who asks, and what follows SEQUENCE. Not the
 * arguments of SEQUENCE: a client may change sa_highest_slotid when it sends a request again. */
static uint64_t fingerprint(const struct compound *c)
{
	enum { LOOK = 256 };
	size_t left = xa_in_left(c->in), pos = xa_in_pos(c->in), n = (left < LOOK ? left : LOOK) & ~(size_t)7;
	const uint8_t *p = n ? (const uint8_t *)xdr_inline_decode(c->in, (u_int)n) : NULL;
	uint64_t h = 0x9e3779b97f4a7c15ull ^ left ^ (uint64_t)c->call->cred.uid << 32 ^ (uint64_t)c->nops << 20;

	xa_in_seek(c->in, pos);
	for (size_t i = 0; p && i < n; i += 8) {
		uint64_t w;

		memcpy(&w, p + i, sizeof w);
		h = (h ^ w) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return h;
}

/* The answer that the first try got, in place of everything behind the RPC header. Without memory for it there is no COMPOUND to say so
 * in any more: the RPC fails, and the client may ask again. */
static nfsstat4 replay(struct compound *c, const struct st_seq *q)
{
	xa_out_cut(c->out, c->start);
	if (!xa_opaque(&c->out->x, (char *)(uintptr_t)q->reply, (u_int)q->reply_len))
		c->call->accept = SYSTEM_ERR;
	st_slot_replayed(c->srv->state, &c->st);
	c->replayed = true;
	return NFS4_OK;
}

/* RFC 8881 §18.46. */
nfsstat4 op_sequence(struct compound *c)
{
	SEQUENCE4resok res = {0};
	SEQUENCE4args a = {0};
	struct st_seq q = {0};
	nfsstat4 st;

	if (c->op != 0)
		return NFS4ERR_SEQUENCE_POS;
	if ((st = C_DECODE(c, SEQUENCE4args, &a)) != NFS4_OK)
		return st;
	q.sessionid = (const uint8_t *)a.sa_sessionid;
	q.seqid = a.sa_sequenceid;
	q.slotid = a.sa_slotid;
	q.highest_slotid = a.sa_highest_slotid;
	q.cache_this = a.sa_cachethis;
	q.nops = c->nops;
	q.request_len = c->call->record_len;
	q.reply_min = xa_out_len(c->out) + 36; /* and the result below */
	q.conn = rpc_conn_id(c->call->conn);
	q.fingerprint = a.sa_cachethis ? fingerprint(c) : 0;
	st = st_slot_begin(c->srv->state, &q, &c->st);
	if (st == ST_REPLAY)
		return replay(c, &q);
	if (st != NFS4_OK)
		return st;
	c->has_session = true;

	memcpy(res.sr_sessionid, a.sa_sessionid, sizeof res.sr_sessionid);
	res.sr_sequenceid = a.sa_sequenceid;
	res.sr_slotid = a.sa_slotid;
	res.sr_highest_slotid = q.highest;
	res.sr_target_highest_slotid = q.target;
	res.sr_status_flags = q.status_flags;
	return C_ENCODE(c, SEQUENCE4resok, &res);
}
