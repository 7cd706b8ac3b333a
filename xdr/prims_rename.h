/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prims_rename.h - put in front of rpcgen's output for the server: its routines call our primitives, not the library's
 */
#ifndef VHDNFS_XDR_PRIMS_RENAME_H
#define VHDNFS_XDR_PRIMS_RENAME_H

#include "xdr/ntirpc.h"
#include "xdr/prims.h"

#undef xdr_array
#undef xdr_bool
#undef xdr_bytes
#undef xdr_enum
#undef xdr_opaque
#undef xdr_pointer
#undef xdr_string
#undef xdr_int32_t
#undef xdr_int64_t
#undef xdr_uint32_t
#undef xdr_uint64_t

#define xdr_array xa_array
#define xdr_bool xa_bool
#define xdr_bytes xa_bytes
#define xdr_enum xa_enum
#define xdr_opaque xa_opaque
#define xdr_pointer xa_pointer
#define xdr_string xa_string
#define xdr_int32_t xa_int32
#define xdr_int64_t xa_int64
#define xdr_uint32_t xa_uint32
#define xdr_uint64_t xa_uint64

#endif
