"""The folder that training writes to and the mesh reads from, and the data that was trained on."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from madang_pipelines.city.campaigns import CampaignWorld
from madang_pipelines.city.deliveries import DeliveryTruth
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.city.truth import Truth
from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.mapping import Mapping
from madang_pipelines.own.report import Report, card
from madang_pipelines.publish import (
    DOCUMENTS,
    save_features,
    save_own_views,
    save_views,
    saved_segments,
)
from madang_pipelines.results import Result
from madang_pipelines.search.documents import save_documents, shop_documents
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import CHAMPION, ModelRegistry

if TYPE_CHECKING:  # what trains takes seconds to import: methods import what only they need
    from madang_pipelines.eta.arrivals import Arrivals
    from madang_pipelines.own.training import Plans
    from madang_pipelines.training import Recipe

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class DataSource:
    """Where tables come from.

    Attributes:
        mapping: the name of someone's own data; "" for the simulated city.
        city: the city's size.
    """

    mapping: str = ""
    city: CitySize = field(default_factory=CitySize)


@dataclass(frozen=True)
class DataSet:
    """The city's tables, and the truth behind them."""

    tables: Tables
    truth: Truth
    deliveries: DeliveryTruth
    outreach: CampaignWorld


class Workspace:
    """`<home>/models`, `features`, `data`, `reports` and `source.json`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.features = home / "features"
        self._reports = home / "reports"

    def clear(self) -> None:
        """Remove what training wrote, and nothing else."""
        for part in (self.home / "models", self.features, self.home / "data", self._reports):
            shutil.rmtree(part, ignore_errors=True)
        (self.home / "source.json").unlink(missing_ok=True)

    @property
    def registry(self) -> ModelRegistry:
        """The model registry."""
        return ModelRegistry(f"file://{self.home.resolve()}/models")

    def source(self) -> DataSource | None:
        """What was trained on, None if nothing was."""
        path = self.home / "source.json"
        if not path.exists():
            return None
        saved = json.loads(path.read_text())
        return DataSource(saved["mapping"], CitySize(**saved["city"]))

    def train(
        self, source: DataSource, data: DataSet, recipe: "Recipe", progress: Progress
    ) -> None:
        """Train on a data set and keep its tables and features."""
        from madang_pipelines.eta.arrivals import Arrivals, train_arrivals
        from madang_pipelines.search.content import train_towers
        from madang_pipelines.search.keywords.training import train_keywords
        from madang_pipelines.search.queries import train_queries
        from madang_pipelines.search.training import train_encoder
        from madang_pipelines.targeting.training import train_targeting
        from madang_pipelines.training import train_all
        from madang_search.keywords.recommending import VIEW as KEYWORD_VIEW
        from madang_targeting.model import NAME as TARGETING

        self.home.mkdir(parents=True, exist_ok=True)
        before = saved_segments(self.features)
        trained = train_all(data.tables, self.registry, recipe, progress, before)
        save_features(trained, self.features)
        arrivals = Arrivals({}, {})
        if len(data.tables.frames["orders"]):
            arrivals = train_arrivals(data.tables, self.registry, recipe.arrivals, progress)
        self._replace_arrivals(arrivals)
        if len(data.tables.frames["sends"]):
            train_targeting(data.tables, self.registry, recipe.targeting, progress)
        else:
            self.registry.remove_alias(TARGETING, CHAMPION)
        save_documents(shop_documents(data.tables), self.features / DOCUMENTS)
        train_encoder(data.tables, self.registry, recipe.encoder, progress)
        train_towers(data.tables, self.registry, recipe.content, progress)
        (self.features / f"{KEYWORD_VIEW}.parquet").unlink(missing_ok=True)
        train_queries(data.tables, self.registry)
        keywords = train_keywords(data.tables, self.registry, recipe.keywords, progress)
        save_views(keywords, self.features)
        data.tables.save(self.home / "data")
        (self.home / "source.json").write_text(json.dumps(asdict(source), indent=1))

    def train_own(
        self, service: str, mapping: Mapping, plans: "Plans", progress: Progress
    ) -> Sequence[Report]:
        """Train one service on someone's own data; what the others have stays."""
        from madang_pipelines.own.training import train_own

        self.home.mkdir(parents=True, exist_ok=True)
        made = train_own(service, mapping, self.registry, plans, progress)
        if made.home:
            save_features(made.home, self.features)
        if made.documents is not None:
            save_documents(made.documents, self.features / DOCUMENTS)
        save_own_views(made.views, self.features)
        save_views(made.rows, self.features)
        self._reports.mkdir(exist_ok=True)
        cards = [card(report, datetime.now(UTC).date()) for report in made.reports]
        (self._reports / f"{service}.md").write_text("\n".join(cards), "utf-8")
        if not self.source():
            source = DataSource(mapping=mapping.name)
            (self.home / "source.json").write_text(json.dumps(asdict(source), indent=1))
        return made.reports

    def add_documents(self, mappings: Sequence[Mapping]) -> None:
        """Documents of more mappings, to be found beside those that were learned from."""
        from madang_pipelines.own.searches import documents_of

        path = self.features / DOCUMENTS
        for mapping in mappings:
            made = documents_of(mapping.name, import_tables(mapping, ("documents", "pairs")))
            save_documents(pl.concat([pl.read_parquet(path).drop("gone"), made]), path)

    def cards(self) -> list[str]:
        """The model cards of what was trained on someone's own data, in Markdown."""
        return [path.read_text("utf-8") for path in sorted(self._reports.glob("*.md"))]

    def _replace_arrivals(self, arrivals: "Arrivals") -> None:
        """Keep the views of a training, and nothing of those before it that it has no more."""
        for path in self.features.glob("eta_*.parquet"):
            path.unlink()
        save_views(arrivals.views, self.features)
        for name in self.registry.names():
            if name.startswith("eta-") and name not in arrivals.versions:
                self.registry.remove_alias(name, CHAMPION)

    def orders(self) -> pl.DataFrame | None:
        """The orders that were trained on, None where there are none."""
        path = self.home / "data" / "orders.parquet"
        orders = pl.read_parquet(path) if path.exists() else None
        return orders if orders is not None and len(orders) else None

    def evaluate(
        self, data: DataSet, sessions: int, progress: Callable[[float], None]
    ) -> list[Result]:
        """The quality table of the champions on the held-out period of the city."""
        from madang_pipelines.evaluation import evaluate_city

        return evaluate_city(data.tables, data.truth, self.registry, sessions, progress)


def load(source: DataSource, progress: Callable[[float], None]) -> DataSet:
    """Simulate the city."""
    city = simulate(source.city, progress)
    return DataSet(city.tables, city.truth, city.deliveries, city.outreach)
