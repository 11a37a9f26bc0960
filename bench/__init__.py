"""How fast connman is beside its peers: `scripts/bench` runs this, bench/rows.py says what is to be reached."""
