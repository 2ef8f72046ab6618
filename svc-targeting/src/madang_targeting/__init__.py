"""svc-targeting: whom to tell."""
