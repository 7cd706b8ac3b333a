/* SPDX-License-Identifier: BSD-3-Clause */
/* server.h - a real vhdnfsd with a fresh image, for one test program; raw connections to it */
#ifndef VHDNFS_TESTS_PROTOCOL_SERVER_H
#define VHDNFS_TESTS_PROTOCOL_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/nfs_client.h"

/* The programs lie two folders above the test's own. */
void server_find(const char *argv0);
/* An image with ext4 and one file "/hello"; the server serves it at /disk. @extra: more options, NULL-terminated, or NULL. */
void server_start(const char *const *extra);
/* TERM; the server must end with 0 and e2fsck be content. */
void server_stop(void);
/* HUP: it reads its configuration again, sooner or later. */
void server_reload(void);
/* A shell line with the programs' folder for %1$s and @arg for %2$s; its status. */
int server_tool(const char *fmt, const char *arg);
/* What server_restart() gives the server besides the image from now on. */
void server_options(const char *const *extra);
uint16_t server_port(void);
/* The folder that holds the image, disk.vhd. */
const char *server_dir(void);
/* Stop, leave what the image holds as "image.raw" in server_dir(), and start as with server_restart(). */
void server_image_raw(void);
/* Stop and start on the same image, at the same port. */
void server_restart(void);
/* KILL, at any moment; then started again on what it left, at the same port. */
void server_kill(void);
void server_again(void);
/* Resident memory; 0 in sanitizer builds, whose memory is not the server's alone. */
long server_rss_kib(void);
struct nfsc *server_client(void);
/* The same client, that has heard of the restart: RECLAIM_COMPLETE is the caller's. */
void server_client_again(struct nfsc *n);
/* Of a server that has "--listen [::1]:0" among its options. */
struct nfsc *server_client_v6(void);

/* A raw TCP connection, and records on it. */
int raw_connect(void);
/* From an address of this machine, 127.x.y.z; -1 with errno. */
int raw_connect_from(uint32_t addr);
void raw_send(int fd, const void *p, size_t n);
/* A call with AUTH_NONE: @proc of NFSv4 with these arguments, in one record. */
void raw_call(int fd, uint32_t xid, uint32_t proc, const void *args, size_t n);
/* The next reply: its length, or 0 when the server closed the connection, or -1 after @ms. */
int raw_reply(int fd, uint8_t *buf, size_t cap, int ms);
void raw_put32(uint8_t *p, uint32_t v);
uint32_t raw_get32(const uint8_t *p);

#endif
