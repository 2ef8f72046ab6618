"""Models: the registry, running them, batching for them, and swapping them while serving."""
