"""An encoder for the tests of the package."""

import pytest

from madang_cli.workspace import Workspace
from madang_search.analysis import Analyzer
from madang_search.encoder import Encoder
from madang_search.settings import ENCODER


@pytest.fixture(scope="session")
def encoder(workspace: Workspace) -> Encoder:
    """The encoder that the small city was trained with."""
    registry = workspace.registry
    files = registry.load(ENCODER, registry.resolve(ENCODER))
    return Encoder(files, small=True, threads=1)


@pytest.fixture(scope="session")
def analyzer() -> Analyzer:
    """An analyzer; its dictionary takes seconds to load."""
    return Analyzer()
