/* The edge's side of scripts: passes questions on to whoever has registered on this thread, and answers for itself when nobody has.
 * Knows nothing of Lua. */
#include "mctunnel/edge/policy.h"

#include <string.h>

static _Thread_local const struct policy_ops *ops;

void policy_use(const struct policy_ops *o)
{
	ops = o;
}

void policy_ask(const char *name, const struct facts *f, const char *route, const char *id, struct policy_answer *out)
{
	memset(out, 0, sizeof(*out));
	if (ops) {
		ops->ask(name, f, route, id, out);
		return;
	}
	out->kind = POLICY_DENY;
	out->status = 403;
	out->failed = true;
}

enum reason policy_agent(const struct policy_agent *a, char *why, size_t size)
{
	return ops && ops->wants_agents ? ops->agent(a, why, size) : REASON_DONE;
}

bool policy_wants_ends(void)
{
	return ops && ops->wants_ends;
}

void policy_end(const struct policy_end *e)
{
	if (policy_wants_ends())
		ops->end(e);
}
