/* The last descriptors this process may have: for those who look after it (admin socket, metrics, files of the log), not for clients. */
#ifndef MCTUNNEL_NET_RESERVE_H
#define MCTUNNEL_NET_RESERVE_H

#include <stdbool.h>

#define RESERVE_DESCRIPTORS 16

/* This one is of the reserve: take no more. */
bool reserve_has(int fd);
/* There are none but those of the reserve, or none at all; fd: any open one. */
bool reserve_only(int fd);

#endif
