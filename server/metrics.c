/* SPDX-License-Identifier: BSD-3-Clause */
/* metrics.c - see metrics.h */
#include "server/metrics.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "vhd/base/cleanup.h"
#include "vhd/base/size.h"

enum { CONNECTIONS = 16, IDLE_SECONDS = 10 };

struct metrics {
	struct MHD_Daemon *d;
	struct figures_of f;
};

static enum MHD_Result respond(struct MHD_Connection *c, unsigned status, char *text, const char *type)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result ok;

	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	ok = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return ok;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *c, const char *url, const char *method,
			      const char *version, const char *data, size_t *size, void **state)
{
	const struct metrics *m = arg;
	char *text;

	(void)version;
	(void)data;
	(void)state;
	if (*size) { /* nobody has to send us anything */
		*size = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		text = strdup("GET only\n");
	else if (strcmp(url, "/metrics") != 0)
		text = strdup("the figures are at /metrics\n");
	else if ((text = figures_text(&m->f)))
		return respond(c, MHD_HTTP_OK, text, "text/plain; version=0.0.4");
	return text ? respond(c, strcmp(url, "/metrics") ? MHD_HTTP_NOT_FOUND : MHD_HTTP_METHOD_NOT_ALLOWED, text,
			      "text/plain")
		    : MHD_NO;
}

/* "ADDR:PORT", "[V6]:PORT". */
static int parse(const char *text, struct sockaddr_storage *sa, struct why *why)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)sa;
	struct sockaddr_in *four = (struct sockaddr_in *)sa;
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2];
	size_t n = colon ? (size_t)(colon - text) : 0;
	uint64_t port;

	memset(sa, 0, sizeof *sa);
	if (!n || n >= sizeof host || !number_parse(colon + 1, 0, 65535, &port))
		goto bad;
	memcpy(host, text, n);
	host[n] = '\0';
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		six->sin6_family = AF_INET6;
		six->sin6_port = htons((uint16_t)port);
		if (inet_pton(AF_INET6, host + 1, &six->sin6_addr) == 1)
			return 0;
		goto bad;
	}
	four->sin_family = AF_INET;
	four->sin_port = htons((uint16_t)port);
	if (inet_pton(AF_INET, host, &four->sin_addr) == 1)
		return 0;
bad:
	return why_set(why, -EINVAL, "metrics %.100s: expected ADDR:PORT or [V6]:PORT", text);
}

int metrics_start(struct metrics **out, const char *addr, const struct figures_of *f, uint16_t *port, struct why *why)
{
	struct metrics *m;
	struct sockaddr_storage sa;
	unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD; /* not select(): descriptors may be many */
	const union MHD_DaemonInfo *info;
	int err = parse(addr, &sa, why);

	if (err)
		return err;
	m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->f = *f;
	flags |= sa.ss_family == AF_INET6 ? MHD_USE_IPv6 : 0;
	m->d = MHD_start_daemon(flags, 0, NULL, NULL, handle, m, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&sa,
				MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
				(unsigned)IDLE_SECONDS, MHD_OPTION_END);
	if (!m->d) {
		err = why_set(why, -EINVAL, "metrics %s: cannot listen there: %s", addr, strerror(errno));
		free(m);
		return err;
	}
	info = MHD_get_daemon_info(m->d, MHD_DAEMON_INFO_BIND_PORT);
	*port = info ? info->port : 0;
	*out = m;
	return 0;
}

void metrics_stop(struct metrics *m)
{
	if (!m)
		return;
	MHD_stop_daemon(m->d);
	free(m);
}
