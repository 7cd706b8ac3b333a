/* SPDX-License-Identifier: BSD-3-Clause */
/* st_fixture.c - see st_fixture.h */
#include "tests/unit/st_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "server/rpc/rpc_int.h"
#include "xdr/prims.h"

_Atomic int tc_pins_put;

struct st *tc_state(const struct st_opts *o)
{
	static const struct st_opts none;
	struct st *s = NULL;

	ck_assert_int_eq(st_new(&s, o ? o : &none, NULL), 0);
	tc_pins_put = 0;
	return s;
}

struct st_exchange tc_exchange(const char *owner, uint64_t verifier, uint32_t uid)
{
	struct st_exchange x = {.owner = {owner, (uint32_t)strlen(owner)}, .who = {1, uid}};

	memcpy(x.verifier, &verifier, sizeof x.verifier);
	return x;
}

struct st_create tc_create(uint64_t clientid, uint32_t sequence)
{
	return (struct st_create){.clientid = clientid,
				  .sequence = sequence,
				  .fore = {65536, 65536, 2048, 16, 8},
				  .back = {4096, 4096, 0, 2, 1},
				  .who = {1, 0}};
}

void tc_finish(struct st *s, struct st_call *call, size_t len, uint8_t fill)
{
	enum { HEADER = 24 };
	struct arena a;
	struct xa_out out;
	uint8_t bytes[4096];

	ck_assert_uint_le(len + HEADER, sizeof bytes);
	memset(bytes, fill, sizeof bytes);
	arena_init(&a, 1 << 20);
	xa_out_init(&out, &a, 1 << 20);
	ck_assert(xa_opaque(&out.x, (char *)bytes, (u_int)((len + HEADER + 3) & ~3u)));
	st_slot_finish(s, call, &out, HEADER, NFS4_OK);
	xa_out_fini(&out);
	arena_fini(&a);
}

nfsstat4 tc_begin(struct tc *t, uint32_t slot, bool cache, uint32_t nops, struct st_seq *q, struct st_call *call)
{
	nfsstat4 st;

	*q = (struct st_seq){.sessionid = t->session,
			     .seqid = t->seq[slot] + 1,
			     .slotid = slot,
			     .highest_slotid = slot,
			     .cache_this = cache,
			     .nops = nops,
			     .request_len = 200,
			     .reply_min = 80,
			     .fingerprint = cache ? 1 : 0};
	st = st_slot_begin(t->s, q, call);
	if (st == NFS4_OK)
		t->seq[slot]++;
	return st;
}

void tc_renew(struct tc *t)
{
	struct st_call call;
	struct st_seq q;

	assert_st(tc_begin(t, 7, false, 1, &q, &call), NFS4_OK);
	tc_finish(t->s, &call, 56, 0);
}

static struct tc connect_as(struct st *s, struct st_exchange x)
{
	struct tc t = {.s = s};
	struct st_create cs;
	struct st_call call;
	struct st_seq q;

	assert_st(st_exchange_id(s, &x), NFS4_OK);
	t.id = x.clientid;
	cs = tc_create(x.clientid, x.sequenceid);
	assert_st(st_create_session(s, &cs), NFS4_OK);
	memcpy(t.session, cs.sessionid, sizeof t.session);
	assert_st(tc_begin(&t, 7, false, 2, &q, &call), NFS4_OK);
	t.cl = call.client;
	tc_finish(s, &call, 64, 0);
	return t;
}

struct tc tc_connect(struct st *s, const char *owner)
{
	return connect_as(s, tc_exchange(owner, 1, 0));
}

struct tc tc_client_from(struct st *s, const char *owner, uint32_t addr)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(addr)};
	struct st_exchange x = tc_exchange(owner, 1, 0);
	struct tc t;

	x.peer = (struct sockaddr *)&sa;
	t = connect_as(s, x);
	assert_st(st_reclaim_complete(s, t.cl, false), NFS4_OK);
	return t;
}

struct tc tc_client(struct st *s, const char *owner)
{
	struct tc t = tc_connect(s, owner);

	assert_st(st_reclaim_complete(s, t.cl, false), NFS4_OK);
	return t;
}

static struct rpc_conn conns[257];

static void number_conns(void)
{
	for (unsigned i = 0; i < ARRAY_LEN(conns); i++)
		conns[i].id = i;
}

struct rpc_conn *tc_conn(unsigned id)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, number_conns);
	ck_assert_uint_lt(id, ARRAY_LEN(conns));
	return &conns[id];
}

struct st_fhkey tc_file(uint64_t ino)
{
	return (struct st_fhkey){.export_id = 7, .gen = 1, .ino = ino};
}

struct st_name tc_name(const char *text)
{
	return (struct st_name){text, (uint32_t)strlen(text)};
}

static void count_put(struct st_pin *pin)
{
	(void)pin;
	tc_pins_put++;
}

struct st_pin tc_pin(void)
{
	return (struct st_pin){.put = count_put};
}

nfsstat4 tc_open(struct tc *t, uint64_t ino, const char *owner, uint32_t access, uint32_t deny, stateid4 *out)
{
	struct st_fhkey key = tc_file(ino);
	struct st_name name = tc_name(owner);
	struct st_pin pin = tc_pin();

	return st_open(t->s, t->cl, &key, &name, NULL, access, deny, true, &pin, out, NULL);
}

nfsstat4 tc_close(struct tc *t, uint64_t ino, const stateid4 *sid)
{
	struct st_fhkey key = tc_file(ino);

	return st_close(t->s, t->cl, &key, sid);
}
