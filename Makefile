# mctunnel: plain GNU make; see `make help`.
#
#   PREFIX (/usr), SYSCONFDIR (/etc), DESTDIR   where `make install` puts things
#   CC, CFLAGS, LDFLAGS, DEBUG=1 (-O0 -g3)      how to compile
#   FLAVOUR=release|asan|tsan|fuzz              which build below build/
VERSION := $(shell cat VERSION)
PREFIX ?= /usr
SYSCONFDIR ?= /etc
DESTDIR ?=
SBINDIR ?= $(PREFIX)/sbin
BINDIR ?= $(PREFIX)/bin
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
MANDIR ?= $(PREFIX)/share/man
DOCDIR ?= $(PREFIX)/share/doc/mctunnel
LIBEXECDIR ?= $(PREFIX)/libexec/mctunnel
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
CC ?= cc
PKG_CONFIG ?= pkg-config
FLAVOUR ?= release
BUILD ?= build/$(FLAVOUR)

PACKAGES := openssl libconfig libnghttp2 jansson libcares lua5.4 libpcre2-8 libcrypt
WARN := -Wall -Wextra -Wmissing-prototypes -Wstrict-prototypes -Wshadow -Wvla -Wpointer-arith -Wno-unused-parameter
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=2
CFLAGS ?= -O2 -g
OPT := $(CFLAGS)
ifeq ($(FLAVOUR),asan)
OPT := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
HARDEN := -fPIE
else ifeq ($(FLAVOUR),tsan)
OPT := -O1 -g -fsanitize=thread
HARDEN := -fPIE
else ifeq ($(FLAVOUR),fuzz)
override CC := clang
OPT := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
HARDEN := -fPIE
endif
ifneq ($(DEBUG),)
OPT := -O0 -g3
HARDEN := -fPIE -fstack-protector-strong
endif
WERROR ?=
ALL_CFLAGS = -std=gnu11 $(OPT) $(HARDEN) $(WARN) $(WERROR) -Iinclude -DMCTUNNEL_VERSION='"$(VERSION)"' \
	-pthread $(shell $(PKG_CONFIG) --cflags $(PACKAGES))
ALL_LDFLAGS = $(OPT) $(LDFLAGS) -pie -Wl,-z,relro,-z,now -rdynamic -pthread
LIBS = $(shell $(PKG_CONFIG) --libs $(PACKAGES))
# what -vv tells
BUILT_WITH = $(foreach p,$(PACKAGES),$(p) $(shell $(PKG_CONFIG) --modversion $(p)))
BUILT_AS = $(strip $(CC) $(filter-out -ffile-prefix-map=% -fdebug-prefix-map=%,$(OPT)) $(HARDEN))

FLOORS := base event conf net proto tunnel edge script admin main
LIB_SRC := $(sort $(foreach f,$(FLOORS),$(wildcard src/$(f)/*.c)))
LIB_OBJ := $(LIB_SRC:src/%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libmctunnel.a
UNIT_SRC := $(sort $(wildcard reg-tests/unit/*/*.c))
UNIT_BIN := $(UNIT_SRC:reg-tests/unit/%.c=$(BUILD)/unit/%)
FUZZ_SRC := $(filter-out reg-tests/fuzz/replay.c,$(sort $(wildcard reg-tests/fuzz/*.c)))
FUZZ_BIN := $(FUZZ_SRC:reg-tests/fuzz/%.c=$(BUILD)/fuzz/%)
REPLAY_BIN := $(FUZZ_SRC:reg-tests/fuzz/%.c=$(BUILD)/replay/%)
TOOL_SRC := $(sort $(wildcard reg-tests/tools/*.c))
TOOL_BIN := $(TOOL_SRC:reg-tests/tools/%.c=$(BUILD)/tools/%)
FUZZ_SECONDS ?= 60
DOCKER ?= docker
# what make install puts below examples, with its folders, and below LIBEXECDIR
EXAMPLES := $(wildcard $(addprefix etc/,examples keepalived prometheus grafana kubernetes))
HELPERS := $(wildcard scripts/keepalived-*)

all: mctunnel mctunnelctl ## build ./mctunnel and ./mctunnelctl (the default)

mctunnel: $(BUILD)/mctunnel
	@cp -f $< $@

$(BUILD)/mctunnel: $(BUILD)/main.o $(LIBRARY)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIBRARY) $(LIBS)

mctunnelctl: $(BUILD)/mctunnelctl
	@cp -f $< $@

# Small on purpose: it loads no library but libc.
$(BUILD)/mctunnelctl: $(BUILD)/ctl.o $(BUILD)/base/str.o $(BUILD)/base/bug.o
	$(CC) $(ALL_LDFLAGS) -o $@ $^

$(LIBRARY): $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/main/options.o: ALL_CFLAGS += -DBUILT_WITH='"$(BUILT_WITH)"' -DBUILT_AS='"$(BUILT_AS)"'

$(BUILD)/admin/status.o: src/admin/status.css src/admin/status.js

$(BUILD)/%.o: src/%.c VERSION
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# A unit test is a program over cmocka; linked with the library, so it may include the .c it tests.
TEST_CFLAGS = $(ALL_CFLAGS) -MMD -MP -MF $@.d -Isrc -Wno-missing-prototypes
TEST_LDFLAGS = $(ALL_LDFLAGS) -Wl,--allow-multiple-definition
$(BUILD)/unit/%: reg-tests/unit/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ $< $(TEST_LDFLAGS) $(LIBRARY) $(LIBS) -lcmocka

# A fuzz target: with libFuzzer (FLAVOUR=fuzz), or with a main() that replays its corpus (any flavour).
$(BUILD)/fuzz/%: reg-tests/fuzz/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -fsanitize=fuzzer -o $@ $< $(TEST_LDFLAGS) $(LIBRARY) $(LIBS)

$(BUILD)/replay/%: reg-tests/fuzz/%.c reg-tests/fuzz/replay.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ $< reg-tests/fuzz/replay.c $(TEST_LDFLAGS) $(LIBRARY) $(LIBS)

# What reg-tests need besides the program: a relay that does harm, simulated agents.
$(BUILD)/tools/%: reg-tests/tools/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(TEST_CFLAGS) -o $@ $< $(TEST_LDFLAGS) $(LIBRARY) $(LIBS)

program: $(BUILD)/mctunnel $(BUILD)/mctunnelctl
tool-binaries: $(TOOL_BIN)
unit-binaries: $(UNIT_BIN)
fuzz-binaries: $(FUZZ_BIN)
replay-binaries: $(REPLAY_BIN)
objects: $(LIB_OBJ) $(BUILD)/main.o $(BUILD)/ctl.o

test: ## everything: check, unit tests, fuzz corpora, reg-tests
	scripts/run-tests

check: ## layering, banned functions, headers, format, warnings as errors, shellcheck
	scripts/run-tests check

unit-tests: ## build with ASan and UBSan (or FLAVOUR=tsan) and run every reg-tests/unit/*/*.c
	scripts/run-tests unit

reg-tests: ## run every reg-tests/*/test_*.py and pki test against the real programs
	scripts/run-tests reg

asan: ## build program and unit tests below build/asan, with AddressSanitizer and UBSan
	$(MAKE) FLAVOUR=asan program tool-binaries unit-binaries replay-binaries

tsan: ## build program and unit tests below build/tsan, with ThreadSanitizer
	$(MAKE) FLAVOUR=tsan program unit-binaries

fuzz: ## build the fuzz targets with clang and run each for FUZZ_SECONDS (60); finds go to its corpus
	$(MAKE) FLAVOUR=fuzz fuzz-binaries
	@for t in $(FUZZ_SRC:reg-tests/fuzz/%.c=%); do \
		mkdir -p reg-tests/fuzz/corpus/$$t && echo "== $$t" && \
		dict=reg-tests/fuzz/dict/$$t.dict && \
		build/fuzz/fuzz/$$t $$([ ! -e $$dict ] || echo -dict=$$dict) -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
			reg-tests/fuzz/corpus/$$t || exit 1; \
	done

faults: ## every allocation and system call of a small scenario fails in its turn (slow; goes on where it was stopped: scripts/faults)
	$(MAKE) FLAVOUR=asan program
	scripts/faults

bench: all ## measure beside others, half an hour (scripts/bench --publish writes doc/benchmarks.md)
	scripts/bench $(BENCH)

soak: all ## run an hour under load and faults, or SOAK_SECONDS (scripts/soak)
	scripts/soak

newcomer: ## try README's two commands on a bare Debian in a chroot (root, debootstrap, slow)
	reg-tests/newcomer

install: all ## install below DESTDIR and PREFIX; an existing configuration is kept
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(SYSCONFDIR)/mctunnel $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(DOCDIR) \
		$(DESTDIR)$(COMPLETIONDIR)
	install -m 755 mctunnel scripts/mctunnel-pki $(DESTDIR)$(SBINDIR)
	install -m 755 mctunnelctl $(DESTDIR)$(BINDIR)
	install -m 644 etc/bash-completion/mctunnelctl $(DESTDIR)$(COMPLETIONDIR)
	install -m 644 doc/mctunnelctl.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 doc/mctunnel.8 doc/mctunnel-pki.8 $(DESTDIR)$(MANDIR)/man8
	install -d $(DESTDIR)$(DOCDIR)/internals
	install -m 644 README.md NEWS LICENSE $(wildcard doc/*.txt doc/*.md) $(DESTDIR)$(DOCDIR)
	install -m 644 $(wildcard doc/internals/*.md) $(DESTDIR)$(DOCDIR)/internals
	for f in $$(find $(EXAMPLES) -type f); do \
		mode=644; [ ! -x $$f ] || mode=755; to=$${f#etc/}; \
		install -D -m $$mode $$f $(DESTDIR)$(DOCDIR)/examples/$${to#examples/} || exit 1; \
	done
	for f in $(HELPERS); do install -D -m 755 $$f $(DESTDIR)$(LIBEXECDIR)/$${f##*/} || exit 1; done
	test -e $(DESTDIR)$(SYSCONFDIR)/mctunnel/mctunnel.cfg || \
		install -m 644 etc/mctunnel.cfg $(DESTDIR)$(SYSCONFDIR)/mctunnel/mctunnel.cfg
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(TMPFILESDIR)
	sed 's|/usr/sbin/|$(SBINDIR)/|; s|/etc/mctunnel/|$(SYSCONFDIR)/mctunnel/|' etc/systemd/mctunnel.service \
		>$(DESTDIR)$(UNITDIR)/mctunnel.service
	chmod 644 $(DESTDIR)$(UNITDIR)/mctunnel.service
	install -m 644 etc/systemd/sysusers.conf $(DESTDIR)$(SYSUSERSDIR)/mctunnel.conf
	install -D -m 644 etc/systemd/mctunnel-pair.conf $(DESTDIR)$(DOCDIR)/examples/systemd/mctunnel-pair.conf
	install -m 644 etc/systemd/tmpfiles.conf $(DESTDIR)$(TMPFILESDIR)/mctunnel.conf
	test -e $(DESTDIR)$(SYSCONFDIR)/logrotate.d/mctunnel || \
		install -D -m 644 etc/logrotate/mctunnel $(DESTDIR)$(SYSCONFDIR)/logrotate.d/mctunnel

uninstall: ## remove what install put there; the configuration stays
	rm -f $(DESTDIR)$(SBINDIR)/mctunnel $(DESTDIR)$(SBINDIR)/mctunnel-pki $(DESTDIR)$(BINDIR)/mctunnelctl
	rm -f $(DESTDIR)$(MANDIR)/man1/mctunnelctl.1 $(DESTDIR)$(COMPLETIONDIR)/mctunnelctl
	rm -f $(DESTDIR)$(MANDIR)/man8/mctunnel.8 $(DESTDIR)$(MANDIR)/man8/mctunnel-pki.8
	rm -f $(DESTDIR)$(UNITDIR)/mctunnel.service $(DESTDIR)$(SYSUSERSDIR)/mctunnel.conf $(DESTDIR)$(TMPFILESDIR)/mctunnel.conf
	rm -f $(DESTDIR)$(SYSCONFDIR)/logrotate.d/mctunnel
	rm -rf $(DESTDIR)$(DOCDIR) $(DESTDIR)$(LIBEXECDIR)

deb: ## build Debian packages below build/deb (debhelper); lintian checks them if it is there
	scripts/deb $$(command -v lintian >/dev/null && echo --lint)

deb-test: ## install, run, upgrade and purge the package in a chroot (root, debootstrap, a minute or two)
	reg-tests/deb

image: ## build the container images mctunnel/hub and mctunnel/agent (docker, or DOCKER=podman)
	for t in hub agent; do $(DOCKER) build -f etc/docker/Dockerfile --target $$t -t mctunnel/$$t:$(VERSION) -t mctunnel/$$t:latest . || exit 1; done

image-test: ## take the Dockerfile's steps in a chroot and run the Pods of etc/kubernetes on it (root, debootstrap, minutes)
	reg-tests/image

dist: ## pack the committed tree as mctunnel-VERSION.tar.gz
	git archive --format=tar.gz --prefix=mctunnel-$(VERSION)/ -o mctunnel-$(VERSION).tar.gz HEAD
	@echo mctunnel-$(VERSION).tar.gz

clean: ## remove what was built
	rm -rf build mctunnel mctunnelctl

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r t h; do printf '  %-12s %s\n' "$$t" "$$h"; done
	@sed -n 's/^#  //p' Makefile

-include $(LIB_OBJ:.o=.d) $(UNIT_BIN:=.d) $(FUZZ_BIN:=.d) $(REPLAY_BIN:=.d) $(TOOL_BIN:=.d) $(BUILD)/main.d $(BUILD)/ctl.d
.PHONY: all program objects test check unit-tests reg-tests unit-binaries fuzz-binaries replay-binaries tool-binaries asan tsan fuzz faults bench soak \
	newcomer install uninstall deb deb-test image image-test dist clean help
.SECONDARY:
