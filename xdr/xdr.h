/* SPDX-License-Identifier: BSD-3-Clause */
/* xdr.h - every type of the wire, as rpcgen made it from the .x files of this folder */
#ifndef VHDNFS_XDR_XDR_H
#define VHDNFS_XDR_XDR_H

#include "xdr/ntirpc.h"

#include "xdr/rpc.h"
#include "xdr/nfs4.h"
#include "xdr/nfs4_cb.h"

#endif
