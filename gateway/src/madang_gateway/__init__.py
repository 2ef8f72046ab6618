"""Envoy's configuration: the one way into the mesh, and between its services."""
