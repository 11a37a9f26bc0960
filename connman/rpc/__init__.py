"""Calls across the wire: services of one process called from another, over a connection that comes back."""
