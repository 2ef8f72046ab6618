"""Versions of the content towers come and go with searches, and bring their encoder along."""

from madang_candidate.content.model import CONTENT
from madang_candidate.content.towers import ContentTraining
from madang_pipelines.publish import copy_champions
from madang_pipelines.search.content import content_examples, train_towers
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import CHAMPION, ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder


def test_examples_are_shops_and_what_was_ordered_from_them(workspace, city):
    registry = workspace.registry
    encoder = Encoder(registry.load(ENCODER, registry.resolve(ENCODER)), small=True, threads=1)
    tables = city.tables
    examples = content_examples(tables, tables.frames["searches"].head(50), encoder)
    assert len(examples.ids) == len(examples.shops.text) == len(examples.shops.price)
    assert abs(examples.shops.price[:, 0].mean()) < 1e-4
    assert (examples.shops.price[:, 1] == 1).all()
    ordered = [examples.ids[row] for row in examples.searches["shop"]]
    assert ordered == tables.frames["searches"]["item_id"].head(50).to_list()


def test_a_copied_version_has_its_encoder_though_another_is_champion(workspace, tmp_path):
    source, target = (ModelRegistry(f"file://{tmp_path}/{name}") for name in ("a", "b"))
    for name in (CONTENT, ENCODER):
        source.copy(workspace.registry, name, workspace.registry.resolve(name))
    version = source.versions(CONTENT)[0]
    source.set_alias(CONTENT, CHAMPION, version)
    assert copy_champions(source, target, replace=False) == []
    assert target.resolve(CONTENT) == version
    target.load(ENCODER, target.manifest(CONTENT, version).parameters[ENCODER])
    assert not target.has_alias(ENCODER)


def test_without_searches_there_is_no_version(workspace, city, tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    for name in (CONTENT, ENCODER):
        registry.copy(workspace.registry, name, workspace.registry.resolve(name))
        registry.set_alias(name, CHAMPION, registry.versions(name)[0])
    frames = city.tables.frames | {"searches": city.tables.frames["searches"].head(50)}
    few = Tables("few", frames, city.tables.clock, city.tables.periods)
    assert train_towers(few, registry, ContentTraining(), lambda step, share: None) is None
    assert not registry.has_alias(CONTENT)
