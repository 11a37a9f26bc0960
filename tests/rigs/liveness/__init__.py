"""How long a connection whose peer is gone goes unnoticed, and what is taken for that: connman beside websocket-client."""
