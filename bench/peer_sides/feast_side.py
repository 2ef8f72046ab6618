"""Feast's own servers over a Valkey: `feast_side.py grpc|http PORT STORE FOLDER`. Runs in Feast's
environment; writes the bytes of the request that the bench sends to FOLDER/request.bin."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.infra.contrib.grpc_server import get_grpc_server
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesRequest
from feast.types import Float32

ENTITIES, FEATURES = 200, 20


def store(folder: Path, address: str) -> FeatureStore:
    """A repository with one view, filled."""
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "redis", "connection_string": address},
        entity_key_serialization_version=3,
    )
    made = FeatureStore(config=config)
    thing = Entity(name="thing", join_keys=["thing"])
    names = [f"f{i:02d}" for i in range(FEATURES)]
    source = FileSource(path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="bench",
        entities=[thing],
        ttl=timedelta(days=1),
        schema=[Field(name=name, dtype=Float32) for name in names],
        source=source,
    )
    values = np.random.default_rng(0).normal(size=(ENTITIES, FEATURES)).astype(np.float32)
    rows = pd.DataFrame(values, columns=names)
    rows["thing"] = ids()
    rows["event_timestamp"] = datetime.now(UTC)
    rows.to_parquet(folder / "none.parquet")
    made.apply([thing, view])
    made.write_to_online_store("bench", rows)
    return made


def ids() -> list[str]:
    """Whose features are asked for."""
    return [f"entity-{i:06d}" for i in range(ENTITIES)]


def main() -> None:
    """Serve."""
    kind, port, address, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    made = store(folder, address)
    wanted = [f"bench:f{i:02d}" for i in range(FEATURES)]
    if kind == "http":
        asked = json.dumps({"features": wanted, "entities": {"thing": ids()}})
        (folder / "request.bin").write_text(asked)
        made.serve("127.0.0.1", port)
        return
    request = GetOnlineFeaturesRequest()
    request.features.val.extend(wanted)
    for one in ids():
        request.entities["thing"].val.add(string_val=one)
    (folder / "request.bin").write_bytes(request.SerializeToString())
    server = get_grpc_server(f"127.0.0.1:{port}", made, 8, 3600)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
