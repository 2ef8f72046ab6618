"""A running mesh of real processes, and stubs that call it through the gateway."""

import re
from collections.abc import Iterator

import grpc
import pytest
from calls import Clients, serve

from madang_cli.mesh.mesh import LocalMesh
from madang_cli.workspace import Workspace


@pytest.fixture(scope="session")
def shared_mesh(workspace: Workspace) -> Iterator[LocalMesh]:
    """The mesh that tests share; they leave it as it was."""
    with LocalMesh(workspace.home, "shared") as made:
        serve(made, workspace)
        yield made


@pytest.fixture(scope="session")
def mesh(shared_mesh: LocalMesh) -> LocalMesh:
    """The mesh of most tests."""
    return shared_mesh


@pytest.fixture(scope="session")
def clients(mesh: LocalMesh) -> Iterator[Clients]:
    """Stubs on the shared mesh."""
    with grpc.insecure_channel(mesh.info.gateway) as channel:
        yield Clients(channel)


@pytest.fixture
def own_mesh(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[LocalMesh]:
    """A mesh that a test may harm; without services that its module names as WITHOUT."""
    name = re.sub(r"[^a-z_]+", "-", request.node.name.lower())
    without = getattr(request.module, "WITHOUT", ("search", "targeting"))
    with LocalMesh(workspace.home, name, without=without) as made:
        serve(made, workspace)
        yield made


@pytest.fixture
def own_clients(own_mesh: LocalMesh) -> Iterator[Clients]:
    """Stubs on the mesh that a test may harm."""
    with grpc.insecure_channel(own_mesh.info.gateway) as channel:
        yield Clients(channel)
