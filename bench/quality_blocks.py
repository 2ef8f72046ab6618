"""Blocks of the simulated city: what a query means to who asks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.common.v1 import place_pb2
from madang.search.v1 import search_pb2 as pb
from madang_pipelines.city.names import WISHES
from madang_pipelines.examples import Snapshots, dcn_examples, session_context
from madang_pipelines.features import ITEM_VIEW, USER_VIEW, FeatureBuilder, look_up, model_features
from madang_pipelines.search.evaluation import bootstrap
from madang_pipelines.search.queries import train_queries
from madang_pipelines.tables import Tables
from madang_pipelines.training import vocabulary_sizes
from madang_ranker.model import DcnConfig
from madang_ranker.train import DcnExamples, DcnTraining, predict, train
from madang_runtime.metrics import Metrics
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.stages import Stages
from madang_runtime.telemetry import start_tracing
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer, normal
from madang_search.answering import Answer
from madang_search.blocks.queries import KnownQuery, QueryBook
from madang_search.blocks.retrieving import Candidate, retrieve
from madang_search.blocks.scores import Pool, general, personal, probabilities
from madang_search.bundle import SearchBundle, Tuning
from madang_search.documents import Wanted
from madang_search.exact import ExactIndex
from madang_search.index import Query, rank
from madang_search.nearest import NearestSearcher
from madang_search.settings import QUERIES

Floats = NDArray[np.float64]
_BOTH, _DEPTH = pb.SEARCH_METHOD_UNSPECIFIED, 1000
_AGREED = 1.0
"""Bits of click entropy below which people agree on what a query means."""
_WAYS = {
    "words and meaning": (False, None),
    "and what others took": (True, None),
    "and the ranker, for every query": (True, 1.0),
    "and the ranker, by click entropy (serves)": (True, -1.0),
}
"""Whether what is known of a query counts, and the weight of who asks; -1 is the query's own."""


@dataclass(frozen=True)
class _Asked:
    """A held-out search, and what was found for it."""

    query: str
    shop: str
    category: str
    known: KnownQuery | None
    plain: Pool
    found: Pool


def blocks_table(
    tables: Tables, index: ExactIndex, encoder: Encoder, registry: ModelRegistry
) -> Iterator[str]:
    """Held-out searches: where the block and the shop are that were ordered from."""
    version = train_queries(tables, registry)
    book = QueryBook(registry.load(QUERIES, cast(str, version)))
    names = ("dense_weight", "near", "nearest", "intent_threshold")
    weight, near, nearest, intent = (float(encoder.parameters[name]) for name in names)
    bundle = SearchBundle(
        encoder, NearestSearcher(encoder, Metrics()), index, Tuning(weight, near, nearest, intent)
    )
    searches = _held_out(tables)
    asked = _retrieved(searches, tables, bundle, book)
    clicks = _clicks(tables, searches, asked)
    agreed = [bool(one.known and one.known.entropy < _AGREED) for one in asked]
    wishes = {wish for wish, _ in WISHES}
    wished = [one.query in wishes for one in asked]
    yield (
        f"| {len(asked):,} searches | first block right | MRR of the shop "
        f"| of the {sum(agreed)} that people agree on | first block of the {sum(wished)} wishes |"
    )
    yield "|---|---:|---:|---:|---:|"
    first: dict[str, Floats] = {}
    ranks: dict[str, Floats] = {}
    for name, (by_others, personalisation) in _WAYS.items():
        found = [
            _placed(one, p, by_others, personalisation)
            for one, p in zip(asked, clicks, strict=True)
        ]
        first[name], ranks[name] = np.array(found).T
        cells = (
            f"{100 * first[name].mean():.1f}",
            f"{ranks[name].mean():.3f}",
            f"{ranks[name][agreed].mean():.3f}",
            f"{100 * first[name][wished].mean():.1f}",
        )
        yield f"| {name} | {' | '.join(cells)} |"
    *_, others, always, serves = _WAYS
    for name in (others, always):
        block, shop = first[serves] - first[name], ranks[serves] - ranks[name]
        gains = (
            _gain(100 * block, 1),
            _gain(shop, 3),
            _gain(shop[agreed], 3),
            _gain(100 * block[wished], 1),
        )
        yield f"| gain of the last over “{name}” | {' | '.join(gains)} |"


def _gain(differences: Floats, digits: int) -> str:
    """With a 95 % interval."""
    mean, low, high = (f"{value:+.{digits}f}" for value in bootstrap(differences))
    return f"{mean} ({low} to {high})"


def _held_out(tables: Tables) -> pl.DataFrame:
    """Searches with the place of the session around them."""
    sessions = (
        tables.frames["sessions"].sort("time").select("user_id", "time", "latitude", "longitude")
    )
    searches = tables.frames["searches"].filter(pl.col("period") == tables.test_period).sort("time")
    return searches.join_asof(
        sessions, on="time", by="user_id", strategy="nearest", check_sortedness=False
    )


def _retrieved(
    searches: pl.DataFrame, tables: Tables, bundle: SearchBundle, book: QueryBook
) -> list[_Asked]:
    analyzer = Analyzer()
    stages = Stages(start_tracing("bench", "", 0).get_tracer("bench"), Metrics())
    kinds = dict(tables.frames["items"].select("item_id", "category_name").iter_rows())
    asked = []
    for row in searches.iter_rows(named=True):
        text = normal(row["query"])
        terms = analyzer.terms(text)
        place = place_pb2.Place(latitude=row["latitude"], longitude=row["longitude"])
        wanted = Wanted((), place)
        found = bundle.documents.search(
            Query(text, [term.text for term in terms]), wanted, _BOTH, _DEPTH, stages
        )
        ranked = rank(found, _BOTH, bundle.tuning.dense_weight, bundle.tuning.near)
        answer = Answer(bundle, text, terms, wanted, found, ranked)
        known = book.find(text, bundle)
        plain, both = (_columns(retrieve(answer, one, stages)[0]) for one in (None, known))
        kind = kinds[row["item_id"]]
        asked.append(_Asked(row["query"], row["item_id"], kind, known, plain, both))
    return asked


def _columns(candidates: Sequence[Candidate]) -> Pool:
    return Pool(
        [one.document.document_id for one in candidates],
        [one.document.category for one in candidates],
        np.array([one.relevance for one in candidates], np.float64),
    )


def _clicks(
    tables: Tables, searches: pl.DataFrame, asked: list[_Asked]
) -> list[NDArray[np.float32]]:
    """P(click) of what was found for each search, by a DCN that knows nothing of the period."""
    builder = FeatureBuilder(tables)
    snapshots = Snapshots.of(builder, tables.periods)
    shown = dcn_examples(tables, builder, snapshots, range(1, tables.test_period))
    config = DcnConfig(**vocabulary_sizes(tables))
    dcn = train(shown, config, model_features(), (USER_VIEW, ITEM_VIEW), DcnTraining())
    ids = pl.Series([one for found in asked for one in found.found.ids])
    sizes = [len(one.found.ids) for one in asked]
    n = len(ids)
    nothing = np.zeros(n, np.bool_)
    scored = DcnExamples(
        users=builder.users(tables.test_period),
        items=builder.items(tables.test_period),
        context=session_context(searches, tables),
        user_row=look_up(builder.user_rows, searches["user_id"]),
        session=np.repeat(np.arange(len(asked)), sizes),
        item_row=look_up(builder.item_rows, ids),
        clicked=nothing,
        ordered=nothing,
        hidden=nothing,
    )
    return np.split(predict(dcn, scored)[:, 0], np.cumsum(sizes)[:-1])


def _placed(
    asked: _Asked, clicks: NDArray[np.float32], by_others: bool, personalisation: float | None
) -> tuple[float, float]:
    """Whether the first block is of the kind that was ordered, and 1 / rank of the shop."""
    known = asked.known if by_others else None
    found = asked.found if by_others else asked.plain
    scores = general(found, known)
    if personalisation is not None:
        weight = personalisation
        if weight < 0:
            weight = known.personalisation if known else 1.0
        scores = scores + weight * personal(found, clicks, {})
    if not found.ids:
        return 0.0, 0.0
    chances: dict[str, float] = {}
    for category, chance in zip(found.categories, probabilities(scores).tolist(), strict=True):
        chances[category] = chances.get(category, 0.0) + chance
    right = max(chances, key=lambda one: chances[one]) == asked.category
    if asked.shop not in found.ids:
        return float(right), 0.0
    own = scores[found.ids.index(asked.shop)]
    better, alike = (scores > own).sum(), (scores == own).sum() - 1
    return float(right), 1 / (1 + better + alike / 2)
