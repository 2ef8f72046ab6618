"""Finds what a person types: documents, intents, completions."""
