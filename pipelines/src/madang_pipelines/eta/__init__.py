"""Delivery times: from orders to the models of svc-eta."""
