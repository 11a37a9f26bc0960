"""A strategy as such: a tree that can be looked at, and a target."""
