"""How long calls may take, and which are tried again."""

import json
import re

USER_HEADER = "x-madang-user"
"""By which the gateway keeps a user on one side of a canary."""

PAGE_SECONDS = 1.0
"""Reads that a page waits for."""
WORK_SECONDS = 5.0
"""Writes, and reads over much: as long as a service takes at most."""

_WORK = re.compile(
    r"/(Apply|Cancel|Create|Delete|Estimate|Record|Set|Upsert|Write)\w*$"
    r"|/(Explain|GetAudienceInfo|PredictBatch|ListMembers|ListResults)$"
)

_RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Many failures end retries for everybody, so that they do not keep a mesh down.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}


def options(max_message_bytes: int = 16 * 2**20) -> list[tuple[str, int | str]]:
    """Options of a channel, as the gateway's listener and the services have them.

    A call that finds nobody (UNAVAILABLE) is tried again, within its deadline: every RPC of the
    mesh may be repeated, as writes replace and events count once.
    """
    return [
        ("grpc.service_config", json.dumps(_RETRIES)),
        ("grpc.enable_retries", 1),
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def seconds(method: str) -> float:
    """The deadline of a call without one, by the path of its method, retries included."""
    return WORK_SECONDS if _WORK.search(method) else PAGE_SECONDS
