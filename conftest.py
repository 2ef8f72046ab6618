"""A small trained city that all tests share."""

from pathlib import Path

import pytest

from madang_cli.workspace import DataSet, DataSource, Workspace, load
from madang_pipelines.city.simulate import CitySize
from madang_pipelines.training import Recipe, quick

SMALL_CITY = CitySize(users=500, shops=400, ads=30, visits_a_day=0.5, seed=3)


@pytest.fixture(scope="session")
def city() -> DataSet:
    """The small city's tables and truth."""
    return load(DataSource(city=SMALL_CITY), lambda _: None)


@pytest.fixture(scope="session")
def workspace(city: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace trained on the small city."""
    made = Workspace(Path(tmp_path_factory.mktemp("home")))
    made.train(DataSource(city=SMALL_CITY), city, quick(Recipe()), lambda step, share: None)
    return made
