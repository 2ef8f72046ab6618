"""svc-ranker: turns hundreds of candidates into the list that a user sees."""
