/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * main.c - vhdnfsd: the command line, start, signals, stop
 *
 * Start builds from the bottom up (cache, exports and images, state, transport), stop takes it down in the opposite
 * order; every step of stop accepts that start never got so far.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "server/config.h"
#include "server/control.h"
#include "server/export.h"
#include "server/images.h"
#include "server/metrics.h"
#include "server/nfs4/compound.h"
#include "server/nfs4/ops.h"
#include "server/rpc/rpc.h"
#include "server/state/state.h"
#include "vhd/base/checked.h"
#include "vhd/base/cleanup.h"
#include "vhd/base/log.h"
#include "vhd/base/size.h"
#include "vhd/io/hio_model.h"

#define IO_MAX (1u << 20)        /* rsize and wsize: what Linux asks for at most */
#define RECORD_SLACK (64u << 10) /* a record is an I/O and what stands around it */
#define DRAIN_MS 10000
#define DESCRIPTORS_OTHER 512 /* images and their parents, rings, sockets */

struct daemon {
	struct config conf;
	struct nfs_server nfs;
	struct cache *cache;
	struct images *images;
	struct rpc_server *rpc;
	struct control *control; /* NULL: none */
	struct metrics *metrics; /* the same */
	FILE *trace;             /* the same */
	struct config next;      /* what the last reload asked for */
	unsigned waits;          /* what images_reload() said of it */
	bool keeping;            /* files without a name: clients may come back for them */
	char addresses[1024];    /* "127.0.0.1:2049, [::1]:2049" */
};

static const char usage[] =
	"usage: vhdnfsd [OPTION]… IMAGE[=NAME]…\n"
	"       vhdnfsd [OPTION]… -c FILE\n"
	"\n"
	"Serves the files inside VHD disk images to NFSv4.1 and NFSv4.2 clients. Each file system found in an\n"
	"image appears at /NAME (by default the image's name without .vhd), or at /NAME/p1, /NAME/p2, … where the\n"
	"image holds several.\n"
	"\n"
	"  -c, --config FILE        read FILE (YAML); see vhdnfs.yaml(5)\n"
	"  -l, --listen ADDR[:PORT] listen here; may be repeated (default 127.0.0.1:2049)\n"
	"  -s, --cache-size SIZE    memory for cached image data (default 256M)\n"
	"  -r, --read-only          change nothing in any image\n"
	"  -a, --allow CIDR         clients that may connect, such as 10.0.0.0/8; may be repeated (default: all)\n"
	"      --secure-ports       believe AUTH_SYS only from ports below 1024, which take root on the client\n"
	"      --no-root-squash     let root on a client be root on the files\n"
	"      --discard            give the space of removed files back to the host\n"
	"      --detect-zeroes      zeros that are written where an image holds nothing take no space in it\n"
	"      --async              answer changes of names and attributes before they are on the disk\n"
	"      --no-journal-ok      write file systems that have no journal (ext2); a crash means e2fsck\n"
	"      --parent-dir DIR     look for parents of differencing images below DIR, instead of beside the image;\n"
	"                           may be repeated\n"
	"      --force-parent       take parents that were changed since\n"
	"      --strict-parent      take no parent whose file has another time than its child says, as a copy has\n"
	"      --state-dir DIR      where client records are kept (default: beside the image)\n"
	"      --plain-filehandles  give out filehandles without a hash, which anybody can make\n"
	"      --snapshots          show snapshots of images to clients, read-only, below /.snapshots and .snapshots\n"
	"      --control PATH|none  the socket where \"vhdnfs stat\" and \"vhdnfs image snapshot\" find the server\n"
	"                           (default: /run/vhdnfsd.sock; not as root: in $XDG_RUNTIME_DIR)\n"
	"      --metrics ADDR:PORT  figures for Prometheus, at /metrics\n"
	"      --readahead WHEN     read ahead what files' readers need next: auto (default) as they read and as they\n"
	"                           say, hints only as they say, off never\n"
	"      --disk-model NAME    for measuring: images are as slow as on a disk of that kind: hdd, cloud, nvme\n"
	"      --trace FILE         write down which parts of images are asked for, for tests/bench/cache-replay\n"
	"      --threads N          event loops (default: one per core)\n"
	"      --workers N          threads for requests that must wait for the disk\n"
	"      --busy-poll USEC     how long an event loop looks for calls before it sleeps, where they come quickly\n"
	"                           (default 30; 0: not at all)\n"
	"      --lease SECONDS      lease time (default 90)\n"
	"      --grace SECONDS      how long, after a restart, clients may reclaim what they had (default: the lease)\n"
	"      --log-level LEVEL    error, warn, info (default) or debug\n"
	"      --list-ops           print the table of NFS operations and exit\n"
	"  -h, --help               print this and exit\n"
	"  -V, --version            print the version and exit\n"
	"\n"
	"Signals: TERM and INT finish running requests, write everything back and stop; HUP reads FILE again and\n"
	"changes the exports accordingly.\n"
	"\n"
	"Example: serve disk.vhd on this machine, then mount it (as root):\n"
	"  vhdnfsd disk.vhd\n"
	"  mount -t nfs -o vers=4.2 127.0.0.1:/disk /mnt\n";

enum {
	OPT_NO_ROOT_SQUASH = 256,
	OPT_SECURE_PORTS,
	OPT_DISCARD,
	OPT_DETECT_ZEROES,
	OPT_ASYNC,
	OPT_NO_JOURNAL_OK,
	OPT_PARENT_DIR,
	OPT_FORCE_PARENT,
	OPT_STRICT_PARENT,
	OPT_STATE_DIR,
	OPT_PLAIN_FILEHANDLES,
	OPT_SNAPSHOTS,
	OPT_CONTROL,
	OPT_METRICS,
	OPT_READAHEAD,
	OPT_DISK_MODEL,
	OPT_TRACE,
	OPT_THREADS,
	OPT_WORKERS,
	OPT_BUSY_POLL,
	OPT_LEASE,
	OPT_GRACE,
	OPT_LOG_LEVEL,
	OPT_LIST_OPS
};

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"listen", required_argument, NULL, 'l'},
	{"cache-size", required_argument, NULL, 's'},
	{"read-only", no_argument, NULL, 'r'},
	{"allow", required_argument, NULL, 'a'},
	{"no-root-squash", no_argument, NULL, OPT_NO_ROOT_SQUASH},
	{"secure-ports", no_argument, NULL, OPT_SECURE_PORTS},
	{"discard", no_argument, NULL, OPT_DISCARD},
	{"detect-zeroes", no_argument, NULL, OPT_DETECT_ZEROES},
	{"async", no_argument, NULL, OPT_ASYNC},
	{"no-journal-ok", no_argument, NULL, OPT_NO_JOURNAL_OK},
	{"parent-dir", required_argument, NULL, OPT_PARENT_DIR},
	{"force-parent", no_argument, NULL, OPT_FORCE_PARENT},
	{"strict-parent", no_argument, NULL, OPT_STRICT_PARENT},
	{"state-dir", required_argument, NULL, OPT_STATE_DIR},
	{"plain-filehandles", no_argument, NULL, OPT_PLAIN_FILEHANDLES},
	{"snapshots", no_argument, NULL, OPT_SNAPSHOTS},
	{"control", required_argument, NULL, OPT_CONTROL},
	{"metrics", required_argument, NULL, OPT_METRICS},
	{"readahead", required_argument, NULL, OPT_READAHEAD},
	{"disk-model", required_argument, NULL, OPT_DISK_MODEL},
	{"trace", required_argument, NULL, OPT_TRACE},
	{"threads", required_argument, NULL, OPT_THREADS},
	{"workers", required_argument, NULL, OPT_WORKERS},
	{"busy-poll", required_argument, NULL, OPT_BUSY_POLL},
	{"lease", required_argument, NULL, OPT_LEASE},
	{"grace", required_argument, NULL, OPT_GRACE},
	{"log-level", required_argument, NULL, OPT_LOG_LEVEL},
	{"list-ops", no_argument, NULL, OPT_LIST_OPS},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0},
};

/* ---- the command line ------------------------------------------------------------------------------------------------ */

static int number(struct config *c, enum config_number which, const char *name, const char *text, struct why *why)
{
	uint64_t v = 0;
	bool is = number_parse(text, 0, UINT64_MAX, &v);
	int err = config_set_number(c, which, is ? v : UINT64_MAX, why);

	return err ? why_prefix(why, err, "--%s \"%.100s\"", name, text) : 0;
}

static int readahead_of(const char *arg, enum readahead *out, struct why *why)
{
	static const char *const words[] = {"auto", "hints", "off"};

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(arg, words[i]) == 0) {
			*out = (enum readahead)i;
			return 0;
		}
	return why_set(why, -EINVAL, "--readahead %s: not one of auto, hints, off", arg);
}

static int disk_model(const char *arg, struct why *why)
{
	struct hio_model_figures now;

	hio_model_figures(&now);
	if (now.name && strcmp(now.name, arg) == 0) /* SIGHUP */
		return 0;
	if (hio_is_modelled() || hio_model_use(arg) < 0)
		return why_set(why, -EINVAL, "--disk-model %s: one of %s, once", arg, hio_model_names());
	return 0;
}

static int log_level_of(const char *text, int *level, struct why *why)
{
	static const char *const words[] = {"error", "warn", "info", "debug"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(text, words[i]) == 0) {
			*level = (int)i;
			return 0;
		}
	return why_set(why, -EINVAL, "--log-level \"%.100s\": expected error, warn, info or debug", text);
}

/* One option; > 0 means that the program has done its work with it. */
static int option(struct config *c, int opt, const char *arg, struct why *why)
{
	switch (opt) {
	case 'c':
		return config_load(c, arg, why);
	case 'l':
		return config_add_listen(c, arg, why);
	case 's':
		return config_set_cache_size(c, arg, why);
	case 'r':
		c->read_only = true;
		return 0;
	case 'a':
		return config_add_allow(c, arg, why);
	case OPT_NO_ROOT_SQUASH:
		c->squash = SQUASH_NONE;
		return 0;
	case OPT_SECURE_PORTS:
		c->secure_ports = true;
		return 0;
	case OPT_PLAIN_FILEHANDLES:
		c->plain_filehandles = true;
		return 0;
	case OPT_DISCARD:
		c->discard = true;
		return 0;
	case OPT_DETECT_ZEROES:
		c->detect_zeroes = true;
		return 0;
	case OPT_ASYNC:
		c->async = true;
		return 0;
	case OPT_NO_JOURNAL_OK:
		c->no_journal_ok = true;
		return 0;
	case OPT_PARENT_DIR:
		return config_add_parent_dir(c, arg, why);
	case OPT_FORCE_PARENT:
		c->force_parent = true;
		return 0;
	case OPT_STRICT_PARENT:
		c->strict_parent = true;
		return 0;
	case OPT_STATE_DIR:
		return config_set_state_dir(c, arg, why);
	case OPT_SNAPSHOTS:
		c->snapshots = true;
		return 0;
	case OPT_CONTROL:
		free(c->control);
		c->control = strdup(arg);
		return c->control ? 0 : -ENOMEM;
	case OPT_METRICS:
		free(c->metrics);
		c->metrics = strdup(arg);
		return c->metrics ? 0 : -ENOMEM;
	case OPT_READAHEAD:
		return readahead_of(arg, &c->readahead, why);
	case OPT_DISK_MODEL:
		return disk_model(arg, why);
	case OPT_TRACE:
		c->trace = arg;
		return 0;
	case OPT_THREADS:
		return number(c, CONFIG_THREADS, "threads", arg, why);
	case OPT_WORKERS:
		return number(c, CONFIG_WORKERS, "workers", arg, why);
	case OPT_BUSY_POLL:
		return number(c, CONFIG_BUSY_POLL, "busy-poll", arg, why);
	case OPT_LEASE:
		return number(c, CONFIG_LEASE, "lease", arg, why);
	case OPT_GRACE:
		return number(c, CONFIG_GRACE, "grace", arg, why);
	case OPT_LOG_LEVEL:
		return log_level_of(arg, &c->log_level, why);
	case OPT_LIST_OPS:
		ops_print(stdout);
		return 1;
	case 'h':
		fputs(usage, stdout);
		return 1;
	case 'V':
		puts("vhdnfsd " VHDNFS_VERSION);
		return 1;
	default:
		return -EINVAL;
	}
}

/* What getopt_long() did not take. */
static int bad_option(char **argv, int opt, struct why *why)
{
	const char *word = argv[optind - 1];

	if (opt == ':')
		return why_set(why, -EINVAL, "%.100s: a value is missing; see vhdnfsd --help", word);
	if (optopt && word[0] == '-' && word[1] != '-')
		return why_set(why, -EINVAL, "-%c: no such option; see vhdnfsd --help", optopt);
	return why_set(why, -EINVAL, "%.100s: %s; see vhdnfsd --help", word,
		       optopt ? "this option has no value" : "no such option");
}

/* *mistake: it is the command line itself that is wrong. */
static int configure(struct config *c, int argc, char **argv, bool *mistake, struct why *why)
{
	int opt, err;

	config_init(c);
	*mistake = false;
	opterr = 0;
	optind = 0; /* start over: this runs again for SIGHUP */
	while ((opt = getopt_long(argc, argv, ":c:l:s:ra:hV", options, NULL)) != -1) {
		err = opt == '?' || opt == ':' ? bad_option(argv, opt, why) : option(c, opt, optarg, why);
		if (err) {
			*mistake = err == -EINVAL && opt != 'c';
			return err;
		}
	}
	for (int i = optind; i < argc; i++)
		if ((err = config_add_image(c, argv[i], why)) < 0) {
			*mistake = err == -EINVAL || err == -EEXIST;
			return err;
		}
	err = config_finish(c, why);
	*mistake = err == -EINVAL && !c->from_file;
	return err;
}

/* ---- start ------------------------------------------------------------------------------------------------------------ */

static bool may_connect(void *arg, const struct sockaddr *peer)
{
	const struct daemon *d = container_of(arg, struct daemon, nfs);

	for (unsigned i = 0; i < d->conf.nallow; i++)
		if (cidr_match(&d->conf.allow[i], peer))
			return true;
	return d->conf.nallow == 0;
}

/* The addresses are taken before an image is touched: a port that is in use changes nothing on disk. */
static int take_addresses(struct daemon *d, struct why *why)
{
	const struct rpc_opts o = {
		.loops = d->conf.loops,
		.workers = d->conf.workers,
		.max_conns = d->conf.max_connections,
		.secure_ports = d->conf.secure_ports,
		.look_us = d->conf.busy_poll_us,
		.max_record = IO_MAX + RECORD_SLACK,
	};
	const struct rpc_service s = {
		.prog = NFS4_PROGRAM,
		.vers_low = NFS_V4,
		.vers_high = NFS_V4,
		.nproc = 2,
		.call = nfs4_call,
		.done = nfs4_done,
		.closed = nfs4_closed,
		.allow = may_connect,
		.arg = &d->nfs,
	};
	int err = rpc_server_new(&d->rpc, &o, &s, why);

	for (unsigned i = 0; !err && i < d->conf.nlisten; i++) {
		size_t used = strlen(d->addresses);
		const char *addr = d->conf.listen[i];
		uint16_t port = 0;

		err = rpc_server_listen(d->rpc, addr, &port, why);
		snprintf(d->addresses + used, sizeof d->addresses - used, "%s%.*s:%u", i ? ", " : "",
			 (int)(strrchr(addr, ':') - addr), addr, port);
	}
	return err;
}

/* Beside the first image, unless there is a folder for it: whoever serves the image after us finds them there. */
static char *records_path(const struct config *c)
{
	char *path = NULL;

	if (c->state_dir ? asprintf(&path, "%s/clients.db", c->state_dir) < 0
			 : c->nimage && asprintf(&path, "%s.clients", c->image[0].path) < 0)
		return NULL;
	return path;
}

static int start_state(struct daemon *d, struct st_opts *so, struct why *why)
{
	AUTO(freep) char *path = records_path(&d->conf);
	int err;

	so->records = path;
	err = st_new(&d->nfs.state, so, why);
	/* The files can be served without. */
	if (err == -EACCES || err == -EROFS || err == -ENOSPC) {
		log_warn("%s; clients cannot reclaim opens and locks after a restart, and filehandles have no hash "
			 "(see --state-dir)",
			 why->line);
		so->records = NULL;
		err = st_new(&d->nfs.state, so, why);
	}
	return err;
}

static void start_filehandles(struct daemon *d)
{
	struct st_fh_key k;

	if (d->conf.plain_filehandles || !st_fh_key(d->nfs.state, &k))
		return;
	d->nfs.fh.on = true;
	d->nfs.fh.old = k.old;
	memcpy(d->nfs.fh.key, k.key, sizeof k.key);
	if (k.old)
		log_info("filehandles of the version before, which have no hash, are valid until the next start");
}

static struct figures_of figures_of(struct daemon *d)
{
	return (struct figures_of){.nfs = &d->nfs, .cache = d->cache, .rpc = d->rpc, .started = time(NULL)};
}

static int start_metrics(struct daemon *d, struct why *why)
{
	const struct figures_of f = figures_of(d);
	uint16_t port = 0;
	int err = d->conf.metrics ? metrics_start(&d->metrics, d->conf.metrics, &f, &port, why) : 0;

	if (!err && d->conf.metrics)
		log_info("figures for Prometheus on port %u, at /metrics", port);
	return err;
}

/* Only a socket that was asked for must be there. */
static int start_control(struct daemon *d, struct why *why)
{
	const struct control_server s = {.images = d->images, .figures = figures_of(d)};
	const char *path = d->conf.control ? d->conf.control : control_default();
	int err;

	if (!path || strcmp(path, "none") == 0)
		return 0;
	err = control_start(&d->control, path, &s, why);
	if (!err || d->conf.control)
		return err;
	log_info("no control socket: %s", why->line);
	why->line[0] = '\0';
	return 0;
}

static void set_mount_opts(const struct daemon *d, const struct config *c)
{
	const struct fs_mount_opts mo = {.relatime = true,
					 .discard = c->discard,
					 .async = c->async,
					 .need_journal = !c->no_journal_ok,
					 .keep_unlinked = d->keeping};

	images_mount_opts(d->images, &mo);
}

/* What holds for images from the next one on. */
static int set_images(const struct daemon *d, const struct config *c)
{
	set_mount_opts(d, c);
	images_detect_zeroes(d->images, c->detect_zeroes);
	images_show_snapshots(d->images, c->snapshots);
	return images_parents(d->images, (const char *const *)c->parent_dir, c->force_parent, c->strict_parent);
}

static bool keep_unlinked(void *arg, const struct export *e)
{
	const struct daemon *d = arg;

	if (e->fs && e->fs->ops->keep_unlinked)
		e->fs->ops->keep_unlinked(e->fs, d->keeping);
	return true;
}

/* For the grace period after the start, and from the stop to the next one's end: what clients had open when it lost its last name. */
static void set_keeping(struct daemon *d, bool keep)
{
	if (d->keeping == keep)
		return;
	d->keeping = keep;
	set_mount_opts(d, &d->conf);
	exports_each(d->nfs.exports, keep_unlinked, d);
}

static int start_trace(struct daemon *d, struct why *why)
{
	if (!d->conf.trace)
		return 0;
	d->trace = fopen(d->conf.trace, "we");
	if (!d->trace)
		return why_set(why, -errno, "%s: %s", d->conf.trace, strerror(errno));
	cache_trace(d->cache, d->trace);
	return 0;
}

/* A descriptor for each client, and for everything else. Distributions begin programs with 1024, for those that use select(). Where
 * there are fewer, there are fewer connections: they are replaced in good order then, which the lack of descriptors is not. */
static void take_descriptors(struct config *c)
{
	rlim_t want = c->max_connections + DESCRIPTORS_OTHER;
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= want)
		return;
	l.rlim_cur = l.rlim_max < want ? l.rlim_max : want;
	if (setrlimit(RLIMIT_NOFILE, &l) < 0)
		getrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur >= want)
		return;
	c->max_connections = l.rlim_cur > 2 * DESCRIPTORS_OTHER ? (unsigned)(l.rlim_cur - DESCRIPTORS_OTHER)
								: (unsigned)(l.rlim_cur / 2);
	log_warn("%llu open files are allowed here: %u connections at most (ulimit -n)", (unsigned long long)l.rlim_cur,
		 c->max_connections);
}

static int start(struct daemon *d, struct why *why)
{
	struct st_opts so = {
		.lease_seconds = d->conf.lease_seconds,
		.grace_seconds = d->conf.grace_seconds,
		.max_request = IO_MAX + RECORD_SLACK,
		.max_response = IO_MAX + RECORD_SLACK,
	};
	int err;

	take_descriptors(&d->conf);
	d->nfs.max_read = d->nfs.max_write = IO_MAX;
	d->nfs.links_max = (uint32_t)min_u64(d->conf.cache_size / CACHE_FRAME / 2, UINT32_MAX);
	d->nfs.read_only = d->conf.read_only;
	d->nfs.rules = d->conf.rule;
	d->nfs.nrules = d->conf.nrule;
	atomic_store(&d->nfs.standing_version, 1);
	d->nfs.advice = (struct adv_conf){
		.window_max = d->conf.readahead == READAHEAD_OFF ? 0 : adv_window_max(d->conf.cache_size),
		.detect = d->conf.readahead == READAHEAD_AUTO,
	};
	if (getrandom(d->nfs.write_verf, sizeof d->nfs.write_verf, 0) != sizeof d->nfs.write_verf)
		return why_set(why, -EIO, "getrandom: %s", strerror(errno));
	if ((err = take_addresses(d, why)) < 0)
		return err;
	if ((err = cache_new(&d->cache, d->conf.cache_size)) < 0 || (err = start_trace(d, why)) < 0 ||
	    (err = exports_new(&d->nfs.exports, why)) < 0 ||
	    (err = images_new(&d->images, d->cache, d->nfs.exports)) < 0)
		return err;
	d->keeping = true; /* until it is known who is on record */
	if ((err = set_images(d, &d->conf)) < 0)
		return err;
	for (unsigned i = 0; i < d->conf.nimage; i++)
		if ((err = images_serve(d->images, &d->conf.image[i], why)) < 0)
			return err;
	if ((err = start_state(d, &so, why)) < 0)
		return err;
	start_filehandles(d);
	d->nfs.change_base = st_change_base(d->nfs.state);
	set_keeping(d, st_in_grace(d->nfs.state));
	if ((err = start_control(d, why)) < 0 || (err = start_metrics(d, why)) < 0)
		return err;
	return rpc_server_start(d->rpc, why);
}

struct export_text {
	char buf[2048];
	size_t used;
};

static bool describe(void *arg, const struct export *e)
{
	struct export_text *t = arg;
	char size[SIZE_TEXT];
	int n;

	if (e->pseudo || t->used >= sizeof t->buf)
		return true;
	n = snprintf(t->buf + t->used, sizeof t->buf - t->used, "%s%s (%s, %s, %s)", t->used ? ", " : "", e->path,
		     e->fs->type_name, size_text(e->fs->size, size), e->read_only ? "ro" : "rw");
	t->used += n > 0 ? (size_t)n : 0;
	return true;
}

static void say_ready(struct daemon *d)
{
	struct export_text t = {.used = 0};
	char rest[1024];

	exports_each(d->nfs.exports, describe, &t);
	if (!t.used)
		snprintf(t.buf, sizeof t.buf, "nothing to serve yet; add images to the configuration file and reload");
	images_unserved(d->images, rest, sizeof rest);
	log_info("ready on %s: %s%s", d->addresses, t.buf, rest);
	sd_notifyf(0, "READY=1\nSTATUS=ready on %s", d->addresses);
}

/* ---- signals and stop -------------------------------------------------------------------------------------------------- */

static void reload(struct daemon *d, int argc, char **argv)
{
	struct why why = {.line = ""};
	struct config c;
	bool mistake;
	int err;

	sd_notify(0, "RELOADING=1");
	err = configure(&c, argc, argv, &mistake, &why);
	if (err < 0)
		log_error("%s; the exports stay as they are", why.line[0] ? why.line : strerror(-err));
	else if ((err = set_images(d, &c)) < 0)
		log_error("%s; the exports stay as they are", strerror(-err));
	else {
		d->conf.discard = c.discard;
		d->conf.async = c.async;
		d->conf.no_journal_ok = c.no_journal_ok;
		config_fini(&d->next);
		d->next = c;
		c = (struct config){0};
		d->waits = images_reload(d->images, d->nfs.state, &d->next);
	}
	config_fini(&c);
	say_ready(d);
}

/* An image was closed late, and the last reload is to be completed. */
static void reload_rest(struct daemon *d)
{
	if (!d->waits || images_leaving(d->images) >= d->waits)
		return;
	d->waits = images_reload(d->images, d->nfs.state, &d->next);
	say_ready(d);
}

/* Until TERM or INT. The housekeeping of state is done here, about once a second. */
static void serve(struct daemon *d, int argc, char **argv, const sigset_t *sigs)
{
	const struct timespec second = {.tv_sec = 1};
	int sig;

	for (;;) {
		sig = sigtimedwait(sigs, NULL, &second);
		if (sig == SIGTERM || sig == SIGINT)
			return;
		if (sig == SIGHUP)
			reload(d, argc, argv);
		reload_rest(d);
		st_tick(d->nfs.state);
		set_keeping(d, st_in_grace(d->nfs.state));
	}
}

static bool make_stable(void *arg, const struct export *e)
{
	int *err = arg, now = e->fs && e->fs->ops->sync ? e->fs->ops->sync(e->fs) : 0;

	*err = *err ? *err : now;
	return true;
}

/* Before the state goes: the next start wants to know whether anything was lost. */
static void say_stopped(struct daemon *d)
{
	int err = d->images ? images_error(d->images) : 0;

	if (!d->nfs.state || !d->nfs.exports)
		return;
	exports_each(d->nfs.exports, make_stable, &err);
	if (!err)
		st_stopped(d->nfs.state);
}

/* A file without a name is kept for its opener only. */
static bool lasts(const struct st_pin *pin)
{
	struct fs_attr a;

	return !pin->node || pin->node->fs->ops->getattr(pin->node, 0, &a) < 0 || a.nlink > 0;
}

/* Replies that wait for room on the host would wait for ever. */
static bool hurry(void *arg, const struct export *e)
{
	(void)arg;
	if (e->fs && e->fs->ops->hurry)
		e->fs->ops->hurry(e->fs);
	return true;
}

static int stop(struct daemon *d)
{
	int err = 0, image_err;

	control_stop(d->control);
	metrics_stop(d->metrics);
	if (d->nfs.exports)
		exports_each(d->nfs.exports, hurry, NULL);
	if (d->rpc)
		rpc_server_stop(d->rpc, DRAIN_MS);
	if (d->nfs.state && st_keeps_records(d->nfs.state)) {
		st_forget_silent(d->nfs.state, lasts);
		set_keeping(d, true);
	}
	say_stopped(d);
	st_free(d->nfs.state);
	if (d->nfs.exports)
		err = exports_free(d->nfs.exports);
	image_err = d->images ? images_error(d->images) : 0;
	images_free(d->images);
	rpc_server_free(d->rpc);
	cache_free(d->cache);
	if (d->trace)
		fclose(d->trace);
	config_fini(&d->conf);
	config_fini(&d->next);
	return err ? err : image_err;
}

int main(int argc, char **argv)
{
	struct daemon d = {.cache = NULL};
	struct why why = {.line = ""};
	sigset_t sigs;
	bool mistake;
	int err;

	log_open("vhdnfsd");
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&sigs);
	sigaddset(&sigs, SIGTERM);
	sigaddset(&sigs, SIGINT);
	sigaddset(&sigs, SIGHUP);
	sigprocmask(SIG_BLOCK, &sigs, NULL); /* before any thread: all inherit it */

	err = configure(&d.conf, argc, argv, &mistake, &why);
	log_level = (enum log_level)d.conf.log_level;
	if (!err)
		err = start(&d, &why);
	if (err) {
		if (err < 0)
			log_error("%s", why.line[0] ? why.line : strerror(-err));
		stop(&d);
		return err >= 0 ? 0 : mistake ? 2 : 1;
	}
	say_ready(&d);
	serve(&d, argc, argv, &sigs);
	sd_notify(0, "STOPPING=1");
	log_info("stopping");
	err = stop(&d);
	if (err)
		log_error("stopped, but not everything could be written back: %s", strerror(-err));
	return err ? 1 : 0;
}
