"""Models from someone's own files, through a mesh."""

import io

import grpc
import numpy as np
import polars as pl
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from madang.common.v1 import place_pb2
from madang.eta.v1 import eta_pb2, eta_pb2_grpc
from madang.ranker.v1 import ranker_pb2, ranker_pb2_grpc
from madang.search.v1 import search_pb2, search_pb2_grpc
from madang.targeting.v1 import targeting_pb2, targeting_pb2_grpc
from madang_cli.__main__ import app
from madang_cli.mesh.mesh import LocalMesh, wait_for
from madang_cli.own_demo import run_own_demo
from madang_cli.workspace import Workspace
from madang_eta.train import StageTraining
from madang_pipelines.imports.mapping import read_mapping
from madang_pipelines.own.clicks import ClickPlan
from madang_pipelines.own.fields import from_json
from madang_pipelines.own.orders import OrderPlan
from madang_pipelines.own.sends import SendPlan
from madang_pipelines.own.training import Plans, services_for
from madang_pipelines.own.visits import VisitPlan
from madang_pipelines.publish import publish
from madang_pipelines.training import quick
from madang_runtime.columns import block
from madang_targeting.trees import TreeTraining

PLANS = Plans(
    visits=VisitPlan(quick(), judged=20),
    clicks=ClickPlan((1e-3,), (1,), epochs=10, members=1, simple=False),
    orders=OrderPlan((StageTraining(epochs=6, members=1, hidden=(32,)),), members=1, simple=False),
    sends=SendPlan(TreeTraining(rounds=40, learning_rate=0.1), simple=False),
)
MAPPING = {
    "name": "mine",
    "utc_offset_hours": 9,
    "interactions": {
        "files": "clicks.csv",
        "where": "clicked = '1'",
        "columns": {"user": "who", "item": "what"},
    },
    "clicks": {
        "files": "clicks.csv",
        "columns": {"label": "clicked"},
        "categories": ["who", "what"],
        "numbers": ["price"],
        "user": ["who"],
    },
    "documents": {
        "files": "dishes.csv",
        "columns": {"document": "id", "title": "name", "text": "about"},
    },
    "orders": {
        "files": "orders.csv",
        "columns": {
            "shop": "shop",
            "time": "at",
            "minutes": {"column": "seconds", "unit": "seconds"},
            **{c: c for c in ("origin_latitude", "origin_longitude", "latitude", "longitude")},
        },
        "categories": ["sky"],
    },
    "sends": {
        "files": "sends.csv",
        "columns": {"user": "who", "campaign": "about", "group": "about", "clicked": "opened"},
        "categories": ["job"],
        "numbers": ["age"],
    },
}


def write_files(folder):
    """Files in which somebody's taste, the rain, and the young can be found."""
    rng, n = np.random.default_rng(0), 4000
    who, what = rng.integers(0, 24, n), rng.integers(0, 24, n)
    clicked = rng.random(n) < np.where(who % 3 == what % 3, 0.7, 0.05)
    pl.DataFrame(
        {
            "who": [f"u{i}" for i in who],
            "what": [f"i{i}" for i in what],
            "price": rng.exponential(10, n),
            "clicked": clicked.astype(int),
        }
    ).write_csv(folder / "clicks.csv")
    pl.DataFrame(
        {
            "id": ["d1", "d2", "d3"],
            "name": ["Bibimbap", "Cold noodles", "Fried chicken"],
            "about": ["rice with vegetables", "buckwheat in icy broth", "crisp, with beer"],
        }
    ).write_csv(folder / "dishes.csv")
    wet = rng.random(n) < 0.3
    place = rng.uniform([37.45, 126.95], [37.55, 127.05], (n, 2))
    pl.DataFrame(
        {
            "shop": [f"s{i}" for i in rng.integers(0, 9, n)],
            "at": 1_700_000_000 + np.arange(n) * 600,
            "origin_latitude": 37.5,
            "origin_longitude": 127.0,
            "latitude": place[:, 0],
            "longitude": place[:, 1],
            "seconds": 60 * rng.lognormal(3, 0.2, n) * np.where(wet, 2, 1),
            "sky": ["wet" if w else "dry" for w in wet],
        }
    ).write_csv(folder / "orders.csv")
    age, user = rng.uniform(18, 80, n), rng.permutation(n)
    pl.DataFrame(
        {
            "who": [f"u{i}" for i in user],
            "about": [["spring", "autumn"][i % 2] for i in range(n)],
            "opened": (rng.random(n) < np.where(age < 35, 0.5, 0.05)).astype(int),
            "job": [["cook", "clerk"][i % 2] for i in user],
            "age": age,
        }
    ).write_csv(folder / "sends.csv")
    (folder / "my.yaml").write_text(yaml.safe_dump(MAPPING))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_files(folder)
    workspace, mapping = Workspace(folder / "home"), read_mapping(folder / "my.yaml")
    assert services_for(mapping) == ["candidate", "ranker", "eta", "targeting", "search"]
    for service in services_for(mapping):
        workspace.train_own(service, mapping, PLANS, lambda step, share: None)
    return folder


@pytest.fixture(scope="module")
def channel(home):
    """A mesh of what was trained: nothing else is started."""
    with LocalMesh(home / "home", "own") as mesh:
        assert set(mesh.info.services) == {
            "featurestore",
            "candidate",
            "eta",
            "ranker",
            "search",
            "targeting",
        }
        publish(Workspace(home / "home").features, mesh.info.gateway)
        mesh.wait_serving()
        with grpc.insecure_channel(mesh.info.gateway) as made:
            yield made


def test_rank_orders_by_own_fields(home, channel):
    registry = Workspace(home / "home").registry
    files = registry.load("ranker", registry.resolve("ranker")).files
    user, item = from_json(files["vocabulary.json"])
    ids = [f"i{i}" for i in range(12)]
    rows = pl.DataFrame({"what": ids, "price": 5.0})
    request = ranker_pb2.RankRequest(
        user_id="u4",
        place=place_pb2.Place(latitude=37.5, longitude=127.0),
        item_ids=ids,
        user_features=user.blocks(pl.DataFrame({"who": ["u4"]})),
        item_features=item.blocks(rows),
    )
    answer = ranker_pb2_grpc.RankerServiceStub(channel).Rank(request, timeout=5)
    best = [ids[at] for at in answer.order[:4]]
    assert {int(i[1:]) % 3 for i in best} == {1}
    assert not np.frombuffer(answer.conversion_probabilities, "<f4").any()


def test_a_feed_of_own_items(channel):
    request = ranker_pb2.RecommendRequest(
        user_id="u4", place=place_pb2.Place(latitude=37.5, longitude=127.0), page_size=6
    )
    answer = ranker_pb2_grpc.RankerServiceStub(channel).Recommend(request, timeout=5)
    assert len(answer.items) == 6
    assert all(item.click_probability for item in answer.items)
    assert "again" in {reason.source for item in answer.items for reason in item.reasons}
    assert not answer.serving_info.degraded


def test_arrivals_are_those_of_own_orders(channel):
    stub = eta_pb2_grpc.EtaServiceStub(channel)
    request = eta_pb2.PredictRequest(
        shop_id="s1", place=place_pb2.Place(latitude=37.52, longitude=127.01)
    )
    minutes = {}
    for sky in ("dry", "wet"):
        values = np.array([[float(sky == "dry"), float(sky == "wet")]], np.float32)
        request.numbers.CopyFrom(block(["sky=dry", "sky=wet"], values))
        minutes[sky] = stub.Predict(request, timeout=5).mean_minutes
    assert 15 < minutes["dry"] < 26
    assert minutes["wet"] > 1.4 * minutes["dry"]


def test_a_segment_of_own_users(home, channel):
    stub = targeting_pb2_grpc.TargetingServiceStub(channel)
    spec = targeting_pb2.SegmentSpec(
        channel="direct",
        reference_campaign_ids=["spring"],
        goal=targeting_pb2.OUTCOME_CLICK,
        size=400,
    )
    request = targeting_pb2.CreateSegmentRequest(segment_id="own", spec=spec)
    stub.CreateSegment(request, timeout=5)
    asked = targeting_pb2.GetOperationRequest(segment_id="own")
    assert wait_for(lambda: stub.GetOperation(asked, timeout=5).operation.HasField("end_time"), 60)
    assert stub.GetOperation(asked, timeout=5).operation.state == targeting_pb2.OPERATION_STATE_DONE
    listed = stub.ListMembers(targeting_pb2.ListMembersRequest(segment_id="own"), timeout=10)
    members = {user for message in listed for user in message.user_ids}
    age = dict(pl.read_csv(home / "sends.csv").select("who", "age").iter_rows())
    assert len(members) == 400
    assert np.mean([age[user] < 35 for user in members]) > 0.9


def test_own_documents_are_found(channel):
    stub = search_pb2_grpc.SearchServiceStub(channel)
    for query, found in (("noodles", "d2"), ("beer", "d3")):
        answer = stub.Search(search_pb2.SearchRequest(query=query), timeout=5)
        assert answer.hits[0].document_id == found


def test_the_demo_shows_what_files_have_something_for(home, tmp_path):
    some = {name: MAPPING[name] for name in ("name", "documents", "orders", "sends")}
    (home / "some.yaml").write_text(yaml.safe_dump(some))
    console = Console(record=True, width=120, file=io.StringIO())
    run_own_demo(home / "some.yaml", tmp_path, console)
    shown = console.export_text()
    for text in ("when it arrives", "search", "whom to tell", "Bibimbap", "400 users"):
        assert text in shown, text
    assert "a home feed" not in shown
    assert not (tmp_path / "mesh" / "demo" / "mesh.json").exists()


def test_what_the_command_says(home):
    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    shown = run("data", "inspect", home / "my.yaml")
    assert shown.exit_code == 0
    assert "clicks: 4,000 rows" in shown.output
    assert "none set aside" in shown.output
    assert run("data", "inspect", home / "clicks.csv").output.count("categories: [who, what]") == 1
    for arguments, said in (
        (("train", "ranker"), "--data names the mapping"),
        (("train", "store", "--data", home / "my.yaml"), "'store' learns from no mapping"),
        (("train", "--data", home / "none.yaml"), "none.yaml"),
        (("train", "ranker", "--data", home), "is no mapping"),
        (("data", "inspect", home / "clicks.csv", "--table", "cats"), "there is no table 'cats'"),
    ):
        refused = (
            run(*arguments, "--home", home / "other")
            if arguments[0] == "train"
            else run(*arguments)
        )
        assert refused.exit_code == 2
        assert said in refused.output.replace("\n", " ")
    assert not (home / "other" / "models").exists()
