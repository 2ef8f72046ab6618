"""Search: from texts and searches to the encoder of svc-search."""
