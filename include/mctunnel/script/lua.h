/* Scripts in Lua 5.4, as one thread runs them: a sandboxed state with limits of memory, instructions and time. Whatever goes wrong in a script ends as a
 * refusal of the one who was asked about, never as anything worse. doc/lua.md is what scripts see. */
#ifndef MCTUNNEL_SCRIPT_LUA_H
#define MCTUNNEL_SCRIPT_LUA_H

#include "mctunnel/script/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf;
struct script;

/* Runs the scripts of a configuration (global.lua.load) in a new state. A state may be made on one thread and used on another.
 * sibling: another of the same configuration, with which it shares what files hold; NULL: it is the first. checking: it is only tried: it logs nothing, and
 * files are read from disk; else only files that were read while it was tried (through conf->files). NULL: fault tells. */
struct script *script_new(struct conf *conf, struct script *sibling, bool checking, struct script_fault *fault) __attribute__((warn_unused_result));
void script_free(struct script *s);

/* From now on the calling thread's edge asks this one (borrowed; NULL: none), see edge/policy.h. */
void script_use(struct script *s);
struct script *script_used(void); /* by the calling thread */

/* ---- what is known of one; on its thread ---- */

enum script_kind { SCRIPT_POLICY, SCRIPT_AGENT, SCRIPT_END };
extern const char *const script_kinds[]; /* "policy", "on_agent", "on_session_end" */

struct script_hook { /* a function that a script has registered */
	enum script_kind kind;
	const char *name; /* of on_agent and on_session_end: FILE:LINE */
	uint64_t calls, errors;
	uint64_t sum_ns, max_ns, p50_ns, p99_ns;
};
bool script_hook(const struct script *s, size_t i, struct script_hook *out); /* false: no more */
bool script_has(const struct script *s, const char *policy);

struct script_figures {
	size_t memory, memory_peak, memory_limit; /* bytes */
	uint64_t instructions; /* of the last call, roughly: in steps of the counting */
	uint64_t renewals;     /* times the state was made anew because it was full */
};
void script_figures(const struct script *s, struct script_figures *out);
const struct script_fault *script_last_fault(const struct script *s); /* of the last call: text "" when there was none */

#endif
