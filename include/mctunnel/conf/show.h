/* A snapshot written down again: the values in force, defaults included. Passwords are left out. */
#ifndef MCTUNNEL_CONF_SHOW_H
#define MCTUNNEL_CONF_SHOW_H

#include <stdbool.h>
#include <stdio.h>

struct conf;

/* A line for each value, "listeners[0].name = "ssh""; or one JSON object as the configuration is nested. */
void conf_show(const struct conf *c, FILE *out, bool json);

#endif
