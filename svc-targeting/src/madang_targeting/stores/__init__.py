"""Where svc-targeting keeps what it knows."""
