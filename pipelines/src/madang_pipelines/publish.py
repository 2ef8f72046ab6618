"""Keeps feature rows and lists as Parquet and publishes them to a mesh."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc
import numpy as np
import polars as pl

from madang.candidate.v1 import candidate_pb2, candidate_pb2_grpc
from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2 as pb
from madang.feature.v1 import feature_store_pb2_grpc
from madang.search.v1 import search_pb2, search_pb2_grpc
from madang_featurestore.yaml_views import load_view
from madang_pipelines.features import (
    ITEM_VIEW,
    SEGMENT_VIEW,
    USER_VIEW,
    load_views,
    model_features,
)
from madang_pipelines.search.documents import upserts as document_upserts
from madang_pipelines.segment_lists import upserts
from madang_pipelines.sources.feast import as_yaml
from madang_runtime.columns import block
from madang_runtime.models.inputs import InputRows, columns_of, feature_refs
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_targeting.audience import AUDIENCE

if TYPE_CHECKING:  # what trains takes seconds to import
    from madang_pipelines.training import Trained

Answer = TypeVar("Answer")

_ROWS_A_MESSAGE, _LISTS_A_MESSAGE, _CAMPAIGNS_A_MESSAGE = 2000, 500, 1000
_DOCUMENTS_A_MESSAGE = 200
_LISTS, _CAMPAIGNS = "segment_lists.parquet", "campaigns.parquet"
DOCUMENTS = "documents.parquet"
_OWN = "views"
_NEEDED = {AUDIENCE, ENCODER}
"""Models of which others need a version, their parameter of that name."""
_MICROS = 1_000_000
_KINDS: tuple[tuple[str, type[np.generic]], ...] = (("FLOAT32", np.float32), ("INT64", np.int64))


def save_views(views: Mapping[str, pl.DataFrame], folder: Path) -> None:
    """Write rows of views, by name: `entity_id` and a column a feature."""
    folder.mkdir(parents=True, exist_ok=True)
    for view, rows in views.items():
        rows.write_parquet(folder / f"{view}.parquet")


def save_own_views(views: Sequence[pb.FeatureView], folder: Path) -> None:
    """Write the definitions of views that someone's own data made."""
    (folder / _OWN).mkdir(parents=True, exist_ok=True)
    for view in views:
        (folder / _OWN / f"{view.name}.yaml").write_text("\n".join(as_yaml(view)) + "\n", "utf-8")


def own_views(folder: Path) -> dict[str, pb.FeatureView]:
    """The definitions that `save_own_views` wrote, by name."""
    paths = sorted((folder / _OWN).glob("*.yaml"))
    return {path.stem: load_view(path) for path in paths}


def saved_segments(folder: Path) -> pl.DataFrame | None:
    """The segments that an earlier training saved, None if there was none."""
    path = folder / f"{SEGMENT_VIEW}.parquet"
    return pl.read_parquet(path) if path.exists() else None


def save_features(trained: "Trained", folder: Path) -> None:
    """Write one Parquet file a view: `entity_id` and a column a feature, null where unknown; one of
    lists, in which those that an earlier training saved and this one lacks are empty; and one of
    campaigns."""
    folder.mkdir(parents=True, exist_ok=True)
    for view, ids, rows in (
        (USER_VIEW, trained.user_ids, trained.users),
        (ITEM_VIEW, trained.item_ids, trained.items),
    ):
        _frame(view, ids, rows).write_parquet(folder / f"{view}.parquet")
    trained.segments.write_parquet(folder / f"{SEGMENT_VIEW}.parquet")
    with_gone(trained.lists, folder / _LISTS).write_parquet(folder / _LISTS)
    with_ended(trained.campaigns, folder / _CAMPAIGNS).write_parquet(folder / _CAMPAIGNS)


def with_gone(lists: pl.DataFrame, before: Path) -> pl.DataFrame:
    """Lists, and as empty ones those that a file has beside them: to be taken out."""
    if not before.exists():
        return lists
    gone = pl.read_parquet(before).join(lists, ["segment", "area"], how="anti")
    return pl.concat([lists, gone.with_columns(pl.col("item_ids", "scores").list.head(0))])


def with_ended(campaigns: pl.DataFrame, before: Path) -> pl.DataFrame:
    """Campaigns, and as ended ones those that a file has beside them."""
    now = campaigns.with_columns(ended=pl.lit(False))
    if not before.exists():
        return now
    gone = pl.read_parquet(before).join(campaigns, "item_id", how="anti")
    return pl.concat([now, gone.with_columns(ended=pl.lit(True))])


def _frame(view: str, ids: list[str], rows: InputRows) -> pl.DataFrame:
    columns: dict[str, object] = {"entity_id": ids}
    for dtype, matrix in (("INT64", rows.ints), ("FLOAT32", rows.floats)):
        for name, c in columns_of(model_features(), view, dtype).items():
            columns[name] = matrix[:, c.start] if c.stop - c.start == 1 else matrix[:, c]
    return pl.DataFrame(columns).fill_nan(None)


def copy_champions(source: ModelRegistry, target: ModelRegistry, *, replace: bool) -> list[str]:
    """Copy every champion to another registry and make it champion there.

    Args:
        replace: also where the target has a champion already, such as one that a user trained.

    Returns:
        the target's champion of each model, as "model version", that is not the source's.
    """
    others = []
    for name in source.names():
        if not source.has_alias(name):
            continue
        version = source.resolve(name)
        if replace or not target.has_alias(name):
            parameters = source.manifest(name, version).parameters
            for other in _NEEDED & parameters.keys():
                target.copy(source, other, parameters[other])
            target.copy(source, name, version)
            target.set_alias(name, CHAMPION, version)
        elif (there := target.resolve(name)) != version:
            others.append(f"{name} {there}")
    return others


def publish(
    folder: Path,
    gateway: str,
    progress: Callable[[float], None] = lambda _: None,
    patience: float = 60.0,
) -> int:
    """Apply all views and write the Parquet files' rows, lists, campaigns and documents through the
    gateway.

    Args:
        folder: of the Parquet files.
        gateway: host:port.
        progress: told the share of rows written.
        patience: seconds to wait for a service that has not started.

    Returns:
        the number of feature rows written.
    """
    with grpc.insecure_channel(gateway) as channel:
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        views = load_views() | own_views(folder)
        for definition in views.values():
            request = pb.ApplyFeatureViewRequest(view=definition)
            _patiently(partial(store.ApplyFeatureView, request, timeout=10), patience)
        candidates = candidate_pb2_grpc.CandidateServiceStub(channel)
        for part in _saved(folder / _LISTS).iter_slices(_LISTS_A_MESSAGE):
            lists = candidate_pb2.UpsertListsRequest(lists=upserts(part))
            _patiently(partial(candidates.UpsertLists, lists, timeout=60), patience)
        for part in saved_campaigns(folder).iter_slices(_CAMPAIGNS_A_MESSAGE):
            campaigns = candidate_pb2.UpsertCampaignsRequest(campaigns=campaign_upserts(part))
            _patiently(partial(candidates.UpsertCampaigns, campaigns, timeout=60), patience)
        files = {view: folder / f"{view}.parquet" for view in views}
        frames = {view: pl.read_parquet(path) for view, path in files.items() if path.exists()}
        total, written = sum(map(len, frames.values())), 0
        for view, frame in frames.items():
            answer = store.StreamWriteFeatures(_messages(views[view], frame), timeout=300)
            written += answer.rows_written
            progress(written / max(total, 1))
        # Last: svc-search takes long to start, and others wait for features.
        if (folder / DOCUMENTS).exists():
            try:
                publish_documents(pl.read_parquet(folder / DOCUMENTS), channel, patience)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:  # a mesh without svc-search
                    raise
    return written


def apply_views(views: Sequence[pb.FeatureView], gateway: str) -> int:
    """Apply views through the gateway, one after the other.

    Returns:
        how many are new or changed.

    Raises:
        grpc.RpcError: the feature store refuses one; those before it are applied.
    """
    with grpc.insecure_channel(gateway) as channel:
        store = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
        requests = [pb.ApplyFeatureViewRequest(view=view) for view in views]
        return sum(store.ApplyFeatureView(one, timeout=10).changed for one in requests)


def publish_documents(documents: pl.DataFrame, channel: grpc.Channel, patience: float) -> None:
    """Put rows of `save_documents` in, take out those that are gone, and wait until it is seen."""
    search, token = search_pb2_grpc.SearchServiceStub(channel), ""
    for part in documents.filter(~pl.col("gone")).iter_slices(_DOCUMENTS_A_MESSAGE):
        put = search_pb2.UpsertDocumentsRequest(documents=document_upserts(part))
        written = _patiently(partial(search.UpsertDocuments, put, timeout=60), patience)
        token = written.freshness_token
    for part in documents.filter(pl.col("gone")).iter_slices(_DOCUMENTS_A_MESSAGE):
        out = search_pb2.DeleteDocumentsRequest(document_ids=part["document_id"].to_list())
        token = _patiently(
            partial(search.DeleteDocuments, out, timeout=60), patience
        ).freshness_token
    seen = search_pb2.SearchRequest(query="?", page_size=1, freshness_token=token)
    _patiently(partial(search.Search, seen, timeout=60), patience)


def saved_campaigns(folder: Path) -> pl.DataFrame:
    """The campaigns that a training saved; none when it was of a version without them."""
    return _saved(folder / _CAMPAIGNS)


def _saved(path: Path) -> pl.DataFrame:
    """What a training saved; nothing where it had none."""
    return pl.read_parquet(path) if path.exists() else pl.DataFrame()


def campaign_upserts(campaigns: pl.DataFrame) -> list[candidate_pb2.Campaign]:
    """Rows of item_id, bid, daily_budget and ended as UpsertCampaigns takes them."""
    return [
        candidate_pb2.Campaign(
            item_id=item_id,
            bid_micros=round(bid * _MICROS),
            daily_budget_micros=round(budget * _MICROS),
            ended=ended,
        )
        for item_id, bid, budget, ended in campaigns.iter_rows()
    ]


def _patiently(call: Callable[[], Answer], patience: float) -> Answer:
    """Call until the gateway, and the service behind it, have started."""
    until = time.monotonic() + patience
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                raise
            time.sleep(0.2)


def _messages(view: pb.FeatureView, frame: pl.DataFrame) -> Iterator[pb.StreamWriteFeaturesRequest]:
    for part in frame.iter_slices(_ROWS_A_MESSAGE):
        ids = part["entity_id"].to_list()
        write = pb.WriteFeaturesRequest(
            view=view.name, entity_ids=ids, blocks=feature_blocks(view, part)
        )
        yield pb.StreamWriteFeaturesRequest(write=write)


def feature_blocks(
    view: pb.FeatureView, rows: pl.DataFrame, prefix: str = ""
) -> list[tensor_pb2.FeatureBlock]:
    """Rows of a view, a column a feature, as blocks; null where there is no value."""
    features, blocks = feature_refs(view), []
    for dtype, kind in _KINDS:
        columns = columns_of(features, view.name, dtype)
        if not columns:
            continue
        cells = [
            np.nan_to_num(rows[name].to_numpy()).reshape(len(rows), -1).astype(kind)
            for name in columns
        ]
        absent = np.stack([rows[name].is_null().to_numpy() for name in columns], axis=1)
        statuses = np.where(
            absent, tensor_pb2.FEATURE_STATUS_NULL, tensor_pb2.FEATURE_STATUS_PRESENT
        ).astype(np.uint8)
        blocks.append(
            block(
                [prefix + name for name in columns],
                np.concatenate(cells, axis=1),
                dims=[c.stop - c.start for c in columns.values()],
                statuses=statuses.tobytes(),
            )
        )
    return blocks
