"""What ads spend, and how it is spread over the day."""
