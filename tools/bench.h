/* SPDX-License-Identifier: BSD-3-Clause */
/* bench.h - what the parts of `vhdnfs bench` share */
#ifndef VHDNFS_TOOLS_BENCH_H
#define VHDNFS_TOOLS_BENCH_H

#include <stdint.h>
#include <string.h>
#include <sys/types.h>

static inline void wire_set(char *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
}

static inline uint32_t wire_get(const char *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

/**
 * bare_start() - a process that answers every record with one of @reply_len bytes, from one epoll loop
 * @port: out: where it listens on 127.0.0.1
 *
 * It knows nothing of NFS: its replies are zeros behind the number of the call. The limit of any server.
 *
 * Return: its pid, to be killed by the caller; a negative errno.
 */
pid_t bare_start(uint32_t reply_len, uint16_t *port);

#endif
