/* Counts links of agents that come back after one was lost (mctunnel_agent_reconnections_total). Any thread. */
#ifndef MCTUNNEL_EDGE_COMEBACK_H
#define MCTUNNEL_EDGE_COMEBACK_H

/* A link of the agent is up: one that was lost before is made good, and counted. The first call for an agent makes its series. */
void comeback_up(const char *tunnel, const char *agent);
void comeback_lost(const char *tunnel, const char *agent);

#endif
