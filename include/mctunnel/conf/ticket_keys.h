/* The file of global.ticket_keys: what tickets of TLS sessions are sealed with, the same on both hubs of a pair. */
#ifndef MCTUNNEL_CONF_TICKET_KEYS_H
#define MCTUNNEL_CONF_TICKET_KEYS_H

#include <stddef.h>
#include <stdint.h>

#define TICKET_KEY_BYTES 80
#define TICKET_KEYS_MAX 16

/* A key a line, as base64 or hexadecimal digits; blanks, empty lines and what follows a '#' are nothing. Returns how many keys are in out,
 * at least one; -1 with a sentence in err, which tells the line and nothing of a key. The caller wipes out. */
int ticket_keys_parse(const char *text, uint8_t out[][TICKET_KEY_BYTES], char *err, size_t errsize) __attribute__((warn_unused_result));

#endif
