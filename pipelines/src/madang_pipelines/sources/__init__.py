"""Where canonical tables come from."""
