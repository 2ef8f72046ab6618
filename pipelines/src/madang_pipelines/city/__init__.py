"""A deterministic city with a market in it, whose truth is known."""
