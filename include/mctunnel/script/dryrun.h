/* `mctunnelctl lua FILE`: a script is loaded as a worker would, and asked about a client that the command line describes. */
#ifndef MCTUNNEL_SCRIPT_DRYRUN_H
#define MCTUNNEL_SCRIPT_DRYRUN_H

/* words: the script's file, then options; see doc/lua.md. Answers on stdout, what the script logs and what is wrong on stderr.
 * 0: it was asked, whatever it said; 1: it cannot be loaded, it failed, or the words are wrong. */
int dryrun(int n, char **words);

#endif
