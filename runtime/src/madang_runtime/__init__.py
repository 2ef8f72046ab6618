"""What every Madang service shares, and nothing of any domain."""
