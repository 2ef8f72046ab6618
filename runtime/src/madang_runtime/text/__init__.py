"""Texts as vectors."""

ENCODER = "search-encoder"
"""The sentence encoder's name in the registry, and in parameters of what was trained with it."""
