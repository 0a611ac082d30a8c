/* What script/lua*.c share: the script, and what each file does for those above it. Nobody else includes this. Lua's types are opaque here, and since its own names
 * begin with lua_, ours begin with script_. Whatever takes a lua_State may raise an error: it is called inside script_run() only. */
#ifndef MCTUNNEL_SCRIPT_LUA_INSIDE_H
#define MCTUNNEL_SCRIPT_LUA_INSIDE_H

#include "mctunnel/base/log.h"
#include "mctunnel/edge/policy.h"
#include "mctunnel/script/budget.h"
#include "mctunnel/script/fault.h"
#include "mctunnel/script/tally.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lua_Debug;
struct lua_State;

struct hook { /* a registered function */
	int kind;   /* enum script_kind */
	char name[96];
	char *file; /* owned; where the function is */
	int line;
	int ref;    /* in Lua's registry, like all refs below */
	struct tally tally;
};

struct question { /* about a client */
	const struct facts *facts;
	const char *route, *id;
	struct policy_answer *answer;
};

struct script {
	struct conf *conf; /* shared */
	struct policy_ops ops;
	bool checking, quiet; /* quiet: says nothing while it loads */
	uint64_t renewed_ms, renewals;

	struct lua_State *L; /* owned; NULL: it could not be made anew */
	struct budget budget;
	struct script_fault fault;
	bool no_memory; /* why the last call failed: the process has none */
	int spent_ref;

	const char *file;     /* the script that is being loaded; NULL: all are */
	struct map *policies; /* hooks by name */
	struct hook **hooks;  /* owned */
	size_t hooks_n;

	const struct hook *running;      /* NULL: none */
	const struct question *question; /* NULL: none is asked */
	struct fault_log log;
	int client_ref;

	struct shelf *shelf; /* shared */
	int nets_ref;        /* compiled networks by their text */
	size_t nets_n;
};

/* ---- lua_run.c: the state of Lua, and calls into it ---- */

bool script_open_state(struct script *s) __attribute__((warn_unused_result)); /* an empty one. false: fault tells */
void script_close_state(struct script *s);
struct script *script_of(struct lua_State *L);
/* Calls body with a light pointer to arg. false: fault tells what went wrong, and that is all that came of it. */
bool script_run(struct script *s, int (*body)(struct lua_State *L), void *arg, uint64_t ms);
void script_charge(struct lua_State *L, int64_t n); /* instructions, before work that the hook does not see */
int script_raise_spent(struct lua_State *L);        /* all is used up */
const char *script_source_name(const struct lua_Debug *ar); /* the file; borrowed from ar or the function */
const char *script_file_name(const char *path);     /* without folders */

/* ---- lua_load.c: files ---- */

int script_load_all(struct lua_State *L); /* for script_run(): the scripts of the configuration */
/* A file that scripts ask for. Borrowed from conf->files; NULL: *why. */
const char *script_read_file(struct script *s, const char *path, size_t *len, const char **why);
void script_only_while_loading(struct lua_State *L, const char *what); /* else an error */

/* ---- what fills a state, each in its file ---- */

/* With nothing on the stack, in this order: the library takes away what it does not know. */
void script_open_run(struct lua_State *L);
void script_open_library(struct lua_State *L);
void script_open_modules(struct lua_State *L);
void script_open_client(struct lua_State *L);

/* Into the table on top: "string", for the others "mctunnel". */
void script_open_patterns(struct lua_State *L);
void script_open_hooks(struct lua_State *L);
void script_open_counts(struct lua_State *L);
void script_open_lookups(struct lua_State *L);
void script_open_log(struct lua_State *L);
void script_open_time(struct lua_State *L);

/* ---- lua_log.c, lua_hook.c ---- */

void script_say(struct lua_State *L, enum log_level level, const char *text);
void script_forget_hooks(struct script *s); /* when their state has gone */

/* ---- lua.c: states that come and go ---- */

bool script_is_open(struct script *s);   /* a state that could not be made is tried again */
void script_make_room(struct script *s); /* after a call that got no memory; hooks are others then, if the state is */

#endif
