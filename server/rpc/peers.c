/* SPDX-License-Identifier: BSD-3-Clause */
/* peers.c - see peers.h */
#include "server/rpc/peers.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { KIND_NONE, KIND_V4, KIND_V4_NET, KIND_V6, KIND_V6_NET };

void peers_init(struct peers *t)
{
	for (unsigned i = 0; i < PEERS_BUCKETS; i++)
		list_init(&t->bucket[i]);
	/* Without it somebody who may choose his addresses could choose those of one bucket. */
	if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) < 0)
		t->seed = (uintptr_t)t;
}

static uint64_t v6_prefix(const struct in6_addr *a, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, a, bytes);
	return v;
}

/* key[0] the address, key[1] of which kind. */
static void key_of(const struct sockaddr *sa, uint64_t addr[2], uint64_t net[2])
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)sa;
	uint32_t v4;

	memset(addr, 0, 2 * sizeof *addr);
	memset(net, 0, 2 * sizeof *net);
	if (!sa)
		return;
	if (sa->sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		addr[0] = v6_prefix(&v6->sin6_addr, 8);
		addr[1] = KIND_V6;
		net[0] = v6_prefix(&v6->sin6_addr, 6);
		net[1] = KIND_V6_NET;
		return;
	}
	if (sa->sa_family == AF_INET6)
		memcpy(&v4, &v6->sin6_addr.s6_addr[12], sizeof v4);
	else if (sa->sa_family == AF_INET)
		v4 = ((const struct sockaddr_in *)sa)->sin_addr.s_addr;
	else
		return;
	addr[0] = v4;
	addr[1] = KIND_V4;
	net[0] = v4 & htonl(0xffffff00);
	net[1] = KIND_V4_NET;
}

static unsigned bucket_of(const struct peers *t, const uint64_t key[2])
{
	uint64_t h = (key[0] ^ t->seed) * 0x9e3779b97f4a7c15ull + key[1];

	return (unsigned)((h ^ h >> 29) * 0xbf58476d1ce4e5b9ull >> 40) % PEERS_BUCKETS;
}

static struct peer *find(const struct peers *t, const uint64_t key[2])
{
	list_for_each (it, &t->bucket[bucket_of(t, key)]) {
		struct peer *p = list_entry(it, struct peer, link);

		if (p->key[0] == key[0] && p->key[1] == key[1])
			return p;
	}
	return NULL;
}

static struct peer *get(struct peers *t, const uint64_t key[2])
{
	struct peer *p = find(t, key);

	if (!p) {
		p = calloc(1, sizeof *p);
		if (!p)
			return NULL;
		memcpy(p->key, key, sizeof p->key);
		list_init(&p->members);
		list_push_front(&t->bucket[bucket_of(t, key)], &p->link);
	}
	p->refs++;
	return p;
}

struct peer *peers_get(struct peers *t, const struct sockaddr *sa)
{
	uint64_t addr[2], net[2];
	struct peer *p;

	key_of(sa, addr, net);
	p = get(t, addr);
	if (p && !p->net && net[1] != KIND_NONE) {
		p->net = get(t, net);
		if (!p->net) {
			peers_put(p);
			return NULL;
		}
	}
	return p;
}

struct peer *peers_find(const struct peers *t, const struct sockaddr *sa)
{
	uint64_t addr[2], net[2];

	key_of(sa, addr, net);
	return find(t, addr);
}

void peers_put(struct peer *p)
{
	while (p && --p->refs == 0) {
		struct peer *net = p->net;

		list_del(&p->link);
		free(p);
		p = net;
	}
}

static void count(struct peer *p, int by)
{
	for (; p; p = p->net)
		p->n += (unsigned)by;
}

void peers_join(struct peer *p, struct list *member)
{
	list_push_back(&p->members, member);
	count(p, 1);
}

void peers_leave(struct peer *p, struct list *member)
{
	if (list_empty(member))
		return;
	list_del(member);
	count(p, -1);
}

unsigned peers_weight(const struct peer *p)
{
	unsigned of_net = p && p->net ? p->net->n / PEERS_NET_WORTH : 0;

	if (!p)
		return 0;
	return p->n > of_net ? p->n : of_net;
}

struct peer *peers_greediest(const struct peers *t)
{
	struct peer *most = NULL;

	for (unsigned i = 0; i < PEERS_BUCKETS; i++)
		list_for_each (it, &t->bucket[i]) {
			struct peer *p = list_entry(it, struct peer, link);

			/* Of those of one network, which weigh the same, the one that has most. */
			if (!list_empty(&p->members) && (!most || peers_weight(p) > peers_weight(most) ||
							 (peers_weight(p) == peers_weight(most) && p->n > most->n)))
				most = p;
		}
	return most;
}
