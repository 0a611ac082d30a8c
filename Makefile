# mctunnel: plain GNU make; see `make help`.
VERSION := $(shell cat VERSION)
PREFIX ?= /usr
SYSCONFDIR ?= /etc
DESTDIR ?=
CC ?= cc
PKG_CONFIG ?= pkg-config
FLAVOUR ?= release
BUILD ?= build/$(FLAVOUR)

PACKAGES := openssl libconfig libnghttp2 jansson libcares
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

FLOORS := base event conf net proto tunnel edge script admin main
LIB_SRC := $(sort $(foreach f,$(FLOORS),$(wildcard src/$(f)/*.c)))
LIB_OBJ := $(LIB_SRC:src/%.c=$(BUILD)/%.o)
LIBRARY := $(BUILD)/libmctunnel.a
UNIT_SRC := $(sort $(wildcard reg-tests/unit/*/*.c))
UNIT_BIN := $(UNIT_SRC:reg-tests/unit/%.c=$(BUILD)/unit/%)

all: mctunnel

mctunnel: $(BUILD)/mctunnel
	@cp -f $< $@

$(BUILD)/mctunnel: $(BUILD)/main.o $(LIBRARY)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIBRARY) $(LIBS)

$(LIBRARY): $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: src/%.c VERSION
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# A unit test is a program over cmocka; linked with the library, so it may include the .c it tests.
$(BUILD)/unit/%: reg-tests/unit/%.c $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -Isrc -Wno-missing-prototypes -o $@ $< $(ALL_LDFLAGS) -Wl,--allow-multiple-definition $(LIBRARY) $(LIBS) -lcmocka

unit-binaries: $(UNIT_BIN)

clean:
	rm -rf build mctunnel mctunnelctl

-include $(LIB_OBJ:.o=.d) $(UNIT_BIN:=.d) $(BUILD)/main.d
.PHONY: all unit-binaries clean
.SECONDARY:
