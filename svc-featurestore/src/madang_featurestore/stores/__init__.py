"""Where rows, counters, last actions and definitions are kept."""
