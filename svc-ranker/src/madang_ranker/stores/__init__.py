"""Where the ranker keeps things."""
