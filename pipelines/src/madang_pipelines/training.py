"""Trains both models on a data set and registers them."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import h3
import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.common.v1 import place_pb2
from madang_candidate import spectral
from madang_candidate.ad_train import AdTraining, train_ads
from madang_candidate.ann import build_ann
from madang_candidate.cells import delivery_cells
from madang_candidate.content.towers import ContentTraining
from madang_candidate.index import pack_columns
from madang_candidate.model import TowerConfig
from madang_candidate.popularity import AREA_RESOLUTION, count_popularity, learn_time_slots
from madang_candidate.tower import TowerBundle
from madang_candidate.train import (
    TowerTraining,
    export_items,
    export_users,
    item_vectors,
)
from madang_pipelines import networks
from madang_pipelines.cohorts import user_segments
from madang_pipelines.eta.training import EtaPlan
from madang_pipelines.eta.training import quick as quick_arrivals
from madang_pipelines.examples import Snapshots, ad_examples, dcn_examples, tower_examples
from madang_pipelines.features import (
    ITEM_VIEW,
    USER_VIEW,
    FeatureBuilder,
    look_up,
    model_features,
)
from madang_pipelines.search.training import EncoderTraining
from madang_pipelines.segment_lists import segment_lists
from madang_pipelines.tables import Tables
from madang_pipelines.targeting.training import TRAINING as TARGETING
from madang_ranker.fallback import pack_fallback
from madang_ranker.model import DcnConfig
from madang_ranker.train import DcnExamples, DcnTraining, export
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_search.keywords.sequence import SequenceTraining
from madang_targeting.trees import TreeTraining

TOWER, RANKER = "two-tower", "ranker"
_DELIVERY_RESOLUTION = 8
_FALLBACK_ITEMS = 60
_AD_DIMENSION = 32

Progress = Callable[[str, float], None]
Array = NDArray[Any]


@dataclass(frozen=True)
class Recipe:
    """How long to train, and how big; `dcn_sizes` are fields of DcnConfig, and `arrivals` changes
    the plan of each kind of service."""

    towers: TowerTraining = field(default_factory=TowerTraining)
    ads: AdTraining = field(default_factory=AdTraining)
    dcn: DcnTraining = field(default_factory=DcnTraining)
    tower_dimension: int = 64
    dcn_sizes: dict[str, Any] = field(default_factory=dict)
    arrivals: Callable[[EtaPlan], EtaPlan] = lambda plan: plan
    targeting: TreeTraining = TARGETING
    encoder: EncoderTraining = field(default_factory=EncoderTraining)
    content: ContentTraining = field(default_factory=ContentTraining)
    keywords: SequenceTraining = field(default_factory=SequenceTraining)


@dataclass(frozen=True)
class Trained:
    """What a training run made.

    Attributes:
        versions: the registered version of each model.
        users, items: the rows that the feature store should serve, one a user or item.
        user_ids, item_ids: whose rows they are.
        segments: the rows of the view user_segments.
        campaigns: item_id, bid and daily_budget of the ads that have either.
        lists: the lists of segments, as `segment_lists` makes them.
        chosen: what retrieves by vectors and what ranks, in words.
    """

    versions: dict[str, str]
    users: InputRows
    items: InputRows
    user_ids: list[str]
    item_ids: list[str]
    segments: pl.DataFrame
    campaigns: pl.DataFrame
    lists: pl.DataFrame
    chosen: dict[str, str]


def train_all(
    tables: Tables,
    registry: ModelRegistry,
    recipe: Recipe = Recipe(),
    progress: Progress = lambda step, share: None,
    segments_before: pl.DataFrame | None = None,
) -> Trained:
    """Train on all periods but the last, and make the new versions champions.

    `progress` is called with a step's name and the share done; `segments_before` are the segments
    of the training before, whose numbers cohorts keep.
    """
    _hush_exporter()
    progress("features", 0.0)
    builder = FeatureBuilder(tables)
    snapshots = Snapshots.of(builder, tables.periods)
    impressions = dcn_examples(tables, builder, snapshots, range(1, tables.test_period))
    features = model_features()
    sizes = vocabulary_sizes(tables)
    progress("features", 1.0)

    positives = tower_examples(impressions, snapshots, tables.test_period - 1)
    tower_config = TowerConfig(**sizes, dimension=recipe.tower_dimension)
    dcn_config = DcnConfig(**sizes, **recipe.dcn_sizes)
    if not tables.ordered and spectral.fits(sizes["users"] - 1, sizes["items"] - 1):
        made = networks.in_closed_form(tables, builder, progress)
    else:
        plan = networks.Plan(tower_config, dcn_config, recipe.towers, recipe.dcn)
        made = networks.trained(plan, positives, impressions, tables.real_impressions, progress)

    users, items = builder.users(tables.test_period), builder.items(tables.test_period)
    ad_config = TowerConfig(**sizes, dimension=_AD_DIMENSION, small=_AD_DIMENSION)
    ad_files, ad_columns = _ads(tables, impressions, snapshots, items, ad_config, recipe, progress)

    progress("registering", 0.0)
    vectors = item_vectors(made.towers.item, items)
    popular, slots = _popularity(tables, builder)
    columns = _item_columns(tables, items, vectors) | ad_columns
    shared = {
        "utc_offset_hours": tables.clock.utc_offset_hours,
        "data": tables.name,
        **made.chosen,
        **made.sizes,
    }
    tower_version = registry.register(
        TOWER,
        {
            "model.onnx": export_users(made.towers.user, positives.users, positives.context),
            "items.onnx": export_items(made.towers.item, positives.items),
            "items.npz": pack_columns(columns),
            "ann.faiss": build_ann(vectors),
            "popular.npz": pack_columns(popular),
            **ad_files,
        },
        features=features,
        parameters=shared
        | {
            "user_view": USER_VIEW,
            "item_view": ITEM_VIEW,
            "h3_resolution": _DELIVERY_RESOLUTION,
            "time_slots": slots,
        },
    )
    progress("registering", 0.5)
    ranker_version = registry.register(
        RANKER,
        {
            "model.onnx": export(made.ranker, impressions),
            "fallback.npz": _fallback(tables, builder, columns),
        },
        features=features,
        parameters=shared | {"user_view": USER_VIEW, "item_view": ITEM_VIEW},
    )
    versions = {TOWER: tower_version, RANKER: ranker_version}
    for name, version in versions.items():
        registry.set_alias(name, CHAMPION, version)
    bundle = TowerBundle(registry.load(TOWER, tower_version), threads=1, exact_below=0)
    segments = user_segments(tables, bundle, users, segments_before)
    lists = segment_lists(tables, segments)
    progress("registering", 1.0)
    frames = tables.frames
    return Trained(
        versions,
        users,
        items,
        frames["users"]["user_id"].to_list(),
        frames["items"]["item_id"].to_list(),
        segments,
        frames["items"]
        .select("item_id", "bid", "daily_budget")
        .filter((pl.col("bid") > 0) | (pl.col("daily_budget") > 0)),
        lists,
        made.chosen,
    )


def _ads(
    tables: Tables,
    impressions: DcnExamples,
    snapshots: Snapshots,
    items: InputRows,
    config: TowerConfig,
    recipe: Recipe,
    progress: Progress,
) -> tuple[dict[str, bytes], dict[str, Array]]:
    """The files of the ads' networks and the columns of their vectors; none where nobody was shown
    ads."""
    rows = np.flatnonzero(tables.frames["items"]["kind"].to_numpy() == place_pb2.ITEM_KIND_AD)
    if not len(rows) or not tables.real_impressions:
        return {}, {}
    examples = ad_examples(impressions, snapshots, tables.test_period - 1)
    trained = train_ads(
        examples, config, model_features(), networks.VIEWS, recipe.ads, lambda s: progress("ads", s)
    )
    vectors = item_vectors(trained.ad, InputRows(items.ints[rows], items.floats[rows]))
    files = {
        "ad_query.onnx": export_users(trained.query, examples.users, examples.context),
        "ads.onnx": export_items(trained.ad, examples.items),
    }
    return files, {"ad_rows": rows, "ad_vectors": vectors}


def vocabulary_sizes(tables: Tables) -> dict[str, Any]:
    """How many codes of each kind a model must know, as the configurations name them."""
    return {
        "users": len(tables.frames["users"]) + 1,
        "items": len(tables.frames["items"]) + 1,
        "categories": _codes(tables, items="category"),
        "districts": _codes(tables, items="district", users="home_district"),
    }


def _codes(tables: Tables, **columns: str) -> int:
    """The vocabulary size of a code, 0 included, from its columns by table."""
    highest = [tables.frames[table][column].to_numpy().max() for table, column in columns.items()]
    return int(max(highest)) + 1


def _past_orders(tables: Tables) -> pl.DataFrame:
    past = tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < tables.test_period)
    )
    return past.join(tables.frames["items"].select("item_id", "latitude", "longitude"), "item_id")


def _popularity(tables: Tables, builder: FeatureBuilder) -> tuple[dict[str, Array], list[int]]:
    orders = _past_orders(tables)
    rows = look_up(builder.item_rows, orders["item_id"])
    places = orders.select("latitude", "longitude").to_numpy()
    hours = tables.clock.local_hours(orders["time"].to_numpy(), places[:, 1]) % 24
    slots = learn_time_slots(rows, hours, len(tables.frames["items"]))
    weight = np.ones(len(rows), np.float32)
    return count_popularity(rows, places, hours, weight, slots), slots


def _item_columns(
    tables: Tables,
    items: InputRows,
    vectors: Array,
) -> dict[str, Array]:
    frame = tables.frames["items"]
    places = frame.select("latitude", "longitude").to_numpy()
    return {
        "ids": np.array([i.encode() for i in frame["item_id"].to_list()]),
        "codes": items.ints[:, 0],
        "kinds": frame["kind"].to_numpy().astype(np.uint8),
        "vectors": vectors,
        "open_hours": frame["open_hours"].to_numpy().astype(np.uint32),
        **delivery_cells(places, frame["radius_km"].to_numpy(), _DELIVERY_RESOLUTION),
    }


def _fallback(
    tables: Tables,
    builder: FeatureBuilder,
    columns: dict[str, Array],
) -> bytes:
    """The most ordered shops of each cell that shops deliver to, or of each area and in all."""
    orders = _past_orders(tables)
    n = len(tables.frames["items"])
    count = np.bincount(look_up(builder.item_rows, orders["item_id"]), minlength=n)
    count[tables.frames["items"]["kind"].to_numpy() != 1] = -1
    ids = [i.decode() for i in columns["ids"].tolist()]

    def best(rows: Array) -> list[str]:
        found = rows[np.argsort(-count[rows], kind="stable")]
        return [ids[r] for r in found[:_FALLBACK_ITEMS].tolist() if count[r] >= 0]

    if len(columns["cells"]):
        starts = columns["cell_starts"]
        lists = {
            int(cell): best(columns["cell_items"][starts[c] : starts[c + 1]])
            for c, cell in enumerate(columns["cells"].tolist())
        }
        return pack_fallback(lists, _DELIVERY_RESOLUTION)
    places = tables.frames["items"].select("latitude", "longitude").to_numpy()
    members: dict[int, list[int]] = {0: list(range(n))}
    for row, (lat, lng) in enumerate(places.tolist()):
        cell = h3.str_to_int(h3.latlng_to_cell(lat, lng, AREA_RESOLUTION))
        members.setdefault(cell, []).append(row)
    lists = {cell: best(np.array(rows)) for cell, rows in members.items()}
    return pack_fallback(lists, AREA_RESOLUTION)


def _hush_exporter() -> None:
    """The ONNX exporter warns of what it can't know to be meant, such as no torchvision."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|copyreg|onnxscript)\b")


def quick(recipe: Recipe = Recipe()) -> Recipe:
    """A recipe for tests: one short epoch each."""
    return replace(
        recipe,
        towers=TowerTraining(epochs=1, batch=256, steps=1, uniform_negatives=128),
        ads=AdTraining(epochs=1, batch=512),
        dcn=DcnTraining(epochs=1, batch=1024, steps=1),
        dcn_sizes={"item_dimension": 16, "dimension": 8, "cross_layers": 2, "hidden": (64, 32)},
        arrivals=quick_arrivals,
        targeting=replace(recipe.targeting, rounds=25),
        encoder=EncoderTraining(most=160),
    )
