/* SPDX-License-Identifier: BSD-3-Clause */
/* st.c - the whole: making and freeing it, time, figures. See state.h and state_int.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "server/state/state_int.h"

enum {
	LEASE_SECONDS = 90,
	COURTESY_SECONDS = 24 * 3600,
	MAX_MESSAGE = 1024 * 1024 + 64 * 1024,
	MAX_SLOTS = 64,
	MAX_CLIENTS = 8192,
	MAX_OPENS = 65536,
	MAX_RANGES = 16384,
	MAX_STATES = 1024 * 1024,
	REPLAY_BYTES = 16 * 1024 * 1024,
};

/* Coarse is enough for leases and costs a few nanoseconds. */
uint64_t st_now_ms(const struct st *s)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 +
	       atomic_load_explicit(&s->skipped_ms, memory_order_relaxed);
}

void st_skip_time(struct st *s, uint32_t seconds)
{
	atomic_fetch_add(&s->skipped_ms, (uint64_t)seconds * 1000);
}

/* Once the kernel's generator is seeded, which st_new() waits for, so few bytes always come at once and whole. */
static bool random_fill(struct st *s) REQUIRES(s->random_mu)
{
	if (getrandom(s->random, sizeof s->random, 0) != sizeof s->random)
		return false;
	s->nrandom = RANDOM_BATCH;
	return true;
}

uint64_t st_random(struct st *s)
{
	uint64_t r = 0;

	lock_take(&s->random_mu);
	while (!r)
		if (s->nrandom || random_fill(s))
			r = s->random[--s->nrandom];
	lock_drop(&s->random_mu);
	return r;
}

/* FNV-1a: for tables whose chains are bounded by limits anyway. */
uint32_t st_hash(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ b[i]) * 16777619u;
	return h ^ h >> 15;
}

static uint32_t or_default(uint32_t v, uint32_t def)
{
	return v ? v : def;
}

static void init_options(struct st *s, const struct st_opts *o)
{
	s->opts = *o;
	s->opts.lease_seconds = or_default(o->lease_seconds, LEASE_SECONDS);
	s->opts.courtesy_seconds = or_default(o->courtesy_seconds, COURTESY_SECONDS);
	s->opts.max_request = or_default(o->max_request, MAX_MESSAGE);
	s->opts.max_response = or_default(o->max_response, MAX_MESSAGE);
	s->opts.max_slots = or_default(o->max_slots, MAX_SLOTS);
	s->opts.max_clients = or_default(o->max_clients, MAX_CLIENTS);
	s->opts.max_opens = or_default(o->max_opens, MAX_OPENS);
	s->opts.max_ranges = or_default(o->max_ranges, MAX_RANGES);
	s->opts.max_states = or_default(o->max_states, MAX_STATES);
	if (!s->opts.replay_bytes)
		s->opts.replay_bytes = REPLAY_BYTES;
	s->opts.server_owner = s->opts.server_scope = s->opts.records = NULL; /* the caller's */
	s->lease_ms = (uint64_t)s->opts.lease_seconds * 1000;
	s->grace_ms = (uint64_t)or_default(o->grace_seconds, s->opts.lease_seconds) * 1000;
	s->courtesy_ms = (uint64_t)s->opts.courtesy_seconds * 1000;
}

static void init_tables(struct st *s)
{
	lock_init(&s->mu);
	lock_init(&s->random_mu);
	lock_init(&s->record_mu);
	list_init(&s->absent);
	list_init(&s->leaving);
	list_init(&s->sessions);
	peers_init(&s->peers);
	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		list_init(&s->by_id[i]);
		list_init(&s->by_owner[i]);
	}
	for (int i = 0; i < SESSION_SHARDS; i++) {
		lock_init(&s->session_shard[i].mu);
		for (int j = 0; j < SESSION_BUCKETS; j++)
			list_init(&s->session_shard[i].bucket[j]);
	}
	for (int i = 0; i < FILE_SHARDS; i++) {
		lock_init(&s->file_shard[i].mu);
		for (int j = 0; j < FILE_BUCKETS; j++)
			list_init(&s->file_shard[i].bucket[j]);
	}
	for (int i = 0; i < SID_SHARDS; i++)
		lock_init(&s->sid_shard[i].mu);
}

/* Clients take servers of one name for one server (RFC 8881 §2.10.4), so the default tells hosts apart. */
static char *name_or_host(const char *name)
{
	char host[256] = "", *def;

	if (name)
		return strdup(name);
	gethostname(host, sizeof host - 1);
	return asprintf(&def, "vhdnfs:%s", host) < 0 ? NULL : def;
}

int st_new(struct st **out, const struct st_opts *o, struct why *why)
{
	struct st *s;
	size_t size = (sizeof *s + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	struct timespec t;
	int err;

	s = aligned_alloc(CACHE_LINE, size);
	if (!s)
		return why_set(why, -ENOMEM, "state: out of memory");
	memset(s, 0, size);
	init_options(s, o);
	s->owner = name_or_host(o->server_owner);
	s->scope = name_or_host(o->server_scope);
	if (!s->owner || !s->scope) {
		free(s->owner);
		free(s->scope);
		free(s);
		return why_set(why, -ENOMEM, "state: out of memory");
	}
	/* Old stateids must not be taken for new ones: a second is finer than any restart. */
	clock_gettime(CLOCK_REALTIME, &t);
	s->boot = (uint32_t)t.tv_sec ^ (uint32_t)t.tv_nsec << 12;
	if (s->boot == 0 || s->boot == UINT32_MAX) /* these begin special stateids */
		s->boot = 1;
	init_tables(s);
	lock_take(&s->random_mu);
	err = random_fill(s) ? 0 : why_set(why, -EIO, "state: no random numbers: %s", strerror(errno));
	lock_drop(&s->random_mu);
	if (!err)
		err = st_grace_begin(s, o->records, why);
	if (err) {
		st_free(s);
		return err;
	}
	*out = s;
	return 0;
}

void st_free(struct st *s)
{
	struct list files = LIST_INIT(files);

	if (!s)
		return;
	lock_take(&s->mu);
	for (int i = 0; i < CLIENT_BUCKETS; i++)
		while (!list_empty(&s->by_id[i]))
			st_client_remove(s, list_first(&s->by_id[i], struct st_client, id_link), &files);
	lock_drop(&s->mu);
	st_files_free(s, &files);
	st_grace_fini(s);

	for (int i = 0; i < SESSION_SHARDS; i++)
		lock_fini(&s->session_shard[i].mu);
	for (int i = 0; i < FILE_SHARDS; i++)
		lock_fini(&s->file_shard[i].mu);
	for (int i = 0; i < SID_SHARDS; i++)
		lock_fini(&s->sid_shard[i].mu);
	lock_fini(&s->mu);
	lock_fini(&s->random_mu);
	lock_fini(&s->record_mu);
	free(s->owner);
	free(s->scope);
	free(s);
}

void st_tick(struct st *s)
{
	st_grace_tick(s);
	st_clients_tick(s);
	st_sessions_tick(s);
}

uint32_t st_lease_seconds(const struct st *s)
{
	return s->opts.lease_seconds;
}

const char *st_server_owner(const struct st *s)
{
	return s->owner;
}

const char *st_server_scope(const struct st *s)
{
	return s->scope;
}

void st_get_stats(struct st *s, struct st_stats *out)
{
	memset(out, 0, sizeof *out);
	lock_take(&s->mu);
	out->clients = s->nclients;
	for (int i = 0; i < CLIENT_BUCKETS; i++) {
		list_for_each (it, &s->by_id[i]) {
			struct st_client *cl = list_entry(it, struct st_client, id_link);

			out->unconfirmed += !cl->confirmed;
			out->courtesy += cl->confirmed && st_client_expired(s, cl);
		}
	}
	out->sessions = s->nsessions;
	out->slots = s->nslots;
	out->replay_reserved = s->reserved;
	lock_drop(&s->mu);
	out->replay_bytes = s->replay_bytes;
	out->opens = s->opens;
	out->lock_states = s->lock_states;
	out->ranges = s->ranges;
	out->files = s->files;
	out->owners = s->owners;
	out->replays = s->replays;
	out->misordered = s->misordered;
	out->false_retries = s->false_retries;
	out->expired = s->expired;
	out->share_denied = s->share_denied;
	out->lock_denied = s->lock_denied;
}
