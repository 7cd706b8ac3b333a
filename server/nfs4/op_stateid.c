/* SPDX-License-Identifier: BSD-3-Clause */
/* op_stateid.c - TEST_STATEID, FREE_STATEID, and the delegation operations of a server that grants none */
#include "server/nfs4/compound.h"

/* RFC 8881 §18.48. Answers as many as were asked; how many that can be is bounded by the size of the request. */
nfsstat4 op_test_stateid(struct compound *c)
{
	TEST_STATEID4resok res = {0};
	TEST_STATEID4args a = {0};
	nfsstat4 *codes, st;
	u_int n;

	if ((st = C_DECODE(c, TEST_STATEID4args, &a)) != NFS4_OK)
		return st;
	n = a.ts_stateids.ts_stateids_len;
	codes = arena_array(&c->call->arena, n, sizeof *codes);
	if (!codes)
		return NFS4ERR_DELAY;
	for (u_int i = 0; i < n; i++)
		codes[i] = st_test_stateid(c->srv->state, c->st.client, &a.ts_stateids.ts_stateids_val[i]);
	res.tsr_status_codes.tsr_status_codes_len = n;
	res.tsr_status_codes.tsr_status_codes_val = codes;
	return C_ENCODE(c, TEST_STATEID4resok, &res);
}

/* RFC 8881 §18.38. */
nfsstat4 op_free_stateid(struct compound *c)
{
	FREE_STATEID4args a = {0};
	stateid4 sid;
	nfsstat4 st;

	if ((st = C_DECODE(c, FREE_STATEID4args, &a)) != NFS4_OK ||
	    (st = c_stateid(c, &a.fsa_stateid, &sid)) != NFS4_OK)
		return st;
	return st_free_stateid(c->srv->state, c->st.client, &sid);
}

/* RFC 8881 §18.6: no delegation is ever given out, so no stateid can name one. */
nfsstat4 op_delegreturn(struct compound *c)
{
	DELEGRETURN4args a = {0};
	nfsstat4 st = C_DECODE(c, DELEGRETURN4args, &a);

	return st == NFS4_OK ? NFS4ERR_BAD_STATEID : st;
}

/* RFC 8881 §18.5: goes with CLAIM_DELEGATE_PREV, which is not supported. */
nfsstat4 op_delegpurge(struct compound *c)
{
	DELEGPURGE4args a = {0};
	nfsstat4 st = C_DECODE(c, DELEGPURGE4args, &a);

	return st == NFS4_OK ? NFS4ERR_NOTSUPP : st;
}
