/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.h - empty, for libntirpc's <rpc/svc.h>
 *
 * From libntirpc 5 on (Debian 13) that header includes "config.h", the one that libntirpc itself was configured with and that
 * no package installs. It asks for USE_LTTNG_NTIRPC only, which is off.
 */
