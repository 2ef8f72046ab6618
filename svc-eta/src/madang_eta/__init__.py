"""svc-eta: when an order arrives, as a probability of each minute."""
