"""The bandit: what few have seen is tried, and what pays is shown more."""
