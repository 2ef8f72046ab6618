"""The shape of Envoy's messages."""

from typing import Any

TYPE = "type.googleapis.com/envoy"


def typed(message: str, **fields: Any) -> dict[str, Any]:
    """A message with its type, as Envoy's Any fields take it."""
    return {"@type": f"{TYPE}.{message}", **fields}


def address(host: str, port: int) -> dict[str, Any]:
    """An address to listen on or to call."""
    return {"socket_address": {"address": host, "port_value": port}}
