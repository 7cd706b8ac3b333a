# SPDX-License-Identifier: BSD-3-Clause
#
# vhdnfs: one make for everything. `make help` lists the targets.
#
# VARIANT=release|asan|tsan picks a build; each lives in a folder of its own below build/, so they do not disturb one
# another. V=1 shows the commands.

VARIANT ?= release
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

B := build
ifeq ($(VARIANT),release)
O := $(B)
else
O := $(B)/$(VARIANT)
endif
GEN := $(B)/gen

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config
RPCGEN ?= rpcgen

ifeq ($(V),1)
Q :=
say :=
else
Q := @
say = @printf '  %-7s %s\n' $(1) $(2);
endif

# ---- flags -----------------------------------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef -Wvla \
	-Wformat=2 -Wwrite-strings -Werror
CSTD := -std=gnu11
OPT_release := -O2 -g -fno-omit-frame-pointer
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined
OPT := $(OPT_$(VARIANT))
HARDEN := -fstack-protector-strong -fPIE
CFLAGS ?=
CPPFLAGS_ALL := -I. -I$(GEN) -D_GNU_SOURCE -DVHDNFS_VERSION='"$(VERSION)"' $(CPPFLAGS)
CFLAGS_ALL := $(CSTD) $(WARN) $(OPT) $(HARDEN) -pthread $(CFLAGS)
LDFLAGS_ALL := $(OPT) -pthread -pie -Wl,-z,relro,-z,now $(LDFLAGS)
ifeq ($(findstring clang,$(CC)),clang)
CFLAGS_ALL += -Wthread-safety -Wno-gnu-statement-expression
endif

# System headers are not ours to warn about.
sysflags = $(patsubst -I%,-isystem %,$(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null))
NTIRPC_CFLAGS := $(call sysflags,libntirpc) -isystem xdr/ntirpc
TIRPC_CFLAGS := $(call sysflags,libtirpc)
LIBS_VHD := -lext2fs -le2p -lcom_err -lblkid -luuid -luring
LIBS_SERVER := -lntirpc -lyaml -lsystemd -lsqlite3 -ljansson -lmicrohttpd
LIBS_TOOL := -ltirpc -ljansson

# ---- sources ---------------------------------------------------------------------------------------------------------

VHD_SRC := $(wildcard vhd/*/*.c)
ADVISE_SRC := $(wildcard advise/*.c)
XDR_X := rpc nfs4 nfs4_cb
XDR_X := $(foreach x,$(XDR_X),$(wildcard xdr/$(x).x))
XDR_SRC := $(wildcard xdr/*.c)
SERVER_MAIN := server/main.c
SERVER_SRC := $(filter-out $(SERVER_MAIN),$(wildcard server/*.c server/*/*.c))
PRELOAD_SRC := $(wildcard tools/preload*.c)
TOOL_SRC := $(filter-out $(PRELOAD_SRC),$(wildcard tools/*.c))
UNIT_SRC := $(wildcard tests/unit/test_*.c)
PROTO_SRC := $(wildcard tests/protocol/test_*.c)
CRASH_SRC := $(wildcard tests/crash/*.c)

GEN_H := $(patsubst xdr/%.x,$(GEN)/xdr/%.h,$(XDR_X))
GEN_C := $(patsubst xdr/%.x,$(GEN)/xdr/%_xdr.c,$(XDR_X))

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
VHD_OBJ := $(call obj,$(VHD_SRC))
ADVISE_OBJ := $(call obj,$(ADVISE_SRC))
XDR_OBJ := $(call obj,$(XDR_SRC)) $(patsubst $(GEN)/%.c,$(O)/obj/gen/%.o,$(GEN_C))
XDR_TIRPC_OBJ := $(patsubst $(GEN)/%.c,$(O)/obj/gen-tirpc/%.o,$(GEN_C))
SERVER_OBJ := $(call obj,$(SERVER_SRC))
TOOL_OBJ := $(call obj,$(TOOL_SRC))
# The preload library, and the parts of the tool that it shares, as position independent code that shows nothing.
PRELOAD_OBJ := $(patsubst %.c,$(O)/obj/pic/%.o,$(PRELOAD_SRC) $(wildcard tools/nfs_client*.c) vhd/base/why.c) \
	$(patsubst $(GEN)/xdr/%.c,$(O)/obj/pic/gen/xdr/%.o,$(GEN_C))
UNIT_BIN := $(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(UNIT_SRC))
PROTO_BIN := $(patsubst tests/protocol/%.c,$(O)/tests/protocol/%,$(PROTO_SRC))

.DEFAULT_GOAL := all
.PHONY: all
all: $(if $(wildcard $(SERVER_MAIN)),$(O)/vhdnfsd) $(if $(TOOL_SRC),$(O)/vhdnfs) \
	$(if $(filter release,$(VARIANT)),$(O)/libvhdnfs-fadvise.so)

# ---- generated code --------------------------------------------------------------------------------------------------

# rpcgen -h and -c of one file; the scripts' only edit is the include path.
$(GEN)/xdr/%.h: xdr/%.x
	$(call say,RPCGEN,$@)
	$(Q)mkdir -p $(@D) && cd xdr && $(RPCGEN) -C -h $*.x >../$@.tmp && mv ../$@.tmp ../$@

$(GEN)/xdr/%_xdr.c: xdr/%.x $(GEN)/xdr/%.h
	$(call say,RPCGEN,$@)
	$(Q)mkdir -p $(@D) && cd xdr && $(RPCGEN) -C -i 0 -c $*.x | sed 's|#include "$*.h"|#include "xdr/$*.h"|' >../$@.tmp \
		&& mv ../$@.tmp ../$@

# X(routine, type) for every type of the wire: the round-trip test and the fuzzer go through all of them.
$(GEN)/xdr/types.h: $(GEN_H)
	$(call say,GEN,$@)
	$(Q)sed -n 's/^extern *bool_t xdr_\([A-Za-z0-9_]*\) *(XDR \*, *\([A-Za-z0-9_ ]*\)\**);/X(\1, \2)/p' $^ >$@.tmp && mv $@.tmp $@

$(O)/obj/tests/unit/test_xdr.o: | $(GEN)/xdr/types.h

# rpcgen's style is not ours: its output is compiled without our warnings. It passes a pointer to an array where one to its
# first element is due, which is an error from gcc 14 on.
GEN_WARN := -w -Wno-incompatible-pointer-types

$(O)/obj/gen/%.o: $(GEN)/%.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(NTIRPC_CFLAGS) $(CFLAGS_ALL) $(GEN_WARN) -include xdr/prims_rename.h -MMD -MP -c -o $@ $<

$(O)/obj/gen-tirpc/%.o: $(GEN)/%.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(TIRPC_CFLAGS) $(CFLAGS_ALL) $(GEN_WARN) -MMD -MP -c -o $@ $<

PIC := -fPIC -fvisibility=hidden

# tools/preload_xdr.c says why.
$(O)/obj/pic/gen/%.o: $(GEN)/%.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(TIRPC_CFLAGS) $(CFLAGS_ALL) $(PIC) -Dxdr_array=pre_xdr_array $(GEN_WARN) -MMD -MP -c -o $@ $<

$(O)/obj/pic/%.o: %.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(TIRPC_CFLAGS) $(CFLAGS_ALL) $(PIC) -MMD -MP -c -o $@ $<

# ---- compiling -------------------------------------------------------------------------------------------------------

# Which RPC library's headers a folder sees.
$(O)/obj/xdr/%.o $(O)/obj/server/%.o $(O)/obj/tests/%.o: RPC_CFLAGS = $(NTIRPC_CFLAGS)
$(O)/obj/tools/%.o $(O)/obj/tests/protocol/%.o $(O)/obj/tests/bench/%.o: RPC_CFLAGS = $(TIRPC_CFLAGS)

$(O)/obj/%.o: %.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(RPC_CFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

define archive
$(call say,AR,$@)
$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^
endef

$(O)/libvhd.a: $(VHD_OBJ)
	$(archive)
$(O)/libadvise.a: $(ADVISE_OBJ)
	$(archive)
$(O)/libxdr.a: $(XDR_OBJ)
	$(archive)
$(O)/libxdr-tirpc.a: $(XDR_TIRPC_OBJ)
	$(archive)
$(O)/libserver.a: $(SERVER_OBJ)
	$(archive)

SERVER_LIBS := $(O)/libserver.a $(O)/libxdr.a $(O)/libadvise.a $(O)/libvhd.a

$(O)/vhdnfsd: $(call obj,$(SERVER_MAIN)) $(SERVER_LIBS)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ $(LIBS_SERVER) $(LIBS_VHD)

$(O)/vhdnfs: $(TOOL_OBJ) $(O)/libxdr-tirpc.a $(O)/libvhd.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ $(LIBS_TOOL) $(LIBS_VHD)

$(O)/libvhdnfs-fadvise.so: $(PRELOAD_OBJ)
	$(call say,LD,$@)
	$(Q)$(CC) $(OPT) -shared -pthread -Wl,-z,relro,-z,now,-z,nodelete -Wl,-soname,$(@F) $(LDFLAGS) -o $@ $^ -ltirpc

# ---- tests -----------------------------------------------------------------------------------------------------------

# What the unit tests share (tests/unit/*.c that are no programs) is an archive of its own.
UNIT_LIB_SRC := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
UNIT_LIB := $(if $(UNIT_LIB_SRC),$(O)/libunit.a)
$(O)/libunit.a: $(call obj,$(UNIT_LIB_SRC))
	$(archive)

$(O)/tests/unit/%: $(O)/obj/tests/unit/%.o $(UNIT_LIB) $(SERVER_LIBS)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ -lcheck -lm -lrt -lsubunit $(LIBS_SERVER) $(LIBS_VHD)

# The one part of the preload library that knows neither the C library's functions nor RPC.
$(O)/tests/unit/test_preload_mount: $(call obj,tools/preload_mount.c)

# Programs that start the real server and speak NFS to it; they share the tool's client.
PROTO_LIB_SRC := $(filter-out $(PROTO_SRC),$(wildcard tests/protocol/*.c)) $(wildcard tools/nfs_client*.c) tools/control.c
$(O)/tests/protocol/%: $(O)/obj/tests/protocol/%.o $(call obj,$(PROTO_LIB_SRC)) $(O)/libxdr-tirpc.a $(O)/libvhd.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ -lcheck -lm -lrt -lsubunit $(LIBS_TOOL) $(LIBS_VHD)

# The preload library's own thread, as it is in the library; the test stands in for programs and mounts.
$(O)/tests/protocol/test_preload: $(call obj,tests/protocol/test_preload.c $(filter-out tools/nfs_client%,$(PROTO_LIB_SRC))) \
		$(filter-out %/preload.o %/preload_mount.o %/why.o,$(PRELOAD_OBJ)) $(O)/libvhd.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ -lcheck -lm -lrt -lsubunit $(LIBS_TOOL) $(LIBS_VHD)

# What User Mode Linux needs on processors with large register files.
$(B)/linux-client/uml_xsave.so: tests/linux-client/uml_xsave.c
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(CC) -std=gnu11 -O2 -fPIC -shared -o $@ $<

.PHONY: protocol-tests
protocol-tests: all $(PROTO_BIN)
check-protocol: protocol-tests
	$(Q)tests/run $(PROTO_BIN)
check-linux: all $(B)/linux-client/uml_xsave.so
	$(Q)tests/run $(sort $(wildcard tests/linux-client/test_*))
check-demo: all
	$(Q)tests/run tests/demo

.PHONY: units check-unit check-protocol check-linux check-demo check-asan check-tsan check
units: $(UNIT_BIN)

check-unit: $(UNIT_BIN)
	$(Q)tests/run $(UNIT_BIN)

# One line at the end counts everything.
check: deps all units protocol-tests $(B)/linux-client/uml_xsave.so $(B)/tests/crash/crash
	$(Q)tests/run $(UNIT_BIN) $(PROTO_BIN) $(B)/tests/crash/crash tests/crash/mutations tests/crash/faults tests/demo $(sort $(wildcard tests/interop/test_*)) $(sort $(wildcard tests/linux-client/test_*))

# In clean chroots, hours: demo and check on each release that this builds on.
DEBIAN_RELEASES ?= bookworm trixie
.PHONY: check-debian check-long
check-debian:
	$(Q)for r in $(DEBIAN_RELEASES); do tests/debian $$r || [ $$? = 77 ] || exit 1; done
check-long: check-debian crash-long

check-asan: deps
	$(Q)$(MAKE) VARIANT=asan all units protocol-tests $(B)/asan/tests/crash/crash
	$(Q)tests/run $(patsubst $(O)/%,$(B)/asan/%,$(UNIT_BIN) $(PROTO_BIN)) $(B)/asan/tests/crash/crash

check-tsan: deps
	$(Q)$(MAKE) VARIANT=tsan all units protocol-tests $(B)/tsan/tests/crash/crash
	$(Q)TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp" tests/run $(patsubst $(O)/%,$(B)/tsan/%,$(UNIT_BIN) $(PROTO_BIN)) $(B)/tsan/tests/crash/crash

# ---- packages --------------------------------------------------------------------------------------------------------

# Debian 12 and 13, main. Building, then testing, then what only `make bench` wants. a,b: the first that the release has.
DEPS_BUILD := gcc make pkg-config rpcsvc-proto libtirpc-dev libntirpc-dev uuid-dev libext2fs-dev libblkid-dev \
	liburing-dev liburcu-dev libyaml-dev libjansson-dev libsqlite3-dev libmicrohttpd-dev libsystemd-dev e2fsprogs
DEPS_TEST := check clang clang-format cppcheck libclang-rt-14-dev,libclang-rt-19-dev git qemu-utils fdisk user-mode-linux nfs-common \
	acl iproute2 util-linux kmod fio bzip2 xz-utils p7zip-full libvhdi-utils python3
DEPS_BENCH := nfs-ganesha nfs-ganesha-vfs python3 qemu-utils fio
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: deps deps-build deps-bench
deps:
	$(Q)tests/deps "$(SUDO)" $(DEPS_BUILD) $(DEPS_TEST)
deps-build:
	$(Q)tests/deps "$(SUDO)" $(DEPS_BUILD)
deps-bench: deps-build
	$(Q)tests/deps "$(SUDO)" $(DEPS_BENCH)

# ---- lint ------------------------------------------------------------------------------------------------------------

ALL_C := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

.PHONY: lint layers format format-check cppcheck clang-build
lint: deps layers format-check cppcheck clang-build
	@echo "lint: clean"
layers:
	$(Q)tests/layers
# Releases of clang-format differ in what they make of the same settings; the tree is formatted with Debian 12's.
CLANG_FORMAT ?= $(or $(shell command -v clang-format-14),clang-format)
format:
	$(CLANG_FORMAT) -i $(ALL_C)
format-check:
	$(Q)if $(CLANG_FORMAT) --version | grep -q 'version 14\.'; then $(CLANG_FORMAT) --dry-run -Werror $(ALL_C); \
		else echo "format-check: skipped, needs clang-format 14 (CLANG_FORMAT=…)"; fi
# The programs, not the tests: it does not understand Check's macros. Its guess that whatever is tested once may be NULL
# everywhere before is wrong wherever a loop or a call sets it.
cppcheck: $(GEN_H)
	$(call say,LINT,cppcheck)
	$(Q)cppcheck -j2 -q --error-exitcode=1 --std=c11 --enable=warning,performance,portability -I. -I$(GEN) -D_GNU_SOURCE \
		--suppress=missingIncludeSystem --suppress=nullPointerRedundantCheck \
		--suppress=nullPointerArithmeticRedundantCheck vhd server xdr tools
# Everything again with clang: its warnings, and the lock annotations. Fuzzers need clang anyway.
clang-build:
	$(Q)$(MAKE) CC=clang B=$(B)/clang all units

# ---- demo, benchmark, fuzzing ------------------------------------------------------------------------------------------

.PHONY: demo bench fuzz
demo: deps-build
	$(Q)$(MAKE) all
	$(Q)tests/demo

bench: deps-bench
	$(Q)$(MAKE) all benches
	$(Q)tests/bench/peers
	$(Q)tests/bench/vhd-peers
	$(Q)tests/bench/cache-replay

# Power cuts: at every place, by chance, and torn. tests/crash/crash --help
CRASH := $(O)/tests/crash/crash
CRASH_CUTS ?= 2000
.PHONY: crash crash-long
crash: $(CRASH)
	$(Q)$(CRASH) --cuts $(CRASH_CUTS)
crash-long: $(CRASH)
	$(Q)for seed in $$(seq 1 20); do $(CRASH) --cuts 5000 --seed $$seed || exit 1; done
$(CRASH): $(call obj,$(CRASH_SRC)) $(O)/libvhd.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_VHD)

# What measures layers below the server.
BENCH_LIB_SRC := $(wildcard tests/bench/replay_*.c)
BENCH_SRC := $(filter-out $(BENCH_LIB_SRC),$(wildcard tests/bench/*.c))
.PHONY: benches
benches: $(patsubst tests/bench/%.c,$(O)/bench/%,$(BENCH_SRC))
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(call obj,$(BENCH_LIB_SRC)) $(O)/libvhd.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lm $(LIBS_VHD)

# Every target of tests/fuzz for FUZZ_SECONDS, from its committed corpus.
FUZZ_SECONDS ?= 60
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(FUZZ_SRC))

# The libraries are built again with coverage for the fuzzer.
$(B)/fuzz/%: tests/fuzz/%.c FORCE
	$(Q)$(MAKE) CC=clang VARIANT=fuzz $(B)/fuzz/libserver.a $(B)/fuzz/libxdr.a $(B)/fuzz/libadvise.a $(B)/fuzz/libvhd.a
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS_ALL) $(NTIRPC_CFLAGS) $(CSTD) -O1 -g -fsanitize=fuzzer,address,undefined \
		-o $@ $< $(B)/fuzz/libserver.a $(B)/fuzz/libxdr.a $(B)/fuzz/libadvise.a $(B)/fuzz/libvhd.a \
		$(LIBS_SERVER) $(LIBS_VHD) -lpthread

.PHONY: FORCE
FORCE:

fuzz: deps
	$(Q)for t in $(FUZZ_SRC); do n=$$(basename $$t .c); $(MAKE) $(B)/fuzz/$$n || exit 1; mkdir -p $(B)/fuzz/corpus/$$n; \
		echo "== $$n"; $(B)/fuzz/$$n -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
		$(B)/fuzz/corpus/$$n $$([ -d tests/fuzz/corpus/$$n ] && echo tests/fuzz/corpus/$$n) || exit 1; done

# ---- install ---------------------------------------------------------------------------------------------------------

BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBDIR ?= $(PREFIX)/lib
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
EXAMPLEDIR ?= $(PREFIX)/share/doc/vhdnfs
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
SYSCONFDIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc,$(PREFIX)/etc)

# What is installed: source, folder, mode. uninstall removes the same.
INSTALLED = $(O)/vhdnfsd:$(SBINDIR):755 $(O)/vhdnfs:$(BINDIR):755 $(O)/libvhdnfs-fadvise.so:$(LIBDIR):644 \
	docs/libvhdnfs-fadvise.7:$(MANDIR)/man7:644 docs/vhdnfsd.8:$(MANDIR)/man8:644 docs/vhdnfs.1:$(MANDIR)/man1:644 \
	docs/vhdnfs-image.1:$(MANDIR)/man1:644 docs/vhdnfs.yaml.5:$(MANDIR)/man5:644 \
	docs/vhdnfs.yaml.example:$(EXAMPLEDIR):644 $(O)/install/vhdnfsd.service:$(UNITDIR):644 \
	$(O)/install/vhdnfs.conf:$(SYSUSERSDIR):644 $(O)/install/vhdnfs.bash:$(BASHDIR):644 $(O)/install/_vhdnfs:$(ZSHDIR):644

# The configuration is the administrator's once it is there.
.PHONY: install uninstall install-files
install-files: all
	$(Q)mkdir -p $(O)/install
	$(Q)sed 's|@SBINDIR@|$(SBINDIR)|; s|@SYSCONFDIR@|$(SYSCONFDIR)|' docs/vhdnfsd.service.in >$(O)/install/vhdnfsd.service
	$(Q)cp tools/packaging/vhdnfs.sysusers $(O)/install/vhdnfs.conf
	$(Q)tools/packaging/completion bash $(O) >$(O)/install/vhdnfs.bash
	$(Q)tools/packaging/completion zsh $(O) >$(O)/install/_vhdnfs
install: install-files
	$(Q)for f in $(INSTALLED); do \
		src=$${f%%:*}; mode=$${f##*:}; dir=$${f#*:}; dir=$${dir%:*}; \
		install -D -m $$mode $$src $(DESTDIR)$$dir/$${src##*/} || exit 1; done
	$(Q)ln -sf vhdnfs.bash $(DESTDIR)$(BASHDIR)/vhdnfs
	$(Q)ln -sf vhdnfs.bash $(DESTDIR)$(BASHDIR)/vhdnfsd
	$(Q)[ -e $(DESTDIR)$(SYSCONFDIR)/vhdnfs.yaml ] || \
		install -D -m 644 docs/vhdnfs.yaml.example $(DESTDIR)$(SYSCONFDIR)/vhdnfs.yaml
	$(Q)tools/packaging/post-install "$(DESTDIR)" $(SYSUSERSDIR)/vhdnfs.conf
# The configuration, the user and what the server kept stay.
uninstall:
	$(Q)for f in $(INSTALLED); do \
		src=$${f%%:*}; dir=$${f#*:}; dir=$${dir%:*}; rm -f $(DESTDIR)$$dir/$${src##*/}; done
	$(Q)rm -f $(DESTDIR)$(BASHDIR)/vhdnfs $(DESTDIR)$(BASHDIR)/vhdnfsd
	$(Q)tools/packaging/post-install "$(DESTDIR)"

# A Debian source package and its binary packages, in build/deb. Changed files are in it as they are, new ones once git knows them.
DEB := $(B)/deb/vhdnfs-$(VERSION)
DEPS_DEB := dpkg-dev debhelper fakeroot lintian
.PHONY: deb
deb:
	$(Q)tests/deps "$(SUDO)" $(DEPS_BUILD) $(DEPS_DEB)
	$(Q)rm -rf $(B)/deb && mkdir -p $(DEB)
	$(Q)git ls-files -z | grep -zv '^tools/packaging/debian/' | xargs -0 cp --parents -t $(DEB)
	$(Q)tar -C $(B)/deb -czf $(B)/deb/vhdnfs_$(VERSION).orig.tar.gz vhdnfs-$(VERSION)
	$(Q)cp -r tools/packaging/debian $(DEB)/
	$(Q)cd $(DEB) && dpkg-buildpackage -us -uc
	$(Q)cd $(B)/deb && lintian --fail-on error --allow-root *.changes

# ---- rest ------------------------------------------------------------------------------------------------------------

.PHONY: clean help
clean:
	rm -rf $(B)

help:
	@echo 'make              build/vhdnfsd, build/vhdnfs and build/libvhdnfs-fadvise.so'
	@echo 'make demo         install what is missing, build, serve a small image (DEMO_ONCE=1: stop by itself)'
	@echo 'make check        every test; check-unit, check-protocol, check-linux for one kind'
	@echo 'make check-asan   unit and protocol tests under AddressSanitizer and UBSan; check-tsan: ThreadSanitizer'
	@echo 'make check-debian make demo and make check in a clean Debian 12 and 13 (root, debootstrap, network)'
	@echo 'make lint         layers, formatting, cppcheck, everything with clang and its thread-safety analysis'
	@echo 'make bench        side by side with NFS-Ganesha'
	@echo 'make fuzz         every fuzzer for FUZZ_SECONDS (60) each'
	@echo 'make install      DESTDIR, PREFIX (/usr/local)'
	@echo 'make deb          a Debian source package and its binary packages, in build/deb'
	@echo 'make deps         Debian packages for all of this'
	@echo 'V=1 shows commands, VARIANT=asan|tsan builds below build/asan, build/tsan'

.SECONDARY:
-include $(shell [ -d $(O)/obj ] && find $(O)/obj -name '*.d')
