"""Writes madang/values.schema.json: the shape of values.yaml, and the settings that services have.

Run by `make chart-schema`. Everything is strict but `global` and what Kubernetes defines itself.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from madang_candidate.settings import CandidateSettings
from madang_eta.settings import EtaSettings, RefresherSettings
from madang_featurestore.settings import FeatureStoreSettings
from madang_ranker.consumer import ConsumerSettings
from madang_ranker.settings import RankerSettings
from madang_runtime.settings import ServiceSettings
from madang_search.settings import FeederSettings, SearchSettings
from madang_targeting.settings import TargetingSettings

CHART = Path(__file__).parent / "madang"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "featurestore": FeatureStoreSettings,
    "candidate": CandidateSettings,
    "eta": EtaSettings,
    "ranker": RankerSettings,
    "search": SearchSettings,
    "targeting": TargetingSettings,
    "consumer": ConsumerSettings,
    "refresher": RefresherSettings,
    "feeder": FeederSettings,
}
# Settings that the chart itself gives, and those of secrets, which extraEnv takes.
_THE_CHARTS = {
    *("host", "port", "health_port", "metrics_port", "workers", "gateway", "model_registry"),
    *("otlp_endpoint", "sampling_ratio", "drain_seconds", "grace_seconds"),
    *("store_url", "log_url", "log_synced", "segments", "surfaces", "services", "caps"),
    *("index", "milvus_url", "milvus_token"),
}
_QUANTITY = {
    "type": ["string", "number"],
    "pattern": r"^[0-9.]+([eE][0-9]+|[numkMGTPE]|[KMGTPE]i)?$",
}
_AMOUNTS = {"type": "object", "additionalProperties": _QUANTITY}
_OPEN = {"type": "object"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECTS = {"type": "array", "items": {"type": "object"}}
_SERVICE_TYPE = {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}

# What a default value does not say, by path; the first that fits counts.
_MORE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("global", _OPEN),
    ("surfaces", _OPEN),
    ("etaServices", _OPEN),
    ("targetingCaps", _OPEN),
    ("*affinity", _OPEN),
    ("*nodeSelector", _TEXTS),
    ("*annotations", _TEXTS),
    ("*labels", _TEXTS),
    ("podLabels", _TEXTS),
    ("podAnnotations", _TEXTS),
    ("*tolerations", _OBJECTS),
    ("*extraEnv", _OBJECTS),
    ("networkPolicy.enabled", {"type": "boolean"}),
    ("networkPolicy.*", _OBJECTS),
    ("image.pullSecrets", _OBJECTS),
    ("image.pullPolicy", {"enum": ["Always", "IfNotPresent", "Never"]}),
    ("*resources.requests", _AMOUNTS),
    ("*resources.limits", _AMOUNTS),
    ("*replicas", {"type": "integer", "minimum": 0}),
    ("*Replicas", {"type": "integer", "minimum": 1}),
    ("*targetCPUUtilization", {"type": "integer", "minimum": 1, "maximum": 100}),
    ("*maxUnavailable", {"type": ["integer", "string"]}),
    ("*service.type", _SERVICE_TYPE),
    ("*service.port", _PORT),
    ("*nodePort", {"type": "integer", "minimum": 0, "maximum": 32767}),
    ("*concurrency", {"type": "integer", "minimum": 1}),
    ("*appendfsync", {"enum": ["always", "everysec"]}),
    ("externalStore.url", {"type": "string", "pattern": "^(rediss?://.+)?$"}),
    ("externalMilvus.url", {"type": "string", "pattern": "^(https?://.+)?$"}),
    ("telemetry.otlpEndpoint", {"type": "string", "pattern": r"^([^:/]+:\d+)?$"}),
    ("telemetry.samplingRatio", {"type": "number", "minimum": 0, "maximum": 1}),
    ("modelRegistry.url", {"type": "string", "pattern": "^([a-z0-9]+://.+)?$"}),
    (
        "*accessModes",
        {
            "type": "array",
            "minItems": 1,
            "items": {"enum": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"]},
        },
    ),
    ("modelBundle.source", {"enum": ["image", "train", "none"]}),
    ("*Seconds", {"type": "integer", "minimum": 0}),
    ("*issuer.kind", {"enum": ["Issuer", "ClusterIssuer"]}),
    ("*size", _QUANTITY),
    ("*tmpSize", _QUANTITY),
    ("verify.l*", {"type": "number"}),
)


def schema() -> dict[str, Any]:
    """The schema of values.yaml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    made = _shape(values, "")
    made["properties"]["components"]["required"] = sorted(SETTINGS)
    for name, settings in SETTINGS.items():
        component = made["properties"]["components"]["properties"][name]
        component["properties"]["settings"] = _settings(settings)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _shape(value: Any, path: str) -> dict[str, Any]:
    for pattern, more in _MORE:
        if fnmatch(path, pattern):
            return more
    if isinstance(value, dict):
        parts = {k: _shape(v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
        return {"type": "object", "additionalProperties": False, "properties": parts}
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "string"}}
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return {"type": kinds[type(value)]}


def _settings(settings: type[ServiceSettings]) -> dict[str, Any]:
    known = dict(_fields(settings))
    return {"type": "object", "additionalProperties": False, "properties": known}


def _fields(settings: type[ServiceSettings]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in settings.model_json_schema()["properties"].items():
        if name not in _THE_CHARTS and not name.endswith("_password"):
            kept = {k: v for k, v in field.items() if k not in ("title", "default")}
            yield name, kept


if __name__ == "__main__":
    text = json.dumps(schema(), indent=1, ensure_ascii=False)
    (CHART / "values.schema.json").write_text(text + "\n")
