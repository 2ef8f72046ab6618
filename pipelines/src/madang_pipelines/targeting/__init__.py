"""Targeting: from campaigns to the models of svc-targeting."""
