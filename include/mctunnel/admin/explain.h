/* The command that tells where a client would go. A command's function, see answer.h. */
#ifndef MCTUNNEL_ADMIN_EXPLAIN_H
#define MCTUNNEL_ADMIN_EXPLAIN_H

struct answer;

int explain_route(struct answer *a);

#endif
