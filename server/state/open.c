/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * open.c - files, owners, share reservations
 *
 * One open per open-owner and file: a second OPEN of the same owner adds its bits to it. The file counts, for READ and
 * WRITE, the opens that have and the opens that deny it; so the usual "may I?" is four comparisons. Only when it fails
 * are the opens walked: for one whose client's lease is over, which then gives way.
 */
#include <stdlib.h>
#include <string.h>

#include "server/state/state_int.h"

/* ---- how many there are ------------------------------------------------------------------------------------------------------- */

bool st_states_room(struct st *s, const struct st_client *cl)
{
	uint64_t used = atomic_load(&s->opens) + atomic_load(&s->lock_states) + atomic_load(&s->ranges);

	return used < s->opts.max_states / 2 ||
	       peers_may_hold(s->opts.max_states, used, atomic_load(&cl->from->memory), 1);
}

void st_states_count(struct st *s, struct st_client *cl, _Atomic uint64_t *kind, int by)
{
	(void)s;
	atomic_fetch_add_explicit(kind, (uint64_t)by, memory_order_relaxed);
	atomic_fetch_add_explicit(&cl->from->memory, (size_t)by, memory_order_relaxed);
}

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static uint32_t key_hash(const struct st_fhkey *key)
{
	uint64_t h = (key->ino + ((uint64_t)key->export_id << 32 | key->gen)) * 0x9e3779b97f4a7c15ull;

	return (uint32_t)(h >> 32);
}

struct file_shard *st_file_shard(struct st *s, const struct st_fhkey *key)
{
	return &s->file_shard[key_hash(key) % FILE_SHARDS];
}

static struct list *file_bucket(struct file_shard *sh, const struct st_fhkey *key)
{
	return &sh->bucket[key_hash(key) / FILE_SHARDS % FILE_BUCKETS];
}

struct st_file *st_file_find(struct file_shard *sh, const struct st_fhkey *key)
{
	list_for_each (it, file_bucket(sh, key)) {
		struct st_file *f = list_entry(it, struct st_file, link);

		if (st_key_equal(&f->key, key))
			return f;
	}
	return NULL;
}

static struct st_file *file_new(const struct st_fhkey *key)
{
	struct st_file *f = calloc(1, sizeof *f);

	if (!f)
		return NULL;
	f->key = *key;
	list_init(&f->link);
	list_init(&f->opens);
	list_init(&f->ranges);
	return f;
}

void st_file_unuse(struct st_file *f, struct list *files)
{
	if (--f->users)
		return;
	/* Nobody's hints, too, hold until the last one closes the file. */
	if (f->pin.node && atomic_load_explicit(&f->pin.node->stream.mode, memory_order_relaxed))
		atomic_store_explicit(&f->pin.node->stream.mode, 0, memory_order_relaxed);
	list_del(&f->link);
	list_push_back(files, &f->link);
}

static void pin_put(struct st_pin *pin)
{
	if (pin->put)
		pin->put(pin);
	pin->put = NULL;
}

void st_files_free(struct st *s, struct list *files)
{
	list_for_each_safe (it, tmp, files) {
		struct st_file *f = list_entry(it, struct st_file, link);

		list_del(&f->link);
		pin_put(&f->pin);
		stat_sub(&s->files, 1);
		free(f);
	}
}

bool st_file_is_open(struct st *s, const struct st_fhkey *key)
{
	struct file_shard *sh = st_file_shard(s, key);
	bool open;

	lock_take(&sh->mu);
	open = st_file_find(sh, key) != NULL;
	lock_drop(&sh->mu);
	return open;
}

/* ---- owners ----------------------------------------------------------------------------------------------------------------- */

static struct list *owner_bucket(struct st_client *cl, const void *bytes, uint32_t len)
{
	return &cl->owners[st_hash(bytes, len) % OWNER_BUCKETS];
}

struct st_owner *st_owner_find(struct st_client *cl, const struct st_name *name, bool of_locks)
{
	list_for_each (it, owner_bucket(cl, name->bytes, name->len)) {
		struct st_owner *o = list_entry(it, struct st_owner, link);

		if (o->len == name->len && o->of_locks == of_locks && !memcmp(o->bytes, name->bytes, o->len))
			return o;
	}
	return NULL;
}

struct st_owner *st_owner_new(struct st *s, struct st_client *cl, const struct st_name *name, bool of_locks)
{
	struct st_owner *o = malloc(sizeof *o + name->len);

	if (!o)
		return NULL;
	o->states = 0;
	o->len = name->len;
	o->of_locks = of_locks;
	memcpy(o->bytes, name->bytes, name->len);
	list_push_front(owner_bucket(cl, o->bytes, o->len), &o->link);
	cl->nowners++;
	stat_add(&s->owners, 1);
	return o;
}

void st_owner_tidy(struct st *s, struct st_client *cl, struct st_owner *o)
{
	if (!o || o->states)
		return;
	list_del(&o->link);
	cl->nowners--;
	stat_sub(&s->owners, 1);
	free(o);
}

struct st_state *st_state_of(struct st_client *cl, const struct st_owner *o, const struct st_fhkey *key,
			     enum state_kind kind)
{
	list_for_each (it, &cl->states[st_state_bucket(o, key)]) {
		struct st_state *x = list_entry(it, struct st_state, client_link);

		if (x->owner == o && x->kind == kind && st_key_equal(&x->file->key, key))
			return x;
	}
	return NULL;
}

/* ---- share reservations ------------------------------------------------------------------------------------------------------- */

/* One bit for each of the 3 x 4 ways to open. */
static uint16_t share_bit(uint32_t access, uint32_t deny)
{
	return (uint16_t)(1u << ((access - 1) * 4 + deny));
}

/* The ways of @history that lie within (access, deny), and what they amount to together. */
static uint16_t share_subset(uint16_t history, uint32_t access, uint32_t deny, uint32_t *sum_access, uint32_t *sum_deny)
{
	uint16_t subset = 0;

	*sum_access = *sum_deny = 0;
	for (uint32_t a = 1; a <= 3; a++) {
		for (uint32_t d = 0; d <= 3; d++) {
			if (!(history & share_bit(a, d)) || a & ~access || d & ~deny)
				continue;
			subset |= share_bit(a, d);
			*sum_access |= a;
			*sum_deny |= d;
		}
	}
	return subset;
}

static void share_count(struct st_file *f, uint32_t access, uint32_t deny, int n)
{
	for (unsigned i = 0; i < 2; i++) {
		if (access & 1u << i)
			f->access[i] += (uint32_t)n;
		if (deny & 1u << i)
			f->deny[i] += (uint32_t)n;
	}
}

static void share_set(struct st_file *f, struct st_open *o, uint32_t access, uint32_t deny)
{
	share_count(f, o->access, o->deny, -1);
	share_count(f, access, deny, 1);
	atomic_store_explicit(&o->access, (uint8_t)access, memory_order_relaxed);
	atomic_store_explicit(&o->deny, (uint8_t)deny, memory_order_relaxed);
}

/* Would (access, deny) conflict with an open other than @own (NULL: none)? */
static bool share_conflict(const struct st_file *f, const struct st_open *own, uint32_t access, uint32_t deny)
{
	for (unsigned i = 0; i < 2; i++) {
		uint32_t has = own && own->access & 1u << i, denies = own && own->deny & 1u << i;

		if ((access & 1u << i && f->deny[i] > denies) || (deny & 1u << i && f->access[i] > has))
			return true;
	}
	return false;
}

/* A client whose lease is over and that is all that stands in the way (referenced); NULL when a live one does. */
static struct st_client *share_blocker(struct st *s, const struct st_file *f, const struct st_client *self,
				       const struct st_open *own, uint32_t access, uint32_t deny)
{
	struct st_client *expired = NULL;

	list_for_each (it, &f->opens) {
		struct st_open *o = container_of(list_entry(it, struct st_state, file_link), struct st_open, s);

		if (o == own || !((access & o->deny) | (deny & o->access)))
			continue;
		if (o->s.client == self || !st_client_expired(s, o->s.client))
			return NULL;
		expired = o->s.client;
	}
	return expired ? st_client_get(expired) : NULL;
}

/* ---- OPEN ------------------------------------------------------------------------------------------------------------------- */

/* What one OPEN needs, so that nothing fails once the shard is locked. */
struct open_op {
	const struct st_fhkey *key;
	const struct st_principal *who;
	uint32_t access, deny;
	struct st_pin *pin;
	struct st_owner *owner;
	struct st_open *open, *fresh; /* the owner's open of the file; else the one to be made */
	struct st_file *fresh_file;   /* used when nobody has the file open */
	struct st_client *blocker;    /* out: its lease is over; referenced */
};

nfsstat4 st_may_open_more(struct st *s, struct st_client *cl)
{
	nfsstat4 st = NFS4_OK;

	lock_take(&cl->mu);
	if (cl->nopens >= s->opts.max_opens)
		st = NFS4ERR_DQUOT;
	else if (cl->dead || !st_states_room(s, cl))
		st = NFS4ERR_DELAY;
	lock_drop(&cl->mu);
	return st;
}

static nfsstat4 open_prepare(struct st *s, struct st_client *cl, struct open_op *op, const struct st_name *name)
	REQUIRES(cl->mu)
{
	struct st_state *x;

	op->owner = st_owner_find(cl, name, false);
	if (op->owner) {
		x = st_state_of(cl, op->owner, op->key, STATE_OPEN);
		if (x) {
			op->open = container_of(x, struct st_open, s);
			return NFS4_OK;
		}
	}
	if (cl->nopens >= s->opts.max_opens)
		return NFS4ERR_DQUOT;
	if (!st_states_room(s, cl))
		return NFS4ERR_DELAY;
	op->fresh = calloc(1, sizeof *op->fresh);
	op->fresh_file = file_new(op->key);
	if (!op->owner)
		op->owner = st_owner_new(s, cl, name, false);
	return op->fresh && op->fresh_file && op->owner ? NFS4_OK : NFS4ERR_DELAY;
}

static struct st_file *open_file(struct st *s, struct open_op *op, struct file_shard *sh) REQUIRES(sh->mu)
{
	struct st_file *f = st_file_find(sh, op->key);

	if (f || !op->fresh_file)
		return f;
	f = TAKE(op->fresh_file);
	f->pin = *op->pin;
	op->pin->put = NULL;
	list_push_front(file_bucket(sh, op->key), &f->link);
	stat_add(&s->files, 1);
	return f;
}

static void open_insert(struct st *s, struct st_client *cl, struct open_op *op, struct st_file *f) REQUIRES(cl->mu)
{
	struct st_open *o = op->open = TAKE(op->fresh);

	o->s.kind = STATE_OPEN;
	o->s.client = cl;
	o->s.file = f;
	o->s.owner = op->owner;
	list_init(&o->locks);
	if (op->who)
		o->who = *op->who;
	atomic_init(&o->common, !op->who);
	list_push_back(&f->opens, &o->s.file_link);
	f->users++;
	op->owner->states++;
	cl->nopens++;
	st_states_count(s, cl, &s->opens, 1);
}

static nfsstat4 open_share(struct st *s, struct st_client *cl, struct open_op *op, bool *fresh) REQUIRES(cl->mu)
{
	struct file_shard *sh = st_file_shard(s, op->key);
	nfsstat4 st = NFS4_OK;
	struct st_file *f;

	lock_take(&sh->mu);
	f = st_file_find(sh, op->key);
	if (f && share_conflict(f, op->open, op->access, op->deny)) {
		op->blocker = share_blocker(s, f, cl, op->open, op->access, op->deny);
		st = NFS4ERR_SHARE_DENIED;
	} else {
		f = open_file(s, op, sh);
		*fresh = !op->open;
		if (*fresh)
			open_insert(s, cl, op, f);
		else if (!op->who || !st_same_principal(&op->open->who, op->who))
			atomic_store_explicit(&op->open->common, true, memory_order_relaxed);
		share_set(f, op->open, op->open->access | op->access, op->open->deny | op->deny);
	}
	lock_drop(&sh->mu);
	return st;
}

static nfsstat4 open_once(struct st *s, struct st_client *cl, struct open_op *op, const struct st_name *name,
			  stateid4 *out, struct st_undo *undo)
{
	struct st_undo was = {0};
	bool fresh = false;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = cl->dead ? NFS4ERR_DELAY : NFS4_OK;
	/* Under the client's lock: either this sees it, or st_export_revoke(), which comes afterwards, sees the open. */
	if (st == NFS4_OK && op->pin->gone && atomic_load(op->pin->gone))
		st = NFS4ERR_STALE;
	if (st == NFS4_OK)
		st = open_prepare(s, cl, op, name);
	if (st == NFS4_OK && op->open) {
		was.access = op->open->access;
		was.deny = op->open->deny;
		was.history = op->open->history;
	}
	if (st == NFS4_OK)
		st = open_share(s, cl, op, &fresh);
	if (st == NFS4_OK) {
		op->open->history |= share_bit(op->access, op->deny);
		if (fresh)
			st_state_publish(s, cl, &op->open->s);
		st_state_stateid(s, cl, &op->open->s, !fresh, out);
		was.sid = *out;
		was.fresh = fresh;
		if (undo)
			*undo = was;
	} else {
		st_owner_tidy(s, cl, op->owner);
	}
	lock_drop(&cl->mu);
	free(op->fresh);
	free(op->fresh_file);
	return st;
}

nfsstat4 st_open(struct st *s, struct st_client *cl, const struct st_fhkey *key, const struct st_name *owner,
		 const struct st_principal *who, uint32_t access, uint32_t deny, bool may_wait, struct st_pin *pin,
		 stateid4 *out, struct st_undo *undo)
{
	nfsstat4 st, revoked;

	if (access < 1 || access > 3 || deny > 3 || owner->len > ST_NAME_MAX) {
		pin_put(pin);
		return NFS4ERR_INVAL;
	}
	for (;;) {
		struct open_op op = {.key = key, .who = who, .access = access, .deny = deny, .pin = pin};

		st = open_once(s, cl, &op, owner, out, undo);
		if (!op.blocker)
			break;
		/* Each round takes what it has from one client (or finds it alive again), so this ends. */
		revoked = may_wait ? st_client_revoke(s, op.blocker) : ST_WAIT;
		st_client_put(op.blocker);
		if (revoked != NFS4_OK) {
			st = revoked;
			break;
		}
	}
	if (st == NFS4ERR_SHARE_DENIED)
		stat_add(&s->share_denied, 1);
	pin_put(pin);
	return st;
}

nfsstat4 st_give_way(struct st *s, const struct st_fhkey *key, uint32_t access, bool may_wait)
{
	struct file_shard *sh = st_file_shard(s, key);

	for (;;) {
		struct st_client *blocker = NULL;
		const struct st_file *f;
		bool denied;
		nfsstat4 st;

		lock_take(&sh->mu);
		f = st_file_find(sh, key);
		denied = f && share_conflict(f, NULL, access, 0);
		if (denied)
			blocker = share_blocker(s, f, NULL, NULL, access, 0);
		lock_drop(&sh->mu);
		if (!blocker)
			return denied ? NFS4ERR_LOCKED : NFS4_OK;
		/* As for st_open(). */
		st = may_wait ? st_client_revoke(s, blocker) : ST_WAIT;
		st_client_put(blocker);
		if (st != NFS4_OK)
			return st;
	}
}

/* ---- advice ----------------------------------------------------------------------------------------------------------------- */

/* Under the shard lock, as the next. */
static void advice_holds(struct st_file *f, const struct st_open *o)
{
	f->advised = o ? o->advised : 0;
	if (f->pin.node)
		atomic_store_explicit(&f->pin.node->stream.mode, o ? o->advice : 0, memory_order_relaxed);
}

static const struct st_open *last_speaker(const struct st_file *f)
{
	const struct st_open *last = NULL;

	list_for_each (it, &f->opens) {
		const struct st_open *p = container_of(list_entry(it, struct st_state, file_link), struct st_open, s);

		if (p->advised && (!last || p->advised > last->advised))
			last = p;
	}
	return last;
}

/* @o, which is off the file's list, does not count any more. */
static void advice_gone(struct st_file *f, const struct st_open *o)
{
	if (o->advised && o->advised == f->advised)
		advice_holds(f, last_speaker(f));
}

static void unsay(struct st *s, struct st_open *o)
{
	struct st_file *f = o->s.file;
	struct file_shard *sh = st_file_shard(s, &f->key);
	uint64_t was;

	lock_take(&sh->mu);
	was = o->advised;
	o->advised = 0;
	o->advice = 0;
	if (was && was == f->advised)
		advice_holds(f, last_speaker(f));
	lock_drop(&sh->mu);
}

void st_advice_forget(struct st *s, struct st_client *cl)
{
	lock_take(&cl->mu);
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_for_each (it, &cl->states[i]) {
			struct st_state *x = list_entry(it, struct st_state, client_link);

			if (x->kind == STATE_OPEN)
				unsay(s, container_of(x, struct st_open, s));
		}
	free(TAKE(cl->said));
	atomic_store(&cl->nsaid, 0);
	atomic_store(&cl->spoke, false);
	lock_drop(&cl->mu);
}

/* A few files for each client: who wants more opens them. */
enum { SAID_MAX = 64 };

struct st_said {
	struct st_fhkey key;
	const struct st_session *by;
	uint32_t advice;
};

static struct st_said *find_said(const struct st_client *cl, const struct st_fhkey *key)
{
	for (uint32_t i = 0; i < cl->nsaid; i++)
		if (st_key_equal(&cl->said[i].key, key))
			return &cl->said[i];
	return NULL;
}

bool st_advise_unopened(const struct st_call *call, const struct st_fhkey *key,
			uint32_t (*merge)(uint32_t before, void *arg), void *arg)
{
	struct st_client *cl = call->client;
	struct st_said *w = NULL;

	lock_take(&cl->mu);
	if (!cl->said)
		cl->said = calloc(SAID_MAX, sizeof *cl->said);
	if (cl->said)
		w = find_said(cl, key);
	if (cl->said && !w) {
		/* The oldest makes room. */
		if (cl->nsaid == SAID_MAX)
			memmove(cl->said, cl->said + 1, --cl->nsaid * sizeof *cl->said);
		w = &cl->said[cl->nsaid];
		*w = (struct st_said){.key = *key};
		atomic_fetch_add(&cl->nsaid, 1);
	}
	if (w) {
		w->advice = merge(w->advice, arg);
		w->by = call->session;
		atomic_store(&cl->spoke, true);
	}
	lock_drop(&cl->mu);
	return w;
}

uint32_t st_said(struct st_client *cl, const struct st_fhkey *key)
{
	const struct st_said *w;
	uint32_t advice;

	if (!atomic_load_explicit(&cl->nsaid, memory_order_relaxed))
		return 0;
	lock_take(&cl->mu);
	w = find_said(cl, key);
	advice = w ? w->advice : 0;
	lock_drop(&cl->mu);
	return advice;
}

void st_said_end(struct st_client *cl, const struct st_session *se)
{
	uint32_t left = 0;

	lock_take(&cl->mu);
	for (uint32_t i = 0; i < cl->nsaid; i++)
		if (cl->said[i].by != se)
			cl->said[left++] = cl->said[i];
	atomic_store(&cl->nsaid, left);
	lock_drop(&cl->mu);
}

nfsstat4 st_advise(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
		   uint32_t (*merge)(uint32_t before, void *arg), void *arg)
{
	struct file_shard *sh = st_file_shard(s, key);
	struct st_open *o;
	struct st_state *x;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = st_state_find(s, cl, key, sid, STATE_OPEN | STATE_LOCK, &x);
	if (st == NFS4_OK) {
		o = x->kind == STATE_OPEN ? container_of(x, struct st_open, s)
					  : container_of(x, struct st_locks, s)->open;
		lock_take(&sh->mu);
		o->advice = merge(o->advice, arg);
		o->advised = atomic_fetch_add_explicit(&s->next_advice, 1, memory_order_relaxed) + 1;
		advice_holds(x->file, o);
		lock_drop(&sh->mu);
		atomic_store(&cl->spoke, true);
	}
	lock_drop(&cl->mu);
	return st;
}

bool st_has_open(struct st *s, const struct st_client *cl, const struct st_fhkey *key, const struct st_principal *who,
		 uint32_t access)
{
	struct file_shard *sh = st_file_shard(s, key);
	struct st_file *f;
	bool found = false;

	lock_take(&sh->mu);
	f = st_file_find(sh, key);
	if (f) {
		list_for_each (it, &f->opens) {
			const struct st_open *o = container_of(list_entry(it, struct st_state, file_link),
							       struct st_open, s);

			found |= o->s.client == cl && (o->access & access) == access && !o->common &&
				 st_same_principal(&o->who, who);
		}
	}
	lock_drop(&sh->mu);
	return found;
}

void st_each_open(struct st *s, const struct st_fhkey *key, void (*fn)(void *arg, const struct st_open_info *i),
		  void *arg)
{
	struct file_shard *sh = st_file_shard(s, key);
	struct st_file *f;

	lock_take(&sh->mu);
	f = st_file_find(sh, key);
	if (f) {
		list_for_each (it, &f->opens) {
			const struct st_open *o = container_of(list_entry(it, struct st_state, file_link),
							       struct st_open, s);
			struct st_open_info i = {
				.clientid = o->s.client->id, .access = o->access, .deny = o->deny, .advice = o->advice};

			fn(arg, &i);
		}
	}
	lock_drop(&sh->mu);
}

void st_each_file(struct st *s, void (*fn)(void *arg, const struct st_file_info *i), void *arg)
{
	for (unsigned k = 0; k < FILE_SHARDS; k++) {
		struct file_shard *sh = &s->file_shard[k];

		lock_take(&sh->mu);
		for (unsigned b = 0; b < FILE_BUCKETS; b++)
			list_for_each (it, &sh->bucket[b]) {
				const struct st_file *f = list_entry(it, struct st_file, link);
				struct st_file_info i = {.key = f->key, .pin = &f->pin};

				list_for_each (o, &f->opens)
					i.opens++;
				if (i.opens)
					fn(arg, &i);
			}
		lock_drop(&sh->mu);
	}
}

/* ---- leaving ---------------------------------------------------------------------------------------------------------------- */

static void open_drop(struct st *s, struct st_client *cl, struct st_open *o, nfsstat4 revoke, struct list *files)
	REQUIRES(cl->mu)
{
	struct st_file *f = o->s.file;
	struct file_shard *sh = st_file_shard(s, &f->key);
	struct st_owner *owner = o->s.owner;

	list_for_each_safe (it, tmp, &o->locks) {
		struct st_locks *l = list_entry(it, struct st_locks, open_link);

		if (!l->s.revoked) /* by st_states_drop(), a moment ago */
			st_locks_drop(s, cl, l, revoke, files);
	}
	if (revoke)
		st_state_revoke(s, cl, &o->s, revoke);
	else
		st_state_withdraw(s, cl, &o->s);
	lock_take(&sh->mu);
	list_del(&o->s.file_link);
	share_count(f, o->access, o->deny, -1);
	advice_gone(f, o);
	st_file_unuse(f, files);
	lock_drop(&sh->mu);
	owner->states--;
	st_owner_tidy(s, cl, owner);
	cl->nopens--;
	st_states_count(s, cl, &s->opens, -1);
	if (!revoke)
		free(o);
}

static bool of_export(const struct st_state *x, enum state_kind kind, uint32_t export_id)
{
	return x->kind == kind && (!export_id || x->file->key.export_id == export_id);
}

unsigned st_states_drop(struct st *s, struct st_client *cl, uint32_t export_id, nfsstat4 revoke, struct list *files)
{
	unsigned n = 0;

	/* Locks first: an open that goes takes its locks along, which may be next in the list. */
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_for_each_safe (it, tmp, &cl->states[i]) {
			struct st_state *x = list_entry(it, struct st_state, client_link);

			if (!of_export(x, STATE_LOCK, export_id))
				continue;
			st_locks_drop(s, cl, container_of(x, struct st_locks, s), revoke, files);
			n++;
		}
	for (int i = 0; i < STATE_BUCKETS; i++)
		list_for_each_safe (it, tmp, &cl->states[i]) {
			struct st_state *x = list_entry(it, struct st_state, client_link);

			if (!of_export(x, STATE_OPEN, export_id))
				continue;
			open_drop(s, cl, container_of(x, struct st_open, s), revoke, files);
			n++;
		}
	return n;
}

nfsstat4 st_close(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid)
{
	struct list files = LIST_INIT(files);
	struct st_state *x;
	nfsstat4 st;

	lock_take(&cl->mu);
	st = st_state_find(s, cl, key, sid, STATE_OPEN, &x);
	if (st == NFS4_OK)
		open_drop(s, cl, container_of(x, struct st_open, s), NFS4_OK, &files);
	lock_drop(&cl->mu);
	st_files_free(s, &files);
	return st;
}

static void open_reshare(struct st *s, struct st_open *o, uint32_t access, uint32_t deny)
{
	struct file_shard *sh = st_file_shard(s, &o->s.file->key);

	lock_take(&sh->mu);
	share_set(o->s.file, o, access, deny);
	lock_drop(&sh->mu);
}

nfsstat4 st_open_downgrade(struct st *s, struct st_client *cl, const struct st_fhkey *key, const stateid4 *sid,
			   uint32_t access, uint32_t deny, stateid4 *out)
{
	uint32_t sum_access, sum_deny;
	uint16_t subset;
	struct st_open *o;
	struct st_state *x;
	nfsstat4 st;

	if (access < 1 || access > 3 || deny > 3)
		return NFS4ERR_INVAL;
	lock_take(&cl->mu);
	st = st_state_find(s, cl, key, sid, STATE_OPEN, &x);
	if (st == NFS4_OK) {
		o = container_of(x, struct st_open, s);
		subset = share_subset(o->history, access, deny, &sum_access, &sum_deny);
		if (sum_access != access || sum_deny != deny) {
			st = NFS4ERR_INVAL;
		} else {
			o->history = subset;
			open_reshare(s, o, access, deny);
			st_state_stateid(s, cl, x, true, out);
		}
	}
	lock_drop(&cl->mu);
	return st;
}

void st_open_undo(struct st *s, struct st_client *cl, const struct st_undo *undo)
{
	struct list files = LIST_INIT(files);
	struct st_state *x;
	struct st_open *o;

	lock_take(&cl->mu);
	/* Somebody else of the same owner may have gone on with it meanwhile: then it stays as it is. */
	if (st_state_find(s, cl, NULL, &undo->sid, STATE_OPEN, &x) == NFS4_OK) {
		o = container_of(x, struct st_open, s);
		if (undo->fresh) {
			open_drop(s, cl, o, NFS4_OK, &files);
		} else {
			o->history = undo->history;
			open_reshare(s, o, undo->access, undo->deny);
			st_state_unbump(s, x);
		}
	}
	lock_drop(&cl->mu);
	st_files_free(s, &files);
}
