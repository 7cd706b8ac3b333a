/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conn.c - one connection: records in, replies out
 *
 * Reads go to the loop's buffer; records that are complete there run in place. What is left over moves to a buffer of the
 * connection, of the record's own size, and is freed with it: an idle connection has no buffer.
 */
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/rpc/rpc_int.h"
#include "vhd/base/log.h"

#define MARK 4u
#define LAST 0x80000000u
#define SEND_IOV 512

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return __builtin_bswap32(v);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

struct rpc_conn *rpc_conn_get(struct rpc_conn *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void rpc_conn_put(struct rpc_conn *c)
{
	struct rpc_server *s;

	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	s = c->loop->srv;
	lock_take(&s->accept_mu);
	peers_leave(c->from, &c->from_link); /* it may never have reached its loop */
	peers_put(c->from);
	lock_drop(&s->accept_mu);
	free(c);
}

uint64_t rpc_conn_id(const struct rpc_conn *c)
{
	return c->id;
}

const struct sockaddr *rpc_conn_peer(const struct rpc_conn *c)
{
	return (const struct sockaddr *)&c->peer;
}

const char *rpc_conn_peer_name(const struct rpc_conn *c)
{
	return c->name;
}

static void name_peer(struct rpc_conn *c)
{
	socklen_t len = c->peer.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	char host[46], port[8];

	if (getnameinfo((struct sockaddr *)&c->peer, len, host, sizeof host, port, sizeof port,
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(c->name, sizeof c->name, c->peer.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static bool is_privileged(const struct sockaddr_storage *peer)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)peer;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)peer;

	return ntohs(peer->ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port) < IPPORT_RESERVED;
}

static struct rpc_conn *conn_new(struct rpc_server *s, int fd, const struct sockaddr_storage *peer)
{
	struct rpc_conn *c = calloc(1, sizeof *c);
	int on = 1;

	if (!c)
		return NULL;
	c->fd = fd;
	c->id = atomic_fetch_add(&s->ids, 1) + 1;
	c->peer = *peer;
	c->anyone = s->o.secure_ports && !is_privileged(peer);
	atomic_init(&c->refs, 1);
	atomic_init(&c->last, seconds_now());
	list_init(&c->link);
	list_init(&c->out);
	list_init(&c->flush_link);
	list_init(&c->pause_link);
	list_init(&c->stall_link);
	list_init(&c->raw);
	list_init(&c->asked_link);
	list_init(&c->from_link);
	name_peer(c);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	return c;
}

/*
 * -1: nobody is there any more. Who waits while the process has no descriptors left would keep every loop from sleeping: he is let in
 * with the spare one, and shown out.
 */
static int accept_one(struct rpc_server *s, int listener, struct sockaddr_storage *peer)
{
	socklen_t len = sizeof *peer;
	int fd;

	lock_take(&s->accept_mu);
	fd = accept4(listener, (struct sockaddr *)peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		if (s->spare >= 0)
			close(s->spare);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0) {
			close(fd);
			atomic_fetch_add(&s->refused, 1);
		}
		s->spare = eventfd(0, EFD_CLOEXEC);
		fd = -1;
	}
	lock_drop(&s->accept_mu);
	return fd;
}

/* The one of @p that was heard of longest ago; before all others one that never made a call. */
static struct rpc_conn *idlest(const struct peer *p)
{
	struct rpc_conn *found = NULL;

	list_for_each (it, &p->members) {
		struct rpc_conn *c = list_entry(it, struct rpc_conn, from_link);

		if (!atomic_load_explicit(&c->spoke, memory_order_relaxed))
			return c;
		if (!found || atomic_load_explicit(&c->last, memory_order_relaxed) <
				      atomic_load_explicit(&found->last, memory_order_relaxed))
			found = c;
	}
	return found;
}

/* Is it idle enough to go for another one of its own address? */
static bool is_silent(const struct rpc_conn *c)
{
	return !atomic_load_explicit(&c->spoke, memory_order_relaxed) ||
	       seconds_now() - atomic_load_explicit(&c->last, memory_order_relaxed) > SILENT;
}

/* Is there room for one more of @from? *goes: whoever has to go for it, referenced: of the address that has most, or of its own. */
static bool make_room(struct rpc_server *s, const struct peer *from, struct rpc_conn **goes) REQUIRES(s->accept_mu)
{
	const struct peer *most;
	struct rpc_conn *c;

	if (atomic_load(&s->conns) < s->o.max_conns + s->going)
		return true;
	most = s->going < CONNS_ASIDE ? peers_greediest(&s->peers) : NULL;
	if (!most)
		return false;
	if (peers_weight(most) > peers_weight(from) + 1) {
		c = idlest(most);
	} else {
		c = idlest(from);
		if (!c || !is_silent(c))
			return false;
	}
	peers_leave(c->from, &c->from_link);
	s->going++;
	*goes = rpc_conn_get(c);
	return true;
}

/* A connection that counts from now on; NULL: it must not be. */
static struct rpc_conn *admit(struct rpc_server *s, int fd, const struct sockaddr_storage *peer, struct rpc_conn **goes)
{
	struct rpc_conn *c;
	bool room;

	if (atomic_load(&s->stopping) || (s->s.allow && !s->s.allow(s->s.arg, (const struct sockaddr *)peer)) ||
	    !(c = conn_new(s, fd, peer)))
		return NULL;
	lock_take(&s->accept_mu);
	c->from = peers_get(&s->peers, (const struct sockaddr *)peer);
	room = c->from && make_room(s, c->from, goes);
	if (room) {
		peers_join(c->from, &c->from_link);
		atomic_fetch_add(&s->conns, 1);
	} else {
		peers_put(c->from);
	}
	lock_drop(&s->accept_mu);
	if (!room)
		free(TAKE(c));
	return c;
}

void conn_accept(struct loop *l, int listener)
{
	struct rpc_server *s = l->srv;

	for (int i = 0; i < 16; i++) {
		struct sockaddr_storage peer;
		int fd = accept_one(s, listener, &peer);
		struct loop *to = &s->loop[atomic_fetch_add(&s->next_loop, 1) % s->nloops];
		struct rpc_conn *c, *goes = NULL;

		if (fd < 0)
			return;
		c = admit(s, fd, &peer, &goes);
		if (goes) {
			rpc_conn_close(goes);
			rpc_conn_put(goes);
		}
		if (!c) {
			atomic_fetch_add(&s->refused, 1);
			close(fd);
			continue;
		}
		atomic_fetch_add(&s->conns_total, 1);
		c->loop = to;
		if (to == l) {
			conn_adopt(l, c);
			continue;
		}
		lock_take(&to->mu);
		list_push_back(&to->fresh, &c->link);
		lock_drop(&to->mu);
		loop_wake(to);
	}
}

/* Enough calls and replies under way: nothing more is begun. */
static bool is_full(const struct rpc_conn *c)
{
	return c->out_bytes > OUT_HIGH || c->calls > CALLS_HIGH;
}

void conn_update(struct rpc_conn *c)
{
	bool full = is_full(c) || c->backlog || !list_empty(&c->pause_link) ||
		    atomic_load_explicit(&c->loop->srv->stopping, memory_order_relaxed);
	struct epoll_event ev = {.data.ptr = c};

	if (c->closing || (c->in_epoll && c->paused == full && c->watch_out == c->want_out))
		return;
	ev.events = (full ? 0u : (uint32_t)EPOLLIN) | (c->want_out ? (uint32_t)EPOLLOUT : 0u);
	c->paused = full;
	c->watch_out = c->want_out;
	epoll_ctl(c->loop->epoll, c->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &ev);
	c->in_epoll = true;
}

void conn_adopt(struct loop *l, struct rpc_conn *c)
{
	atomic_store_explicit(&c->last, l->now, memory_order_relaxed);
	list_push_back(&l->conns, &c->link);
	conn_update(c);
}

static void drop_buffers(struct rpc_conn *c)
{
	conn_discharge(c, c->cap + (c->frag ? c->loop->srv->o.max_record : 0) + c->backlog_len);
	free(c->buf);
	free(c->frag);
	free(c->backlog);
	c->buf = c->frag = c->backlog = NULL;
	c->cap = c->len = c->frag_len = c->backlog_len = 0;
	list_del(&c->stall_link);
}

/* The last call is done and the socket closed: nobody but holders of references knows it now. */
void conn_maybe_gone(struct rpc_conn *c)
{
	struct rpc_server *s = c->loop->srv;

	if (!c->closing || c->calls || list_empty(&c->link))
		return;
	list_del(&c->link);
	list_del(&c->pause_link);
	list_del(&c->flush_link);
	lock_take(&c->loop->mu);
	c->gone = true;
	list_del(&c->asked_link);
	while (!list_empty(&c->raw)) {
		struct raw_record *r = list_first(&c->raw, struct raw_record, link);

		list_del(&r->link);
		free(r);
	}
	lock_drop(&c->loop->mu);
	if (s->s.closed)
		s->s.closed(s->s.arg, c);
	lock_take(&s->accept_mu);
	if (list_empty(&c->from_link))
		s->going--;
	peers_leave(c->from, &c->from_link);
	lock_drop(&s->accept_mu);
	atomic_fetch_sub(&s->conns, 1);
	rpc_conn_put(c);
}

/* Replies that wait are dropped; parked calls run to their end, their replies go nowhere. */
void conn_close(struct rpc_conn *c)
{
	struct list dead;

	if (c->closing)
		return;
	c->closing = true;
	close(c->fd); /* leaves the epoll set by itself */
	drop_buffers(c);
	list_del(&c->flush_link); /* while calls of it are under way, the loop would find it there for ever */
	list_init(&dead);
	list_splice_back(&dead, &c->out);
	c->out_bytes = 0;
	rpc_conn_get(c);
	while (!list_empty(&dead))
		call_finish(list_first(&dead, struct call, link));
	conn_maybe_gone(c);
	rpc_conn_put(c);
}

/* ---- in ---------------------------------------------------------------------------------------------------------------------- */

/* A complete fragment. False: close. What the first of several begins counts as a whole record at once: from then on the connection
 * is read whatever the others hold (over_budget()). */
static bool fragment(struct rpc_conn *c, uint8_t *p, size_t len, bool last, uint8_t **own, size_t own_cap)
{
	struct rpc_server *s = c->loop->srv;
	uint8_t *whole;
	bool ok;

	if (last && !c->frag)
		return call_record(c, p, len, own, own_cap);
	if (len > s->o.max_record - c->frag_len)
		return false;
	if (len || !c->frag) {
		whole = realloc(c->frag, c->frag_len + len + 1);
		if (!whole)
			return false;
		if (!c->frag)
			conn_charge(c, s->o.max_record);
		memcpy(whole + c->frag_len, p, len);
		c->frag = whole;
		c->frag_len += len;
	}
	if (!last)
		return true;
	whole = c->frag;
	len = c->frag_len;
	c->frag = NULL;
	c->frag_len = 0;
	conn_discharge(c, s->o.max_record - len);
	ok = call_record(c, whole, len, &whole, len);
	if (whole) {
		conn_discharge(c, len);
		free(whole);
	}
	return ok;
}

/* Keep what is left of a read: the beginning of a record. */
static bool keep(struct rpc_conn *c, const uint8_t *p, size_t n)
{
	struct rpc_server *s = c->loop->srv;
	size_t need = MARK;

	if (n >= MARK) {
		size_t len = get32(p) & ~LAST;

		if (len > s->o.max_record) {
			atomic_fetch_add_explicit(&s->bad_records, 1, memory_order_relaxed);
			return false;
		}
		need += len;
	}
	c->buf = malloc(need);
	if (!c->buf)
		return false;
	c->cap = need;
	c->len = n;
	memcpy(c->buf, p, n);
	conn_charge(c, need);
	return true;
}

/* The rest of a batch waits: its replies would be more than the peer has shown to read. */
static bool stall(struct rpc_conn *c, const uint8_t *p, size_t n)
{
	c->backlog = malloc(n);
	if (!c->backlog)
		return false;
	memcpy(c->backlog, p, n);
	c->backlog_len = n;
	c->started = c->frag ? c->started : 0;
	conn_charge(c, n);
	list_push_back(&c->loop->stalled, &c->stall_link);
	conn_update(c);
	return true;
}

/* Run every complete record of [p, p + n), keep the rest. */
static bool parse(struct rpc_conn *c, uint8_t *p, size_t n)
{
	uint8_t *none = NULL;
	unsigned batch = 0;

	while (n >= MARK) {
		uint32_t mark = get32(p);
		size_t len = mark & ~LAST;

		if (len > n - MARK)
			break;
		if (!fragment(c, p + MARK, len, mark & LAST, &none, 0))
			return false;
		p += MARK + len;
		n -= MARK + len;
		if (++batch % 64 == 0 || is_full(c))
			conn_flush(c);
		if (c->closing)
			return true;
		if (n && is_full(c))
			return stall(c, p, n);
	}
	c->started = n || c->frag ? (c->started ? c->started : c->loop->now) : 0;
	return n == 0 || keep(c, p, n);
}

bool conn_unstall(struct rpc_conn *c)
{
	struct rpc_server *s = c->loop->srv;
	uint8_t *p = c->backlog;
	size_t n = c->backlog_len;

	if (is_full(c) || atomic_load_explicit(&s->stopping, memory_order_relaxed))
		return false;
	rpc_conn_get(c);
	list_del(&c->stall_link);
	c->backlog = NULL;
	c->backlog_len = 0;
	if (!parse(c, p, n))
		conn_close(c);
	else
		conn_flush(c);
	conn_discharge(c, n);
	free(p);
	rpc_conn_put(c);
	return true;
}

/* The connection's own buffer is full: it holds a mark, or a whole record. */
static bool buffer_full(struct rpc_conn *c)
{
	uint32_t mark = get32(c->buf);
	size_t len = mark & ~LAST, cap = c->cap;
	uint8_t *buf = c->buf;
	bool ok;

	if (c->cap == MARK && len) {
		c->buf = NULL;
		c->cap = c->len = 0;
		ok = keep(c, buf, MARK);
		conn_discharge(c, cap);
		free(buf);
		return ok;
	}
	c->buf = NULL;
	c->cap = c->len = 0;
	ok = fragment(c, buf + MARK, len, mark & LAST, &buf, cap);
	if (buf) {
		conn_discharge(c, cap);
		free(buf);
	}
	c->started = c->frag ? c->started : 0;
	return ok;
}

bool conn_is_greedy(const struct rpc_conn *c)
{
	const struct rpc_server *s = c->loop->srv;
	size_t used = atomic_load_explicit(&s->memory, memory_order_relaxed), most = s->o.max_memory;
	size_t own = atomic_load_explicit(&c->from->memory, memory_order_relaxed);

	return used >= most || (used >= most / 2 && !peers_may_hold(most, used, own, 0));
}

static bool over_budget(struct rpc_conn *c)
{
	struct loop *l = c->loop;

	if (!conn_is_greedy(c))
		return false;
	/* A connection that holds a part of a record goes on: it is the one that can give memory back. */
	if ((c->buf && c->cap > MARK) || c->frag)
		return false;
	if (list_empty(&c->pause_link))
		list_push_back(&l->paused, &c->pause_link);
	conn_update(c);
	return true;
}

void conn_readable(struct rpc_conn *c)
{
	struct loop *l = c->loop;
	bool ok = true;

	rpc_conn_get(c);
	for (int i = 0; i < 4 && ok && !c->closing && !c->paused; i++) {
		bool own = c->buf != NULL;
		size_t room = own ? c->cap - c->len : READ_BUF;
		ssize_t n;

		if (over_budget(c))
			break;
		n = recv(c->fd, own ? c->buf + c->len : l->buf, room, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n <= 0) {
			ok = false;
			break;
		}
		atomic_fetch_add_explicit(&l->srv->bytes_in, (unsigned long)n, memory_order_relaxed);
		if (own) {
			c->len += (size_t)n;
			if (c->len == c->cap)
				ok = buffer_full(c);
		} else {
			ok = parse(c, l->buf, (size_t)n);
			if ((size_t)n < room)
				i = 4; /* that was all there is */
		}
	}
	if (!ok)
		conn_close(c);
	else
		conn_flush(c);
	rpc_conn_put(c);
}

/* ---- out --------------------------------------------------------------------------------------------------------------------- */

void conn_queue_reply(struct rpc_conn *c, struct call *k)
{
	if (k->drop || c->closing) {
		call_finish(k);
		return;
	}
	if (list_empty(&c->out))
		c->moved = c->loop->now;
	list_push_back(&c->out, &k->link);
	c->out_bytes += xa_out_len(&k->pub.out);
	call_charge_arena(k);
	if (list_empty(&c->flush_link))
		list_push_back(&c->loop->flush, &c->flush_link);
}

/* Leaves out the first *skip bytes of @n pieces, and takes what it left out from *skip. How many pieces are left. */
static unsigned skip_sent(struct iovec *iov, unsigned n, size_t *skip)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n; i++) {
		size_t here = *skip < iov[i].iov_len ? *skip : iov[i].iov_len;

		*skip -= here;
		if (here < iov[i].iov_len)
			iov[left++] = (struct iovec){.iov_base = (char *)iov[i].iov_base + here,
						     .iov_len = iov[i].iov_len - here};
	}
	return left;
}

/* The pieces of all replies that wait, less what of the first was sent: that may have been as many as fit here. */
static unsigned gather(struct rpc_conn *c, struct iovec *iov)
{
	size_t skip = c->out_sent;
	unsigned n = 0;

	list_for_each (it, &c->out) {
		struct call *k = list_entry(it, struct call, link);
		unsigned from = 0, got;

		while (n < SEND_IOV && (got = xa_out_iov(&k->pub.out, iov + n, SEND_IOV - n, &from)))
			n += skip_sent(iov + n, got, &skip);
		if (n == SEND_IOV)
			break;
	}
	return n;
}

static void sent(struct rpc_conn *c, size_t n)
{
	c->out_sent += n;
	while (!list_empty(&c->out)) {
		struct call *k = list_first(&c->out, struct call, link);
		size_t len = xa_out_len(&k->pub.out);

		if (c->out_sent < len)
			return;
		c->out_sent -= len;
		c->out_bytes -= len;
		call_finish(k);
	}
}

/* Records of our own go between replies, never inside one. */
static bool send_raw(struct rpc_conn *c)
{
	while (c->out_sent == 0) {
		struct raw_record *r = NULL;
		ssize_t n;

		lock_take(&c->loop->mu);
		if (!list_empty(&c->raw))
			r = list_first(&c->raw, struct raw_record, link);
		if (r) {
			list_del(&r->link);
			c->raw_bytes -= r->len;
		}
		lock_drop(&c->loop->mu);
		if (!r)
			return true;
		n = send(c->fd, r->data, r->len, MSG_NOSIGNAL);
		if (n == (ssize_t)r->len) {
			free(r);
			continue;
		}
		if (n < 0 && errno == EAGAIN) {
			lock_take(&c->loop->mu);
			list_push_front(&c->raw, &r->link);
			c->raw_bytes += r->len;
			lock_drop(&c->loop->mu);
			if (!c->watch_out)
				c->moved = c->loop->now;
			c->want_out = true;
			return true;
		}
		free(r); /* a part of it went out: the stream is broken */
		return false;
	}
	return true;
}

void conn_flush(struct rpc_conn *c)
{
	if (c->closing)
		return;
	rpc_conn_get(c);
	list_del(&c->flush_link);
	c->want_out = false;
	while (!list_empty(&c->out) && !c->closing) {
		struct iovec iov[SEND_IOV];
		struct msghdr m = {.msg_iov = iov, .msg_iovlen = gather(c, iov)};
		ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->want_out = true;
			break;
		}
		if (n < 0) {
			conn_close(c);
			break;
		}
		atomic_fetch_add_explicit(&c->loop->srv->bytes_out, (unsigned long)n, memory_order_relaxed);
		c->moved = c->loop->now;
		sent(c, (size_t)n);
	}
	if (!c->closing && !send_raw(c))
		conn_close(c);
	conn_update(c);
	rpc_conn_put(c);
}

/* ---- asked from other threads -------------------------------------------------------------------------------------------------- */

static void ask(struct rpc_conn *c) REQUIRES(c->loop->mu)
{
	if (!c->gone && list_empty(&c->asked_link))
		list_push_back(&c->loop->asked, &c->asked_link);
}

void rpc_conn_close(struct rpc_conn *c)
{
	lock_take(&c->loop->mu);
	c->close_asked = true;
	ask(c);
	lock_drop(&c->loop->mu);
	loop_wake(c->loop);
}

int rpc_conn_send(struct rpc_conn *c, const void *record, size_t len)
{
	uint32_t mark = __builtin_bswap32(LAST | (uint32_t)len);
	struct raw_record *r;
	int err = 0;

	if (len > RAW_HIGH - MARK || !(r = malloc(sizeof *r + MARK + len)))
		return -ENOBUFS;
	r->len = MARK + len;
	memcpy(r->data, &mark, MARK);
	memcpy(r->data + MARK, record, len);
	lock_take(&c->loop->mu);
	if (c->gone || c->close_asked)
		err = -ENOTCONN;
	else if (r->len > RAW_HIGH - c->raw_bytes)
		err = -ENOBUFS;
	if (!err) {
		list_push_back(&c->raw, &r->link);
		c->raw_bytes += r->len;
		ask(c);
	}
	lock_drop(&c->loop->mu);
	if (err)
		free(r);
	else
		loop_wake(c->loop);
	return err;
}

void conn_asked(struct rpc_conn *c)
{
	bool close_it;

	lock_take(&c->loop->mu);
	close_it = c->close_asked;
	lock_drop(&c->loop->mu);
	if (close_it)
		conn_close(c);
	else
		conn_flush(c);
}
