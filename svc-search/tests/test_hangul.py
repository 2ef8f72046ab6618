"""Hangul as it is typed."""

import random

import pytest

from madang_search.hangul import compose, folded, keys, to_english, to_korean


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("김치", "ㄱㅣㅁㅊㅣ"),
        ("닭", "ㄷㅏㄹㄱ"),
        ("왜", "ㅇㅗㅐ"),
        ("Pizza 2인분", "pizza 2ㅇㅣㄴㅂㅜㄴ"),
        ("\u1100\u1161\u11a8", "ㄱㅏㄱ"),  # conjoining jamo
        ("ㅂㅜㄹ", "ㅂㅜㄹ"),
        ("", ""),
    ],
)
def test_keys(text, typed):
    assert keys(text) == typed


def test_what_is_half_typed_begins_what_is_typed_out():
    for whole in ("불고기", "닭갈비", "없다", "의자", "괜찮아"):
        typed = keys(whole)
        for end in range(len(typed) + 1):
            assert typed.startswith(keys(compose(typed[:end])))


def test_any_syllable_comes_back():
    syllables = [chr(code) for code in range(ord("가"), ord("힣") + 1)]
    assert [compose(keys(one)) for one in syllables] == syllables
    drawn = random.Random(0)
    for _ in range(300):
        text = "".join(drawn.choices(syllables, k=6))
        assert compose(keys(text)) == text


def test_the_other_keyboard():
    assert to_korean("rlacl Wlro") == "김치 찌개"
    assert to_korean("RLACL") == "낌치"  # a shifted key is a tense consonant
    assert to_english("ㅔㅑㅋㅋㅁ") == "pizza"
    assert to_english(to_korean("burger")) == "burger"


def test_letters_that_sound_alike():
    assert folded(keys("떡뽁이")) == folded(keys("떡볶이"))
    assert folded(keys("찌게")) == folded(keys("찌개"))
    assert folded(keys("웬일")) == folded(keys("왠일"))
    assert folded(keys("김치")) != folded(keys("긴치"))
