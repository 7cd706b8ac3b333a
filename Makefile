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
NTIRPC_CFLAGS := $(call sysflags,libntirpc)
TIRPC_CFLAGS := $(call sysflags,libtirpc)
LIBS_VHD := -lext2fs -lcom_err -lblkid -luuid -luring
LIBS_SERVER := -lntirpc -lcyaml -lsystemd
LIBS_TOOL := -ltirpc

# ---- sources ---------------------------------------------------------------------------------------------------------

VHD_SRC := $(wildcard vhd/*/*.c)
ADVISE_SRC := $(wildcard advise/*.c)
XDR_X := rpc nfs4 nfs4_cb xattr
XDR_X := $(foreach x,$(XDR_X),$(wildcard xdr/$(x).x))
XDR_SRC := $(wildcard xdr/*.c)
SERVER_MAIN := server/main.c
SERVER_SRC := $(filter-out $(SERVER_MAIN),$(wildcard server/*.c server/*/*.c))
TOOL_SRC := $(wildcard tools/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
PROTO_SRC := $(wildcard tests/protocol/*.c)

GEN_H := $(patsubst xdr/%.x,$(GEN)/xdr/%.h,$(XDR_X))
GEN_C := $(patsubst xdr/%.x,$(GEN)/xdr/%_xdr.c,$(XDR_X))

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
VHD_OBJ := $(call obj,$(VHD_SRC))
ADVISE_OBJ := $(call obj,$(ADVISE_SRC))
XDR_OBJ := $(call obj,$(XDR_SRC)) $(patsubst $(GEN)/%.c,$(O)/obj/gen/%.o,$(GEN_C))
XDR_TIRPC_OBJ := $(patsubst $(GEN)/%.c,$(O)/obj/gen-tirpc/%.o,$(GEN_C))
SERVER_OBJ := $(call obj,$(SERVER_SRC))
TOOL_OBJ := $(call obj,$(TOOL_SRC))
UNIT_BIN := $(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(UNIT_SRC))

.DEFAULT_GOAL := all
.PHONY: all
all: $(if $(wildcard $(SERVER_MAIN)),$(O)/vhdnfsd) $(if $(TOOL_SRC),$(O)/vhdnfs)

# ---- generated code --------------------------------------------------------------------------------------------------

# rpcgen -h and -c of one file; the scripts' only edit is the include path.
$(GEN)/xdr/%.h: xdr/%.x
	$(call say,RPCGEN,$@)
	$(Q)mkdir -p $(@D) && cd xdr && $(RPCGEN) -C -h $*.x >../$@.tmp && mv ../$@.tmp ../$@

$(GEN)/xdr/%_xdr.c: xdr/%.x $(GEN)/xdr/%.h
	$(call say,RPCGEN,$@)
	$(Q)mkdir -p $(@D) && cd xdr && $(RPCGEN) -C -c $*.x | sed 's|#include "$*.h"|#include "xdr/$*.h"|' >../$@.tmp \
		&& mv ../$@.tmp ../$@

# rpcgen's style is not ours: its output is compiled without our warnings.
GEN_WARN := -w

$(O)/obj/gen/%.o: $(GEN)/%.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(NTIRPC_CFLAGS) $(CFLAGS_ALL) $(GEN_WARN) -include xdr/prims_rename.h -MMD -MP -c -o $@ $<

$(O)/obj/gen-tirpc/%.o: $(GEN)/%.c | $(GEN_H)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(TIRPC_CFLAGS) $(CFLAGS_ALL) $(GEN_WARN) -MMD -MP -c -o $@ $<

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

# ---- tests -----------------------------------------------------------------------------------------------------------

$(O)/tests/unit/%: $(O)/obj/tests/unit/%.o $(SERVER_LIBS)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -rdynamic -o $@ $^ -lcheck -lm -lrt -lsubunit $(LIBS_SERVER) $(LIBS_VHD)

.PHONY: units
units: $(UNIT_BIN)

.PHONY: check-unit
check-unit: $(UNIT_BIN)
	$(Q)tests/run $(UNIT_BIN)

.PHONY: clean
clean:
	rm -rf $(B)

.SECONDARY:
-include $(shell [ -d $(O)/obj ] && find $(O)/obj -name '*.d')
