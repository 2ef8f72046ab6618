"""What someone's users chose as canonical tables, and the models that learn from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from madang_candidate.train import TowerTraining
from madang_pipelines.evaluation import evaluate_vectors, evaluate_visits
from madang_pipelines.imports.importing import Imported
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.report import Report, Score
from madang_pipelines.tables import Rejected, Tables
from madang_pipelines.training import Recipe, Trained, train_all
from madang_pipelines.visits import tables_of_visits
from madang_ranker.train import DcnTraining
from madang_runtime.models.context import Clock
from madang_runtime.models.registry import ModelRegistry

Progress = Callable[[str, float], None]
_LEAST = {"interactions": 500, "users": 20, "items": 20}
_LEAST_SESSIONS = 100
_HELD_OUT = 0.2
_PLACE = ("latitude", "longitude")
_ALWAYS_OPEN = (1 << 24) - 1
_SHOP = 1

RECIPE = Recipe(
    towers=TowerTraining(weight_decay=1e-3, temperature=0.1),
    dcn=DcnTraining(epochs=3, shrink_by_rows=150.0),
)
"""How choices are learned from, many or few; ADR 26 says why."""


@dataclass(frozen=True)
class VisitPlan:
    """How to train, and by how many users to judge."""

    recipe: Recipe = RECIPE
    judged: int = 2000


def train_visits(
    name: str,
    tables: Mapping[str, Imported],
    utc_offset_hours: float | None,
    registry: ModelRegistry,
    plan: VisitPlan = VisitPlan(),
    progress: Progress = lambda step, share: None,
) -> tuple[Report, Trained]:
    """Train on interactions, with items where they are mapped, and make the models champions.

    Returns:
        what they are worth, and what the mesh must have beside them.

    Raises:
        MappingError: there are too few interactions, users or items.
    """
    data = visit_tables(name, tables, utc_offset_hours)
    trained = train_all(data, registry, plan.recipe, progress)
    results = evaluate_visits(data, registry, plan.judged, lambda s: progress("judging", s))
    scores = {one.name: {m: Score(*value) for m, value in one.metrics.items()} for one in results}
    said = f"What {plan.judged:,} users chose later, at most, each after the last that was learned."
    if not data.ordered:
        found = evaluate_vectors(data, registry)
        scores["by vectors alone"] = {m: Score(*value) for m, value in found.items()}
        said += " By vectors alone: all users."
    report = Report(
        "svc-candidate and svc-ranker",
        name,
        trained.versions,
        said,
        scores,
        trained.chosen,
        quality=data.quality,
    )
    return report, trained


def visit_tables(
    name: str, tables: Mapping[str, Imported], utc_offset_hours: float | None = None
) -> Tables:
    """Interactions, and items where they are mapped, as canonical tables.

    An item that the items lack, or that has no place where others have one, is set aside with its
    interactions. The given test part is held out, else the valid part, else the last fifth of each
    user's.

    Raises:
        MappingError: there are too few interactions, users or items.
    """
    frame = tables["interactions"].frame
    items = _items(frame, tables.get("items"))
    rows = pl.DataFrame({"item": items["item_id"]}).with_row_index("at")
    known = frame.join(rows, "item", how="left", maintain_order="left")
    unknown = Rejected("interactions", len(known))
    for at in known["at"].is_null().arg_true().to_list():
        unknown.reject(at + 1, "item is not known, or has no place")
    time = pl.col("time").fill_null(0) if "time" in known.columns else pl.lit(0, pl.Int64())
    visits = known.drop_nulls("at").select(
        "part", user_id="user", item=pl.col("at").cast(pl.Int64), time=time
    )
    train, test = _split(visits.sort("time", maintain_order=True))
    for what, n in (
        ("interactions", len(train)),
        ("users", train["user_id"].n_unique()),
        ("items", train["item"].n_unique()),
    ):
        if n < _LEAST[what]:
            raise MappingError(
                f"interactions: only {n} {what} to learn from; at least {_LEAST[what]} are needed"
            )
    quality = [rejected for table in tables.values() for rejected in table.quality]
    clock = Clock(utc_offset_hours)
    ordered = "time" in known.columns
    if test.is_empty():
        raise MappingError(
            "interactions: nothing is left to judge by; users need five each, or map a test part"
        )
    made = tables_of_visits(name, train, test, items, [*quality, unknown], clock, ordered=ordered)
    if (n := len(made.frames["impressions"])) < _LEAST_SESSIONS:
        raise MappingError(
            f"interactions: only {n} have enough of the same user before them to learn from; at "
            f"least {_LEAST_SESSIONS} are needed"
        )
    return made


def _split(visits: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is learned from and what is held out, in time order."""
    for part in ("test", "valid"):
        if (held := visits["part"] == part).any():
            return visits.filter(~held).drop("part"), visits.filter(held).drop("part")
    after = pl.int_range(pl.len()).over("user_id") >= pl.len().over("user_id") * (1 - _HELD_OUT)
    held = visits.select(after).to_series()
    return visits.filter(~held).drop("part"), visits.filter(held).drop("part")


def _items(visits: pl.DataFrame, table: Imported | None) -> pl.DataFrame:
    """The catalogue, as the canonical table has it."""
    if table is None:
        known = visits.select(pl.col("item").unique(maintain_order=True))
    else:
        placed = [column for column in _PLACE if table.has(column)]
        known = table.frame.drop_nulls(placed)

    def column(name: str, otherwise: pl.Expr) -> pl.Expr:
        return pl.col(name).fill_null(otherwise) if name in known.columns else otherwise

    none = pl.lit("", pl.String())
    category = known.with_columns(category=column("category", none)).select("category")
    codes = category.filter(pl.col("category") != "").unique().sort("category")
    codes = codes.with_row_index("code", offset=1)
    code = category.join(codes, "category", how="left", maintain_order="left")["code"]
    label = column("name", pl.col("item"))
    return known.select(
        item_id="item",
        kind=_SHOP,
        name=label,
        name_en=label,
        category=code.fill_null(0),
        category_name=category["category"],
        district=0,
        price=column("price", pl.lit(None, pl.Float64())),
        latitude=column("latitude", pl.lit(0.0)),
        longitude=column("longitude", pl.lit(0.0)),
        open_hours=_ALWAYS_OPEN,
        radius_km=0.0,
        shop_id=none,
        bid=0.0,
        daily_budget=0.0,
        menu=pl.lit([], pl.List(pl.String())),
    )
