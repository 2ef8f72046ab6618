"""A ranker of any fields: what is known of a request, and what of an item."""
