"""From searches and what people did around them to the keywords that svc-search recommends."""
