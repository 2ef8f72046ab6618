"""Models of the services from anyone's tables, judged beside simple ones."""
