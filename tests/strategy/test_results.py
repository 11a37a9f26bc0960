"""What comes of a strategy: one error out of several, and a transport that nobody wants."""
