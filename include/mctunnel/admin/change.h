/* The commands that change something. Each is a command's function, see answer.h. */
#ifndef MCTUNNEL_ADMIN_CHANGE_H
#define MCTUNNEL_ADMIN_CHANGE_H

struct answer;

int change_listener_on(struct answer *a);
int change_listener_off(struct answer *a);
int change_tunnel_on(struct answer *a);
int change_tunnel_off(struct answer *a);
int change_agent_on(struct answer *a);
int change_agent_off(struct answer *a);
int change_agent_drain(struct answer *a);
int change_service_on(struct answer *a);
int change_service_off(struct answer *a);
int change_weight(struct answer *a);

int kill_session(struct answer *a);
int kill_sessions_agent(struct answer *a);
int kill_sessions_listener(struct answer *a);
int kill_link(struct answer *a);

int set_maxconn(struct answer *a);
int set_log_level(struct answer *a);
int set_vip(struct answer *a);
int clear_counters(struct answer *a);
int stop_now(struct answer *a);
int stop_softly(struct answer *a);
int reload(struct answer *a);
int not_available(struct answer *a);
int wait_ready(struct answer *a);

#endif
