"""The leaf: one dial on a thread of its own."""
