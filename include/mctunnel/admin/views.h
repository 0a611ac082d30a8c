/* The commands that show who and what is carried. Each is a command's function, see answer.h. */
#ifndef MCTUNNEL_ADMIN_VIEWS_H
#define MCTUNNEL_ADMIN_VIEWS_H

struct answer;

int view_tunnels(struct answer *a);
int view_agents(struct answer *a);
int view_links(struct answer *a);
int view_services(struct answer *a);
int view_listeners(struct answer *a);
int view_sessions(struct answer *a);
int view_stat(struct answer *a);

#endif
