"""How good the lists are on held-out sessions, beside simple baselines.

Our lists come from the code that serves: the same sources, fusion, filters and ONNX models.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from madang.candidate.v1 import candidate_pb2
from madang.ranker.v1 import bandit_pb2
from madang_candidate import spectral
from madang_candidate.arms import ArmFilter
from madang_candidate.content.model import no_content
from madang_candidate.lists import SegmentLists, list_key
from madang_candidate.query import Query
from madang_candidate.retrieval import Retrieval
from madang_candidate.settings import CandidateSettings
from madang_candidate.tower import TowerBundle
from madang_candidate.wiring import make_sources
from madang_pipelines.city.truth import Truth
from madang_pipelines.cohorts import segment_names, user_segments
from madang_pipelines.examples import session_context, sessions_of
from madang_pipelines.features import FeatureBuilder, look_up
from madang_pipelines.networks import choices_of
from madang_pipelines.results import Result
from madang_pipelines.segment_lists import segment_lists, upserts
from madang_pipelines.tables import Tables
from madang_pipelines.training import RANKER, TOWER
from madang_ranker.scoring import DcnScorer, ScoreRequest
from madang_ranker.surfaces import Surface, load_surfaces
from madang_runtime.changelog.table import LogTable
from madang_runtime.metrics import Metrics
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.registry import ModelFiles, ModelRegistry

Rows = NDArray[np.int64]
Progress = Callable[[float], None]
K = 10


class Lists:
    """Makes lists for held-out sessions by the serving code.

    Args:
        tables: the data.
        registry: whose champions are judged.
        sessions: how many held-out sessions, drawn by a fixed seed.
    """

    def __init__(self, tables: Tables, registry: ModelRegistry, sessions: int) -> None:
        held_out = sessions_of(tables, range(tables.test_period, tables.periods))
        drawn = np.random.default_rng(7).permutation(len(held_out))[:sessions]
        self.sessions = held_out[np.sort(drawn)]
        builder = FeatureBuilder(tables)
        self._users = builder.users(tables.test_period)
        self._items = builder.items(tables.test_period)
        self.user_rows = look_up(builder.user_rows, self.sessions["user_id"])
        self.item_rows = builder.item_rows
        self.context = session_context(self.sessions, tables)
        self.bundle = TowerBundle(_champion(registry, TOWER), threads=1, exact_below=20_000)
        self._scorer = DcnScorer(_champion(registry, RANKER), Metrics())
        self._surface = load_surfaces(None)["home"]
        segments = user_segments(tables, self.bundle, self._users)
        named = segments.select(cohort="cohort", demographic="demographic").iter_rows(named=True)
        self._segments = [segment_names(row) for row in named]
        lists = LogTable(candidate_pb2.SegmentList.FromString)
        made = upserts(segment_lists(tables, segments))
        lists.apply({list_key(m.segment, m.area): m.SerializeToString() for m in made}, True)
        settings, batches = CandidateSettings(), LogTable(bandit_pb2.BanditBatch.FromString)
        sources = make_sources(settings, SegmentLists(lists), ArmFilter(batches), no_content)
        self._retrieval = Retrieval(sources, settings.rrf_k, 10.0, threads=1)

    @property
    def surface(self) -> Surface:
        """The surface whose utility orders the lists."""
        return self._surface

    def allowed(self, s: int) -> Rows:
        """What may be shown in session s."""
        lat, lng = self._place(s)
        index = self.bundle.index
        return index.allowed(index.deliverable(lat, lng), int(self.context.ints[s, 0]))

    def _place(self, s: int) -> tuple[float, float]:
        return self.sessions["latitude"][s], self.sessions["longitude"][s]

    def ours(self, s: int, allowed: Rows) -> Rows:
        """Rows of all candidates of session s, as Recommend orders them."""
        query = self.query(s, allowed)
        rows = self._retrieval.retrieve(query, self._surface.sources).rows
        items = InputRows(self._items.ints[rows], self._items.floats[rows])
        scores = self._scorer.score(ScoreRequest(query.user, _row(self.context, s), items))
        utility = self._surface.utility(scores)
        return rows[np.argsort(-utility, kind="stable")]

    def of_cohort(self, s: int, allowed: Rows) -> Rows:
        """Rows of the list made beforehand for the user's segment."""
        return self._retrieval.retrieve(self.query(s, allowed), ["cohort"]).rows

    def query(self, s: int, allowed: Rows) -> Query:
        """What the sources are asked for session s."""
        lat, lng = self._place(s)
        user, context = _row(self._users, self.user_rows[s]), _row(self.context, s)
        return Query(
            bundle=self.bundle,
            index=self.bundle.index,
            user=user,
            context=context,
            user_vector=self.bundle.user_vectors(user, context)[0],
            recent=[],
            allowed=allowed,
            latitude=lat,
            longitude=lng,
            hour=int(context.ints[0, 0]),
            limit=self._surface.candidates,
            segments=self._segments[self.user_rows[s]],
        )

    def close(self) -> None:
        """End threads."""
        self._retrieval.close()


def _champion(registry: ModelRegistry, name: str) -> ModelFiles:
    return registry.load(name, registry.resolve(name))


def _row(rows: InputRows, i: int) -> InputRows:
    return InputRows(rows.ints[i : i + 1], rows.floats[i : i + 1])


def _order_counts(tables: Tables, lists: Lists) -> Rows:
    past = tables.frames["actions"].filter(
        (pl.col("type") == "order") & (pl.col("period") < tables.test_period)
    )
    rows = look_up(lists.item_rows, past["item_id"])
    return np.bincount(rows, minlength=len(tables.frames["items"]))


def evaluate_city(
    tables: Tables,
    truth: Truth,
    registry: ModelRegistry,
    sessions: int = 1500,
    progress: Progress = lambda _: None,
) -> list[Result]:
    """Expected clicks and orders of a feed of 10, by the simulator's truth.

    Popularity shows the most ordered shops that deliver and are open; cohort lists are made
    beforehand, as the surface "quick" shows them; the oracle orders all shops by the true utility,
    which no model can beat.
    """
    lists = Lists(tables, registry, sessions)
    counts = _order_counts(tables, lists)
    seen = 1 / np.log2(2 + np.arange(K))
    names = ("popularity", "cohort lists", "ours", "oracle")
    gains: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for s in range(len(lists.sessions)):
        allowed = lists.allowed(s)
        if len(allowed) < K:
            continue
        click, order = truth.probabilities(
            lists.user_rows[s : s + 1],
            allowed,
            lists.context.ints[s, 0],
            lists.context.floats[s].astype(np.float64),
        )
        true_utility = lists.surface.click_weight * click + lists.surface.order_weight * order
        at = {
            "popularity": np.argsort(-counts[allowed], kind="stable")[:K],
            "cohort lists": np.searchsorted(allowed, lists.of_cohort(s, allowed)[:K]),
            "ours": np.searchsorted(allowed, lists.ours(s, allowed)[:K]),
            "oracle": np.argsort(-true_utility, kind="stable")[:K],
        }
        for name, shown in at.items():
            gain = click[shown] @ seen[: len(shown)], order[shown] @ seen[: len(shown)]
            gains[name].append((float(gain[0]), float(gain[1])))
        progress((s + 1) / len(lists.sessions))
    lists.close()
    best = float(np.mean([order for _, order in gains["oracle"]]))
    return [
        Result(
            name,
            {
                "clicks a feed": _mean([c for c, _ in g]),
                "orders a feed": _mean([o for _, o in g]),
                "of the oracle": _mean([o / best for _, o in g]),
            },
        )
        for name, g in gains.items()
    ]


def evaluate_visits(
    tables: Tables,
    registry: ModelRegistry,
    sessions: int = 1500,
    progress: Progress = lambda _: None,
) -> list[Result]:
    """What held-out users chose: all later items (distinct) and, where it is known when, the very
    next, for whose moment and place lists are made.

    Popularity shows the most chosen items; repeats the user's own most chosen ones, then popular
    ones. Where nobody chooses an item again, no list has what its user chose before.
    """
    lists = Lists(tables, registry, sessions)
    counts = _order_counts(tables, lists)
    popular = np.argsort(-counts, kind="stable")
    visits = tables.frames["actions"].with_columns(
        item=pl.Series(look_up(lists.item_rows, tables.frames["actions"]["item_id"]))
    )
    past = visits.filter(pl.col("period") < tables.test_period)
    own = _by_user(
        past.group_by("user_id", "item").len().sort("len", "item", descending=[True, False])
    )
    later = visits.filter(pl.col("period") == tables.test_period).sort("time", maintain_order=True)
    repeats = len(later.join(past, ["user_id", "item"], how="semi")) > 0
    wanted = _by_user(later.unique(["user_id", "item"], maintain_order=True))
    gains: dict[str, list[dict[str, float]]] = {}
    for s, user in enumerate(lists.sessions["user_id"].to_list()):
        mine, allowed = own[user], lists.allowed(s)
        shown = {"popularity": popular[: K + len(mine)]}
        if repeats:
            shown["repeats"] = np.concatenate([mine[:K], shown["popularity"]])
        shown |= {"cohort lists": lists.of_cohort(s, allowed), "ours": lists.ours(s, allowed)}
        for name, rows in shown.items():
            kept = rows if repeats else rows[~np.isin(rows, mine)]
            first = kept[np.sort(np.unique(kept, return_index=True)[1])][:K]
            found = ranking_metrics(first, wanted[user], ordered=tables.ordered)
            gains.setdefault(name, []).append(found)
        progress((s + 1) / len(lists.sessions))
    lists.close()
    return [
        Result(name, {m: _mean([of[m] for of in own]) for m in own[0]})
        for name, own in gains.items()
    ]


def evaluate_vectors(
    tables: Tables, registry: ModelRegistry, k: int = 20
) -> dict[str, tuple[float, float]]:
    """Recall@k and NDCG@k of the k largest dot products, of all users and what they had not chosen
    before: as papers on retrieval have it."""
    builder = FeatureBuilder(tables)
    bundle = TowerBundle(_champion(registry, TOWER), threads=2, exact_below=0)
    users = builder.users(tables.test_period)
    context = InputRows(
        np.zeros((len(users.ints), 3), np.int64), np.zeros((len(users.ints), 2), np.float32)
    )
    recall, ndcg = spectral.judge(
        bundle.user_vectors(users, context),
        bundle.index.trained.vectors,
        choices_of(tables, builder),
        choices_of(tables, builder, held_out=True),
        k=k,
    )
    return {f"Recall@{k}": _mean(recall.tolist()), f"NDCG@{k}": _mean(ndcg.tolist())}


def _by_user(frame: pl.DataFrame) -> dict[str, Rows]:
    grouped = frame.group_by("user_id", maintain_order=True).agg("item")
    return {user: np.array(items) for user, items in grouped.select("user_id", "item").iter_rows()}


def ranking_metrics(shown: Rows, wanted: Rows, *, ordered: bool) -> dict[str, float]:
    """Recall and NDCG of all that is wanted; where they are in order, also whether the first is
    shown, and its NDCG."""
    discount = 1 / np.log2(2 + np.arange(K))

    def gain(hits: NDArray[np.bool_]) -> float:
        return float((hits * discount[: len(hits)]).sum())

    first, hits = shown == wanted[0], np.isin(shown, wanted)
    next_one = {f"next@{K}": float(first.any()), f"next NDCG@{K}": gain(first)}
    ideal = float(discount[: min(len(wanted), K)].sum())
    return (next_one if ordered else {}) | {
        f"Recall@{K}": float(hits.sum() / len(wanted)),
        f"NDCG@{K}": gain(hits) / ideal,
    }


def _mean(values: list[float]) -> tuple[float, float]:
    array = np.array(values)
    return float(array.mean()), float(1.96 * array.std() / np.sqrt(max(len(array), 1)))
