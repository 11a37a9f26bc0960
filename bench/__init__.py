"""How fast connman is beside its peers: `scripts/bench` runs this, DESIGN's section on speed says what is to be reached."""
