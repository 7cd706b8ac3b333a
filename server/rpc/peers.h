/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peers.h - who has how much of what everyone needs, by address and by network
 *
 *     network 192.0.2.0/24 ──┬── address 192.0.2.7    3 connections
 *                            └── address 192.0.2.9  900
 *
 * An address is an IPv4 address or an IPv6 /64, which is what one host can choose from; a network is a /24 or a /48. Behind one
 * address there may be many honest clients (NAT), so a number is no reason to refuse anybody. While there is room, everybody gets what
 * he asks for; when there is none, it is taken from whoever has most. A network weighs as much as PEERS_NET_WORTH addresses, so that
 * many addresses of one network are no way around that.
 *
 * Locks: a table is its owner's, under his lock, but for peer.memory.
 */
#ifndef VHDNFS_SERVER_RPC_PEERS_H
#define VHDNFS_SERVER_RPC_PEERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/rpc/rpc.h"
#include "vhd/base/list.h"

#define PEERS_BUCKETS 1024u
#define PEERS_NET_WORTH 16u

struct peer {
	struct list link;
	struct peer *net;    /* NULL: this is one */
	uint64_t key[2];     /* the address, the rest of it zeros; and what it is one of */
	unsigned refs, n;    /* n: as many of its owner's things count as its own */
	struct list members; /* they, in the order in which they came */
	size_t held;         /* of what the owner shares out besides */
	_Atomic size_t memory;
};

struct peers {
	struct list bucket[PEERS_BUCKETS];
	uint64_t seed;
};

void peers_init(struct peers *t);
/* The one of an address, with a reference; NULL stands for one that is not known. -> NULL: no memory. */
struct peer *peers_get(struct peers *t, const struct sockaddr *sa);
/* The one that is there, without a reference, or NULL. */
struct peer *peers_find(const struct peers *t, const struct sockaddr *sa);
/* NULL is accepted. */
void peers_put(struct peer *p);
/* One of its own comes, or leaves. */
void peers_join(struct peer *p, struct list *member);
void peers_leave(struct peer *p, struct list *member);
/* How much it has, as far as that is compared. NULL: nothing. */
unsigned peers_weight(const struct peer *p);
/* Which address has most; NULL: none has any. */
struct peer *peers_greediest(const struct peers *t);
/* May it have @more of @total, of which @used are given out, @own of them to it? Three quarters of what the others leave, so that there
 * is some for whoever comes next. */
static inline bool peers_may_hold(size_t total, size_t used, size_t own, size_t more)
{
	size_t others = used > own ? used - own : 0;

	return others < total && own + more <= (total - others) / 4 * 3;
}

#endif
