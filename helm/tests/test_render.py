"""What the chart makes: as it was, and as Kubernetes takes it."""

import functools
import importlib.util
import json

import helm_python
import kubernetes_validate.utils
import pytest
from charts import CHART, GOLDEN, PRESETS, VARIANTS, golden, objects, render

VERSIONS = ("1.27", "1.30", "1.33", "1.37")
OF_OPERATORS = {"ServiceMonitor", "PrometheusRule", "Certificate"}


def test_lint_finds_nothing():
    found = helm_python.lint(CHART)["messages"]
    assert [m for m in found if m["severity"] > 1] == []


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_as_it_was(preset):
    was = (GOLDEN / f"{preset}.yaml").read_text()
    assert golden(preset) == was, "if that is meant: make chart-golden"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("preset", VARIANTS)
def test_kubernetes_takes_every_object(preset, version, monkeypatch):
    utils = kubernetes_validate.utils
    monkeypatch.setattr(utils, "schema_contents", _read_once)
    for it in objects(preset):
        if it["kind"] not in OF_OPERATORS:
            utils.validate(it, version, strict=True)


_read_once = functools.cache(kubernetes_validate.utils.schema_contents)


def test_the_schema_is_that_of_the_services_settings():
    spec = importlib.util.spec_from_file_location("schema", CHART.parent / "schema.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    written = json.loads((CHART / "values.schema.json").read_text())
    assert made.schema() == written, "values.schema.json is stale: make chart-schema"


def test_names_are_unique_and_of_the_release():
    for preset in PRESETS:
        keys = [(o["kind"], o["metadata"]["name"]) for o in objects(preset)]
        assert len(set(keys)) == len(keys)
        assert all(name.startswith("madang") for _, name in keys)
        assert all(o["metadata"]["namespace"] == "shop" for o in objects(preset))


def test_notes_say_how_to_reach_gateway_and_jaeger():
    laptop, prod = (render(p)["NOTES.txt"] for p in ("laptop", "prod"))
    for said in ("30080", "30686", "service/madang-gateway 8080:8080", "helm test -n shop madang"):
        assert said in laptop
    assert "https://localhost:8080" in prod
    assert "Jaeger" not in prod


def test_another_release_has_names_of_its_own():
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render({}, name="blue", namespace="a")
    assert "name: blue-madang-ranker" in files["madang/templates/components.yaml"]
    assert "blue-madang-mesh.a.svc.cluster.local.:8080" in files["madang/templates/components.yaml"]
