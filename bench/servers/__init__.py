"""What the clients of the rows about calls and forwarding talk to: each a program of its own that says its port."""
