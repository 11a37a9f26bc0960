"""Protocol conformance: connman against Autobahn|Testsuite. `scripts/conformance` runs it."""
