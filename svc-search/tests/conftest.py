"""What the tests of the package share."""

from collections.abc import Iterator

import pytest

from madang_cli.mesh.mesh import listens, milvus_command
from madang_cli.mesh.processes import ManagedProcess, free_port
from madang_cli.workspace import Workspace
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_search.analysis import Analyzer
from madang_search.milvus.connecting import MilvusConnection
from madang_search.settings import FeederSettings


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


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusConnection]:
    """A server of Milvus Lite."""
    folder, address = tmp_path_factory.mktemp("milvus"), f"127.0.0.1:{free_port()}"
    server = ManagedProcess("milvus", milvus_command(address, folder), folder / "log")
    server.start()
    try:
        server.wait_until(lambda: listens(address))
        connection = MilvusConnection(FeederSettings(milvus_url=f"http://{address}"))
        yield connection
        connection.close()
    finally:
        server.stop()
