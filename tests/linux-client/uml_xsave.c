/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * uml_xsave.c - preloaded into User Mode Linux on processors with large register files
 *
 * The kernel in the process sets its children's floating-point registers with a buffer of the size that was usual when it
 * was built; on a processor with more (AMX) the host refuses that. Here such a call is completed: the child's present
 * registers are fetched, the caller's bytes laid over them, and all of it set.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define XSTATE_MAX 65536

static long raw(long req, long pid, long addr, long data)
{
	return syscall(SYS_ptrace, req, pid, addr, data);
}

static long set_xstate(long pid, struct iovec *given)
{
	static __thread unsigned char buf[XSTATE_MAX];
	struct iovec whole = {buf, sizeof buf};

	if (raw(PTRACE_GETREGSET, pid, NT_X86_XSTATE, (long)&whole) < 0)
		return -1;
	if (given->iov_len >= whole.iov_len)
		return raw(PTRACE_SETREGSET, pid, NT_X86_XSTATE, (long)given);
	memcpy(buf, given->iov_base, given->iov_len);
	return raw(PTRACE_SETREGSET, pid, NT_X86_XSTATE, (long)&whole);
}

long ptrace(enum __ptrace_request req, ...)
{
	long pid, addr, data, word = 0, rc;
	va_list ap;

	va_start(ap, req);
	pid = va_arg(ap, long);
	addr = va_arg(ap, long);
	data = va_arg(ap, long);
	va_end(ap);
	pid = (int)pid;
	if (req == PTRACE_SETREGSET && addr == NT_X86_XSTATE)
		return set_xstate(pid, (struct iovec *)data);
	/* The system call stores what it peeks at through its last argument; the function returns it. */
	if (req == PTRACE_PEEKTEXT || req == PTRACE_PEEKDATA || req == PTRACE_PEEKUSER) {
		rc = raw(req, pid, addr, (long)&word);
		if (rc < 0)
			return rc;
		errno = 0;
		return word;
	}
	return raw(req, pid, addr, data);
}
