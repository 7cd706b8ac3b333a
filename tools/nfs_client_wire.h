/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nfs_client_wire.h - COMPOUNDs over a connected socket: an RPC client without libtirpc's transport
 *
 * libtirpc's keeps locks in tables for the whole process, by the number of the file descriptor. A thread that has descriptors of its
 * own, in a program that may use libtirpc for itself and may fork() at any time, cannot share them.
 */
#ifndef VHDNFS_TOOLS_NFS_CLIENT_WIRE_H
#define VHDNFS_TOOLS_NFS_CLIENT_WIRE_H

#include <rpc/rpc.h>

/**
 * nfs_wire_new() - a client for NFSv4 over @fd
 * @fd: a connected stream socket; its SO_RCVTIMEO and SO_SNDTIMEO bound how long a call takes, not the call's own argument
 *
 * Messages are at most 32 KiB in either direction. One call at a time. cl_auth is the caller's. Closes @fd when it is destroyed, once
 * CLSET_FD_CLOSE was said. After a call that failed below RPC (CANTSEND, CANTRECV, TIMEDOUT, CANTDECODERES) it is of no more use.
 *
 * Return: clnt_destroy() frees it; NULL: out of memory.
 * Source: RFC 5531 §9, §11.
 */
CLIENT *nfs_wire_new(int fd);

#endif
