/* SPDX-License-Identifier: BSD-3-Clause */
/* counters.c - see counters.h */
#include "server/nfs4/counters.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "vhd/base/cleanup.h"

/* One thread's: it alone writes. Those of threads that have ended stay. */
struct mine {
	struct mine *next; /* constant once listed */
	_Atomic uint64_t ops[COUNT_OPS], errors[COUNT_OPS];
	_Atomic uint64_t hints_asked[COUNT_HINTS], hints_followed[COUNT_HINTS];
};

static struct mine *_Atomic all;

static struct mine *mine(void)
{
	static _Thread_local struct mine *m;

	if (__builtin_expect(m != NULL, 1))
		return m;
	m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->next = atomic_load(&all);
	while (!atomic_compare_exchange_weak(&all, &m->next, m))
		;
	return m;
}

/* No other thread writes it. */
static void bump(_Atomic uint64_t *c)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + 1, memory_order_relaxed);
}

void count_op(uint32_t num, uint32_t status)
{
	struct mine *m = mine();

	if (!m || num >= COUNT_OPS)
		return;
	bump(&m->ops[num]);
	if (status)
		bump(&m->errors[num]);
}

void count_hints(uint32_t asked, uint32_t followed)
{
	struct mine *m = mine();

	for (unsigned i = 0; m && i < COUNT_HINTS; i++) {
		if (asked >> i & 1)
			bump(&m->hints_asked[i]);
		if (followed >> i & 1)
			bump(&m->hints_followed[i]);
	}
}

static uint64_t get(_Atomic uint64_t *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

void nfs_counts(struct nfs_counts *out)
{
	*out = (struct nfs_counts){.ops = {0}};
	for (struct mine *m = atomic_load(&all); m; m = m->next) {
		for (unsigned i = 0; i < COUNT_OPS; i++) {
			out->ops[i] += get(&m->ops[i]);
			out->errors[i] += get(&m->errors[i]);
		}
		for (unsigned i = 0; i < COUNT_HINTS; i++) {
			out->hints_asked[i] += get(&m->hints_asked[i]);
			out->hints_followed[i] += get(&m->hints_followed[i]);
		}
	}
}

const char *hint_name(unsigned bit)
{
	static const char *const names[] = {
		"NORMAL",   "SEQUENTIAL",     "SEQUENTIAL_BACKWARDS",
		"RANDOM",   "WILLNEED",       "WILLNEED_OPPORTUNISTIC",
		"DONTNEED", "NOREUSE",        "READ",
		"WRITE",    "INIT_PROXIMITY",
	};

	return bit < ARRAY_LEN(names) ? names[bit] : NULL;
}
