"""Blocks: what a query may mean, in the order of who asks."""
