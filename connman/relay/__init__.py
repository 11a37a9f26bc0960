"""A relay between two that can only dial out."""
