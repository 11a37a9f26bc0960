"""What stands on connman and speaks for it to others: each module is imported by itself."""
