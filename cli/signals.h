/*
 * Signals of a daemon: SIGINT, SIGTERM and SIGHUP are taken by the main thread only.
 */
#pragma once

/* Before any thread starts: blocks them everywhere and ignores SIGPIPE. */
void signals_block(void);
/* The signal that came, or 0 after the time. */
int signals_wait(int timeout_ms);
