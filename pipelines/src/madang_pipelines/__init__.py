"""From raw data to registered models."""
