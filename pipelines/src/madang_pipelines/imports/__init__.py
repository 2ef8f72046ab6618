"""Anyone's files as tables, by a mapping in YAML."""
