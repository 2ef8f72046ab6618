"""The chart, rendered. `python helm/tests/charts.py` writes the golden files anew."""

import sys
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parents[1] / "madang"
GOLDEN = Path(__file__).parent / "golden"
PRESETS = ("default", "laptop", "prod")
VARIANTS = (*PRESETS, "milvus")
"""The presets, and the defaults with what they leave out."""
SERVED = ("featurestore", "candidate", "eta", "ranker", "search", "targeting")
COMPONENTS = (*SERVED, "consumer", "refresher")
NAMESPACE = "shop"

Object = dict[str, Any]


def values_of(preset: str, **over: Any) -> Object:
    """The values of a preset, and others over them."""
    path = CHART / f"values-{preset}.yaml"
    given = yaml.safe_load(path.read_text()) if path.exists() else {}
    if preset == "milvus":
        given = {"milvus": {"enabled": True}}
    return _merged(given, over)


def render(preset: str = "default", **over: Any) -> dict[str, str]:
    """What `helm template madang -n shop` writes, by file. Raises: helm_python.HelmError."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values_of(preset, **over), name="madang", namespace=NAMESPACE)
    return {name.partition("/templates/")[2]: text for name, text in sorted(files.items())}


@cache
def _rendered(preset: str) -> list[Object]:
    return list(_objects(render(preset)))


def objects(preset: str = "default", kind: str = "", **over: Any) -> list[Object]:
    """The objects that a preset makes, of one kind or all."""
    made = list(_objects(render(preset, **over))) if over else deepcopy(_rendered(preset))
    return [o for o in made if kind in ("", o["kind"])]


def named(found: list[Object], name: str) -> Object:
    """The one object of a name."""
    (it,) = [o for o in found if o["metadata"]["name"] == name]
    return it


def pods(found: list[Object]) -> dict[str, Object]:
    """Every pod or pod template by the name of what makes it."""
    made = {}
    for o in found:
        if o["kind"] in ("Deployment", "StatefulSet", "Job"):
            made[o["metadata"]["name"]] = o["spec"]["template"]
        elif o["kind"] == "Pod":
            made[o["metadata"]["name"]] = o
    return made


def containers(pod: Object) -> list[Object]:
    """All containers of a pod, those that start first too."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def environment(container: Object) -> dict[str, str]:
    """The variables of a container that are not of a Secret."""
    return {e["name"]: e["value"] for e in container.get("env", ()) if "value" in e}


def golden(preset: str) -> str:
    """All files of a preset as one text."""
    return "".join(f"# {name}\n{text.strip()}\n\n" for name, text in render(preset).items())


def _objects(files: dict[str, str]) -> Iterator[Object]:
    for name, text in files.items():
        if name.endswith(".yaml"):
            yield from filter(None, yaml.safe_load_all(text))


def _merged(below: Object, over: Object) -> Object:
    both = dict(below)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = _merged(both[key], value) if nested else value
    return both


if __name__ == "__main__":
    for each in PRESETS:
        (GOLDEN / f"{each}.yaml").write_text(golden(each))
    sys.exit(0)
