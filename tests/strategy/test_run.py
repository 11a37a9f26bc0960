"""One run: its events one at a time, whoever brings them, and what its guards drop."""
