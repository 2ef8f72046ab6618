"""Which service learns from which tables of a mapping."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from madang.feature.v1 import feature_store_pb2
from madang_pipelines.imports.importing import Imported, import_tables
from madang_pipelines.imports.mapping import Mapping as DataMapping
from madang_pipelines.imports.mapping import MappingError
from madang_pipelines.own.clicks import ClickPlan, train_clicks
from madang_pipelines.own.orders import OrderPlan, train_orders
from madang_pipelines.own.report import Report
from madang_pipelines.own.searches import SearchPlan, train_searches
from madang_pipelines.own.sends import SendPlan, train_sends
from madang_pipelines.own.visits import VisitPlan, train_visits
from madang_pipelines.training import Trained
from madang_runtime.models.registry import ModelRegistry

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Plans:
    """How each service trains; the defaults choose from the data."""

    visits: VisitPlan = field(default_factory=VisitPlan)
    clicks: ClickPlan = field(default_factory=ClickPlan)
    orders: OrderPlan = field(default_factory=OrderPlan)
    sends: SendPlan = field(default_factory=SendPlan)
    searches: SearchPlan = field(default_factory=SearchPlan)


@dataclass(frozen=True)
class OwnTrained:
    """What a training on someone's data made.

    Attributes:
        reports: what each model is worth.
        views: that the feature store must have.
        rows: of views, to publish.
        home: what the home feed's models need beside them, if it was they.
        documents: to be searched.
    """

    reports: Sequence[Report]
    views: Sequence[feature_store_pb2.FeatureView] = ()
    rows: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    home: Trained | None = None
    documents: pl.DataFrame | None = None


def services_for(mapping: DataMapping) -> list[str]:
    """The services that can learn from a mapping's tables."""
    tables = mapping.tables()
    return [s for s, task in _TASKS.items() if any(n <= tables.keys() for n in task.needs)]


def train_own(
    service: str,
    mapping: DataMapping,
    registry: ModelRegistry,
    plans: Plans = Plans(),
    progress: Progress = lambda step, share: None,
) -> OwnTrained:
    """Train a service's model on what a mapping names, and make it champion.

    Raises:
        MappingError: the mapping lacks what the service learns from.
    """
    if service not in _TASKS:
        raise MappingError(f"{service!r} learns from no mapping; {', '.join(_TASKS)} do")
    task = _TASKS[service]
    if service not in services_for(mapping):
        needs = " or ".join(" with ".join(sorted(needed)) for needed in task.needs)
        raise MappingError(f"{service} learns from {needs}: map them")
    wanted = task.reads.union(*task.needs)
    tables = import_tables(mapping, [*wanted], lambda s: progress("data", s))
    return task.train(mapping, tables, registry, plans, progress)


def _visits(
    mapping: DataMapping,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plans: Plans,
    progress: Progress,
) -> OwnTrained:
    offset = mapping.utc_offset_hours
    report, trained = train_visits(mapping.name, tables, offset, registry, plans.visits, progress)
    return OwnTrained([report], home=trained)


def _clicks(
    mapping: DataMapping,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plans: Plans,
    progress: Progress,
) -> OwnTrained:
    report, fields = train_clicks(mapping.name, tables["clicks"], registry, plans.clicks, progress)
    return OwnTrained([report], [side.definition() for side in fields])


def _orders(
    mapping: DataMapping,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plans: Plans,
    progress: Progress,
) -> OwnTrained:
    offset = mapping.utc_offset_hours
    reports, rows = train_orders(
        mapping.name, tables["orders"], offset, registry, plans.orders, progress
    )
    return OwnTrained(reports, rows=rows)


def _sends(
    mapping: DataMapping,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plans: Plans,
    progress: Progress,
) -> OwnTrained:
    return OwnTrained([train_sends(mapping.name, tables["sends"], registry, plans.sends, progress)])


def _searches(
    mapping: DataMapping,
    tables: Mapping[str, Imported],
    registry: ModelRegistry,
    plans: Plans,
    progress: Progress,
) -> OwnTrained:
    report, documents = train_searches(mapping.name, tables, registry, plans.searches, progress)
    return OwnTrained([report], documents=documents)


@dataclass(frozen=True)
class _Task:
    """What of tables a service needs, one or the other; those that it reads besides; and how it
    learns."""

    needs: tuple[frozenset[str], ...]
    train: Callable[
        [DataMapping, Mapping[str, Imported], ModelRegistry, Plans, Progress], OwnTrained
    ]
    reads: frozenset[str] = frozenset()


_TASKS = {
    "candidate": _Task((frozenset({"interactions"}),), _visits, frozenset({"items"})),
    "ranker": _Task((frozenset({"clicks"}),), _clicks),
    "eta": _Task((frozenset({"orders"}),), _orders),
    "targeting": _Task((frozenset({"sends"}),), _sends),
    "search": _Task(
        tuple(frozenset({name}) for name in ("documents", "pairs", "alike", "intents")),
        _searches,
        frozenset({"queries", "judgements"}),
    ),
}
