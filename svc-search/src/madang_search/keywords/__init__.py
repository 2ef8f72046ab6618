"""Which keywords to show to whom."""
