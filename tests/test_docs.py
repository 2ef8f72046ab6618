"""Examples of the documents run, one after the other, on a mesh of their own."""

import json
import re
import shlex
import urllib.request
from pathlib import Path

import pytest
from calls import serve

from madang_cli.mesh.mesh import LocalMesh
from madang_cli.reflect import call, find_rpc

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs/api.md", ROOT / "client/README.md"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = ("curl -s ", "madang call ")


@pytest.fixture(scope="module")
def gateway(workspace):
    with LocalMesh(workspace.home, "docs") as mesh:
        serve(mesh, workspace)
        yield mesh.info.gateway


def run_python(code, gateway, names):
    exec(code.replace("localhost:8080", gateway), names)


def run_command(command, gateway):
    """What a curl or a `madang call` answers, as JSON."""
    words = shlex.split(command)
    if words[:2] == ["curl", "-s"]:
        url, *rest = words[2:]
        assert rest in ([], ["-d", rest[-1] if rest else ""])
        data = rest[1].encode() if rest else None
        target = f"http://{url.replace('localhost:8080', gateway)}"
        with urllib.request.urlopen(urllib.request.Request(target, data), timeout=10) as answer:
            return [json.load(answer)]
    assert words[:2] == ["madang", "call"], command
    rpc, asked = words[2], (words[3:] or ["{}"])[0]
    return [json.loads(one) for one in call(gateway, find_rpc(rpc), asked, 10)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page, gateway):
    names, ran, answers = {}, 0, []
    for kind, text in BLOCK.findall(page.read_text("utf-8")):
        if kind == "python":
            run_python(text, gateway, names)
        elif kind == "sh" and text.startswith(COMMANDS):
            answers = run_command(text, gateway)
        elif kind == "json":
            assert set(json.loads(text)) <= set(answers[0]), text
        else:
            continue
        ran += 1
    assert ran >= 2


def test_every_rpc_has_an_example():
    text = (ROOT / "docs/api.md").read_text("utf-8")
    for proto in (ROOT / "protos/madang").glob("*/v1/*.proto"):
        for declared in re.findall(
            r"  rpc (.*?)(?=\n  //|\n  rpc|\n})", proto.read_text(), re.DOTALL
        ):
            name, route = declared.partition("(")[0], re.search(r'"(/v1/[^"{]+)', declared)
            by_name = re.search(rf"\.{name}\b", text)
            assert by_name or (route and f"8080{route[1]}" in text), name
