"""Change logs: writes that others follow, appended before they are acknowledged."""
