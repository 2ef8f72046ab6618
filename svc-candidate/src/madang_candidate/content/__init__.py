"""Shops by what they sell, and searches by what they mean, in one space."""
