"""Calls across a connection: each side may serve and call."""
