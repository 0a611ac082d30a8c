/* The commands that show the process itself. Each is a command's function, see answer.h. */
#ifndef MCTUNNEL_ADMIN_SHOW_H
#define MCTUNNEL_ADMIN_SHOW_H

struct answer;

int show_info(struct answer *a);
int show_errors(struct answer *a);
int show_events(struct answer *a);
int show_certs(struct answer *a);
int show_config(struct answer *a);
int show_memory(struct answer *a);
int show_threads(struct answer *a);
int show_lua(struct answer *a);
int show_version(struct answer *a);
int show_env(struct answer *a);

void show_clear(void); /* counters are shown from now on, without what was before */

#endif
