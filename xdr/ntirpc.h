/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ntirpc.h - libntirpc's headers, without the macros that they leave lying about
 *
 * Include this, never <rpc/rpc.h>: libntirpc defines lock, condition and list macros with common names.
 */
#ifndef VHDNFS_XDR_NTIRPC_H
#define VHDNFS_XDR_NTIRPC_H

#include <rpc/rpc.h>

#undef LIST_INIT
#undef cond_broadcast
#undef cond_init
#undef cond_signal
#undef cond_wait
#undef rwlock_init

#endif
