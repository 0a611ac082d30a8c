/* A hub's clients and links that have come to an address which this host has no longer: nobody will hear from them again. */
#ifndef MCTUNNEL_EDGE_DEPARTURE_H
#define MCTUNNEL_EDGE_DEPARTURE_H

/* Resets those of the calling thread (REASON_MOVED); returns how many. Those of addresses that are still here, and of Unix sockets, stay. */
unsigned departure_run(void);

#endif
