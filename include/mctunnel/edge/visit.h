/* What a visitor of a list of live things (clients, links, jobs) wants next. The lists are walked in the order in which things came to the calling
 * thread, by a cursor: 0 at first, then the number of the last one seen; it stays good whatever comes and goes between two calls. */
#ifndef MCTUNNEL_EDGE_VISIT_H
#define MCTUNNEL_EDGE_VISIT_H

enum visit {
	VISIT_NEXT, /* go on */
	VISIT_STOP, /* enough for now; the one shown counts as seen */
	VISIT_KILL, /* end it (REASON_KILLED), and go on */
	VISIT_MOVE, /* clients and links of a hub: the same with REASON_MOVED */
};

#endif
