/* What a health check has found, in HAProxy's words: one table for the log, metrics, admin socket and the wire. */
#ifndef MCTUNNEL_BASE_CHECK_STATUS_H
#define MCTUNNEL_BASE_CHECK_STATUS_H

/* id, word, what it says of the target (1: good, 0: bad, -1: nothing), sentence */
#define CHECK_STATUSES(X)                                              \
	X(INI, "INI", -1, "not checked yet")                           \
	X(SOCKERR, "SOCKERR", -1, "the agent could not check")         \
	X(L4OK, "L4OK", 1, "connected")                                \
	X(L4TOUT, "L4TOUT", 0, "no connection within check.timeout")   \
	X(L4CON, "L4CON", 0, "cannot be connected")                    \
	X(L6OK, "L6OK", 1, "TLS handshake completed")                  \
	X(L6TOUT, "L6TOUT", 0, "no TLS handshake within check.timeout") \
	X(L6RSP, "L6RSP", 0, "TLS handshake failed")                   \
	X(L7OK, "L7OK", 1, "good answer")                              \
	X(L7TOUT, "L7TOUT", 0, "no answer within check.timeout")       \
	X(L7RSP, "L7RSP", 0, "malformed answer")                       \
	X(L7STS, "L7STS", 0, "bad status")

enum check_status {
#define CHECK_STATUS_ENUM(id, word, verdict, text) CHECK_##id,
	CHECK_STATUSES(CHECK_STATUS_ENUM)
#undef CHECK_STATUS_ENUM
	CHECK_STATUS_COUNT
};

const char *check_status_word(enum check_status s);
const char *check_status_text(enum check_status s);
int check_status_verdict(enum check_status s);

#endif
