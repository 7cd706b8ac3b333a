/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * counters.h - how often each operation ran, and which hints came
 *
 * Every thread counts for itself, in plain stores; whoever reads adds them up. Counts are since the start of the server.
 */
#ifndef VHDNFS_SERVER_NFS4_COUNTERS_H
#define VHDNFS_SERVER_NFS4_COUNTERS_H

#include <stdint.h>

#define COUNT_OPS 80u   /* more than any operation's number */
#define COUNT_HINTS 16u /* bits of IO_ADVISE4's first word that are told apart */

struct nfs_counts {
	uint64_t ops[COUNT_OPS], errors[COUNT_OPS];
	uint64_t hints_asked[COUNT_HINTS], hints_followed[COUNT_HINTS];
};

/* Operation @num < COUNT_OPS was done with @status. */
void count_op(uint32_t num, uint32_t status);
void count_hints(uint32_t asked, uint32_t followed);
void nfs_counts(struct nfs_counts *out);
/* A hint by its bit in IO_ADVISE4's first word, as RFC 7862 calls it; NULL: beyond the last. */
const char *hint_name(unsigned bit);

#endif
