"""The command line as a person uses it, and what it draws."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from madang_cli.mesh.mesh import LocalMesh, find, wait_for
from madang_cli.mesh.processes import ManagedProcess, ProcessFailedError
from madang_cli.reflect import CallError, find_rpc
from madang_cli.traces import draw, is_whole, read_spans, tree
from madang_cli.verify import Visitor, verify
from madang_cli.workspace import Workspace
from madang_featurestore.yaml_views import load_view
from madang_gateway.services import SERVICES
from madang_runtime.models.registry import ModelRegistry

PLACE = {"latitude": 37.4959, "longitude": 127.0664}


def madang(*arguments, timeout=60):
    done = subprocess.run(
        [sys.executable, "-m", "madang_cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "140"},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def up(workspace):
    """`madang up` in a process of its own."""
    home = str(workspace.home)
    command = [sys.executable, "-m", "madang_cli", "up", "--home", home, "--name", "cli"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert wait_for(lambda: find(workspace.home, "cli") is not None, 30)
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    yield workspace, process, "".join(lines)
    if process.poll() is None:
        process.terminate()
        process.wait(30)


def test_up_prints_endpoints_and_others_find_them(up):
    workspace, _, printed = up
    info = find(workspace.home, "cli")
    for address in (info.gateway, *info.services.values(), info.admin):
        assert address in printed
    code, shown = madang("status", "--home", str(workspace.home), "--name", "cli")
    assert code == 0
    assert shown.count("serving") == len(SERVICES) + 2
    assert "consumer" in shown
    assert "refresher" in shown
    assert "live" in shown


def test_verify_calls_every_service(up):
    workspace, _, _ = up
    where = ("--home", str(workspace.home), "--name", "cli")
    code, shown = madang("verify", *where)
    assert code == 0, shown
    for check in ("featurestore", "candidate", "ranker", "given items", "why", "targeting", "JSON"):
        assert f"{check}: " in shown
    code, shown = madang("verify", *where, "--latitude", "0", "--longitude", "-30")
    assert code == 1
    assert "candidate: OUT_OF_RANGE: nothing is delivered to" in shown
    assert "✓ featurestore" in shown
    code, shown = madang("verify", "--gateway", "127.0.0.1:1")
    assert code == 1
    assert shown.count("UNAVAILABLE") == 5


class Jaeger(BaseHTTPRequestHandler):
    """Answers for a trace as Jaeger does, from the file that the mesh writes."""

    traces: str

    def do_GET(self):
        spans = read_spans(Path(self.traces), self.path.rpartition("/")[2])
        services = {f"p{i}": {"serviceName": s.service} for i, s in enumerate(spans)}
        self.send_response(200 if spans else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"processes": services}]}).encode())

    def log_message(self, *_):
        pass


def test_verify_finds_the_trace(up):
    workspace, _, _ = up
    handler = type("It", (Jaeger,), {"traces": find(workspace.home, "cli").traces})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    gateway, jaeger = find(workspace.home, "cli").gateway, f"http://127.0.0.1:{server.server_port}"
    *_, last = verify(gateway, Visitor("u00003", PLACE["latitude"], PLACE["longitude"]), jaeger)
    server.shutdown()
    server.server_close()
    assert last.check == "trace"
    assert last.error == ""
    assert last.seen.endswith("went through 5 services")
    *_, gone = verify(gateway, Visitor("u00003", PLACE["latitude"], PLACE["longitude"]), jaeger)
    assert "refused" in gone.error, "nobody waits for a Jaeger that is not there"


def test_publish_leaves_champions_of_others_alone(up, tmp_path):
    workspace, _, _ = up
    gateway, registry = find(workspace.home, "cli").gateway, f"file://{tmp_path}/registry"
    where = ("--home", str(workspace.home), "--gateway", gateway, "--registry", registry)
    code, shown = madang("publish", *where)
    assert code == 0, shown
    assert "feature rows published" in shown
    theirs = ModelRegistry(registry)
    assert theirs.resolve("ranker") == workspace.registry.resolve("ranker")
    code, shown = madang("publish", *where)  # as a job does that was cut off before
    assert "feature rows published" in shown
    own = theirs.register("ranker", {"model.onnx": b"1"})
    theirs.set_alias("ranker", "champion", own)
    code, shown = madang("publish", *where)
    assert code == 0
    assert f"champions of its own: ranker {own}" in shown
    assert "published" not in shown
    assert theirs.resolve("ranker") == own
    code, shown = madang("publish", *where, "--replace")
    assert theirs.resolve("ranker") == workspace.registry.resolve("ranker")


def test_views_of_feast_are_taken_over(up, tmp_path):
    workspace, _, _ = up
    gateway = find(workspace.home, "cli").gateway
    (tmp_path / "repo").mkdir()
    code, shown = madang("views", str(tmp_path / "repo"))
    assert code == 2
    assert "no Python files" in shown
    (tmp_path / "repo" / "definitions.py").write_text(
        "courier = Entity(name='courier')\n"
        "trips = Field(name='trips', dtype=Int64)\n"
        "FeatureView(name='courier_week', entities=[courier], schema=[trips],"
        " ttl=timedelta(days=7))\n"
        "FeatureView(name='inferred', entities=[courier])\n"
    )
    given = ("views", str(tmp_path / "repo"), "--out", str(tmp_path / "out"), "--gateway", gateway)
    code, shown = madang(*given)
    assert code == 0, shown
    for part in ("7 days, 0:00:00", "trips int64", "definitions.py:4: FeatureView left out"):
        assert part in shown
    assert f"1 of 1 views are new or changed at {gateway}" in shown
    assert "0 of 1 views" in madang(*given)[1]
    assert load_view(tmp_path / "out" / "courier_week.yaml").entity == "courier"
    where = ("--home", str(workspace.home), "--name", "cli")
    code, shown = madang("call", "featurestore.GetFeatureView", '{"name": "courier_week"}', *where)
    assert json.loads(shown)["view"]["ttl"] == "604800s"


def test_call_and_trace(up):
    workspace, _, _ = up
    where = ("--home", str(workspace.home), "--name", "cli")
    request = json.dumps({"userId": "u00003", "place": PLACE, "pageSize": 2})
    code, answer = madang("call", "ranker.Recommend", request, *where)
    assert code == 0
    feed = json.loads(answer)
    assert len(feed["items"]) == 2
    code, shown = madang("trace", feed["servingInfo"]["traceId"], *where)
    assert code == 0
    for part in ("gateway", "ranker", "candidate", "featurestore", "store read", "━"):
        assert part in shown
    code, shown = madang("why", feed["requestId"], feed["items"][1]["itemId"], *where)
    assert code == 0, shown
    for part in ("was #2 for u00003", "× click", "× order", "found by", "the score put it there"):
        assert part in shown
    code, shown = madang("why", "none", *where)
    assert code == 1
    assert "DECISION_NOT_FOUND" in shown
    code, shown = madang("call", "featurestore.GetFeatureView", '{"name": "none"}', *where)
    assert code == 1
    assert "NOT_FOUND FEATURE_VIEW_NOT_FOUND" in shown
    sent = {"campaignId": "c", "channel": "push", "userIds": ["u1", "u2"]}
    assert madang("call", "targeting.RecordSends", json.dumps(sent), *where)[0] == 0
    code, shown = madang("call", "targeting.ListResults", '{"campaignId": "c"}', *where)
    assert (code, json.loads(shown)["userIds"]) == (0, ["u1", "u2"]), "streams, too"
    code, shown = madang("call", "ranker.Nope", *where)
    assert code == 1
    assert "Recommend, Rank" in shown
    code, shown = madang("call", "ranker.Recommend", '{"x": 1}', *where)
    assert code == 1
    assert "does not fit" in shown
    code, shown = madang("trace", "f" * 32, *where)
    assert code == 1


def test_a_version_is_replayed_and_shadowed_before_it_serves(workspace):
    home = ("--home", str(workspace.home))
    version = workspace.registry.resolve("eta-express")
    code, shown = madang(
        "replay", "champion", version, "--service", "express", "--day", "-2", *home
    )
    assert code == 0, shown
    assert "orders of express on day -2" in shown
    rows = [line.split("│")[2:] for line in shown.splitlines() if " s " in line]
    assert len(rows) == 2
    assert rows[0] == rows[1], "the champion is that version"
    code, shown = madang("replay", "--day", "-99", *home)
    assert code == 1
    assert "no order of 'standard'" in shown
    code, shown = madang("replay", "none", *home)
    assert code == 1
    assert "has no version 'none'" in shown
    code, shown = madang("alias", "eta-express", "challenger", "champion", *home)
    assert (code, shown.strip()) == (0, f"challenger of eta-express is {version}")
    code, shown = madang("alias", "eta-express", "challenger", "", *home)
    assert code == 0
    assert not workspace.registry.has_alias("eta-express", "challenger")


def test_ctrl_c_stops_everything(up):
    workspace, process, _ = up
    info = find(workspace.home, "cli")
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert len(children) == 4 + len(SERVICES)  # store, gateway, consumer, refresher
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert find(workspace.home, "cli") is None
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert not os.path.exists(f"{info.folder}/appendonlydir")


def test_what_is_not_there_is_said(tmp_path):
    code, shown = madang("status", "--home", str(tmp_path))
    assert code != 0
    assert "no mesh" in shown
    code, shown = madang("up", "--home", str(tmp_path))
    assert code != 0
    assert "madang train" in shown
    code, shown = madang("demo", "--data", str(tmp_path))
    assert code == 2
    said = " ".join(shown.replace("│", " ").split())
    assert "is no mapping, and no folder at or below it has the files of" in said


def test_eval_prints_the_quality_table(workspace):
    code, shown = madang("eval", "--home", str(workspace.home), "--sessions", "40", timeout=120)
    assert code == 0
    for row in ("popularity", "ours", "oracle"):
        assert re.search(rf"{row} .*±", shown)


def test_clearing_a_workspace_keeps_what_is_not_its_own(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    (tmp_path / "models").mkdir()
    Workspace(tmp_path).clear()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_a_mesh_has_a_plain_name(tmp_path, name):
    with pytest.raises(ValueError, match="no name of a mesh"):
        LocalMesh(tmp_path, name)


@pytest.mark.parametrize("name", ["Recommend", "nobody.Recommend", ""])
def test_an_rpc_is_named_with_its_service(name):
    with pytest.raises(CallError):
        find_rpc(name)


def test_rpcs_are_found_by_short_and_full_names():
    full = find_rpc("madang.ranker.v1.RankerService/Rank")
    assert full == find_rpc("ranker.Rank") == find_rpc("RankerService.Rank")


def test_a_process_that_ends_or_hangs_is_reported_with_its_last_words(tmp_path):
    program = "import sys; print('last words'); sys.exit(3)"
    ended = ManagedProcess("it", [sys.executable, "-c", program], tmp_path / "a.log")
    ended.start()
    with pytest.raises(ProcessFailedError, match=r"(?s)ended by itself.*last words"):
        ended.wait_until(lambda: False, 10)
    hung = ManagedProcess("it", ["sleep", "30"], tmp_path / "b.log")
    hung.start()
    with pytest.raises(ProcessFailedError, match="was not ready"):
        hung.wait_until(lambda: False, 0.2)
    started = time.monotonic()
    hung.stop()
    assert time.monotonic() - started < 5
    assert not hung.alive()


def span(span_id, parent, service, name, start, end):
    return {
        "resource": {
            "attributes": [{"key": "service.name", "value": {"stringValue": f"madang-{service}"}}]
        },
        "scopeSpans": [
            {
                "spans": [
                    {
                        "traceId": "t1",
                        "spanId": span_id,
                        "parentSpanId": parent,
                        "name": name,
                        "startTimeUnixNano": str(start),
                        "endTimeUnixNano": str(end),
                    }
                ]
            }
        ],
    }


def test_a_waterfall_is_a_tree_in_time_order(tmp_path):
    path = tmp_path / "traces.jsonl"
    spans = [
        span("c", "b", "candidate", "x.CandidateService/Retrieve", 2_000_000, 4_000_000),
        span("d", "b", "ranker", "score", 4_000_000, 9_000_000),
        span("b", "a", "ranker", "x.RankerService/Recommend", 1_000_000, 10_000_000),
    ]
    path.write_text("\n".join(json.dumps({"resourceSpans": [s]}) for s in spans) + "\n")
    assert not is_whole(read_spans(path, "t1")), "the root is missing"
    with path.open("a") as file:
        root = span("a", "", "gateway", "ingress", 0, 11_000_000)
        file.write(json.dumps({"resourceSpans": [root]}) + "\n")
    found = read_spans(path, "t1")
    assert is_whole(found)
    (top,) = tree(found)
    assert [c.name for c in top.children[0].children] == ["x.CandidateService/Retrieve", "score"]
    console = Console(record=True, width=120)
    draw(found, console)
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["gateway", "ranker", "candidate", "ranker"]
    assert "9.00" in lines[2]


def test_off_policy_estimates_are_printed(tmp_path):
    header = ",timestamp,item_id,position,click,propensity_score"
    for policy in ("random", "bts"):
        (tmp_path / policy / "all").mkdir(parents=True)
        rows = [f"{n},t,{n % 2},1,{int(n % 10 == 0)},0.5" for n in range(100)]
        (tmp_path / policy / "all" / "all.csv").write_text("\n".join([header, *rows, "x"]))
    code, shown = madang("ope", "--data", str(tmp_path))
    assert code == 0, shown
    assert shown.count("100.0±59.") == 6, "seen, IPS and SNIPS: both policies are the same"
    assert "1 rows set aside" in shown
    code, shown = madang("ope", "--data", str(tmp_path / "bts"))
    assert code == 1
    assert "no folder at or below" in shown
