"""What a guard drops, and what it closes."""
