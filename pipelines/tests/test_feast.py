"""Feature views of a Feast repository."""

from textwrap import dedent

import pytest

from madang.common.v1 import tensor_pb2 as t
from madang_featurestore.yaml_views import load_view
from madang_pipelines.sources.feast import as_yaml, read_feast

ENTITIES = """
    from feast import Entity

    courier = Entity(name="courier", join_keys=["courier_id"])
    shop = Entity(name="shop")
"""
VIEWS = """
    from datetime import timedelta

    import feast
    from feast import BatchFeatureView, FeatureView, Field, FileSource
    from feast.types import Array, Bool, Float32, Float64, Int64, Map, String
    from entities import courier, shop

    DAY, WIDTH = 24, 8
    HOURS = 2 * DAY
    source = FileSource(path="a.parquet", timestamp_field="time")
    rating = Field(name="rating", dtype=Float64)
    hourly = FeatureView(
        name="Courier-Hourly",
        entities=[courier],
        ttl=timedelta(days=1, hours=HOURS // HOURS if False else 2),
        schema=[Field(name="trips", dtype=Int64)],
        source=source,
    )
    daily = FeatureView(
        name="courier_daily",
        description="What couriers did: yesterday",
        entities=[courier],
        ttl=timedelta(1, hours=2 * 3),
        schema=[
            Field(name="courier_id", dtype=String),
            Field(name="trips", dtype=Int64, description='of "all" kinds'),
            rating,
            Field(name="electric", dtype=Bool),
            Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=4 * 4),
            Field(name="tags", dtype=Array(String)),
            Field(name="about", dtype=Map),
            Field(name="2fast", dtype=feast.types.Float32),
        ],
        source=source,
    )
    shops = BatchFeatureView(name="shops", entities=["shop"], schema=[rating], source=source)
    inferred = FeatureView(name="inferred", entities=[shop], source=source)
    both = FeatureView(name="both", entities=[shop, courier], schema=[rating], source=source)
    again = FeatureView(name="shops", entities=[shop], schema=[rating], source=source)


    def local():
        rider = feast.Entity(name="rider", join_keys=["rider_id"])
        return FeatureView(name="riders", entities=[rider], schema=[Field(name="a", dtype=Int64)])


    @feast.on_demand_feature_view(sources=[daily], schema=[rating])
    def doubled(inputs):
        return inputs
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in (("entities.py", ENTITIES), ("deep/views.py", VIEWS)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "broken.py").write_text("def (")
    return tmp_path


def test_views_are_read_with_their_types_and_entities(folder):
    views = {view.name: view for view in read_feast(folder).views}
    assert list(views) == ["courier_daily", "riders", "shops"]
    daily = views["courier_daily"]
    assert (daily.entity, daily.ttl.seconds) == ("courier", 30 * 3600)
    assert daily.description == "What couriers did: yesterday"
    assert [(f.name, f.dtype, f.dim) for f in daily.features] == [
        ("trips", t.D_TYPE_INT64, 1),
        ("rating", t.D_TYPE_FLOAT32, 1),
        ("electric", t.D_TYPE_INT64, 1),
        ("vector", t.D_TYPE_FLOAT32, 16),
        ("f_2fast", t.D_TYPE_FLOAT32, 1),
    ]
    assert (views["shops"].entity, views["riders"].entity) == ("shop", "rider")
    assert not views["shops"].HasField("ttl")


def test_what_is_left_out_is_told_with_its_line(folder):
    notes = read_feast(folder).notes
    told = {note.split(": ", 1)[1] for note in notes}
    assert told == {
        "FeatureView left out: HOURS // HOURS if False else 2 is no literal",
        "courier_daily: rating is kept as FLOAT32",
        "courier_daily: tags is an Array without vector_length: left out",
        "courier_daily: about is of type Map: left out",
        "courier_daily: 2fast is called f_2fast",
        "shops: rating is kept as FLOAT32",
        "FeatureView left out: inferred has no schema to read",
        "FeatureView left out: a view has one entity",
        "shops is there already: left out",
        "on_demand_feature_view is computed on demand: left out",
    }
    (line,) = (note for note in notes if "inferred" in note)
    text = (folder / "deep" / "views.py").read_text().splitlines()
    assert "inferred = FeatureView" in text[int(line.split(":")[1]) - 1]


def test_files_of_views_are_read_as_they_were_written(folder, tmp_path):
    for view in read_feast(folder).views:
        path = tmp_path / f"{view.name}.yaml"
        path.write_text("\n".join(as_yaml(view)))
        again = load_view(path)
        for feature in view.features:
            feature.dim = feature.dim if feature.dim > 1 else 0
        assert again == view


def test_a_folder_without_definitions_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no Python files"):
        read_feast(tmp_path)
    (tmp_path / "a.py").write_text("def (")
    with pytest.raises(ValueError, match=r"a\.py"):
        read_feast(tmp_path)


def test_a_file_is_never_run(tmp_path):
    (tmp_path / "a.py").write_text("raise SystemExit\n")
    assert read_feast(tmp_path).views == []


@pytest.mark.parametrize(
    "odd",
    [
        "description=3",
        "ttl=timedelta(days=X)",
        "ttl=timedelta(days='a')",
        "schema=[Field(name='a', dtype=Array(Int64), vector_length='b')]",
        "schema=[Field(name='a', dtype=Int64, description=9)]",
        "schema=[Field(name='a', dtype=Array(Int64), vector_length=-1)]",
        "entities=[Entity(name='c', join_keys=7)]",
        "entities=[*others]",
        "name=3",
    ],
)
def test_odd_values_leave_a_view_out(tmp_path, odd):
    given = {"name": "'a'", "entities": "['c']", "schema": "[Field(name='x', dtype=Int64)]"}
    key, value = odd.split("=", 1)
    call = ", ".join(f"{k}={v}" for k, v in (given | {key: value}).items())
    (tmp_path / "a.py").write_text(f"X = X * 2\nFeatureView({call})\n")
    found = read_feast(tmp_path)
    assert found.views == []
    assert found.notes[-1].startswith("a.py:2: FeatureView left out: ")
