"""A connection that comes back: attempts, backoff, the reader thread, keepalive, forks and exit."""
