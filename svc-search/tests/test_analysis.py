"""Terms, highlights and corrections."""

import pytest

from madang.search.v1 import search_pb2 as pb
from madang_search.analysis import grams, normal
from madang_search.correction import Dictionary, correct
from madang_search.highlight import Highlighter


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("매운 떡볶이 배달되는 곳", ["맵", "떡볶이", "배달", "곳"]),
        ("running Shoes, B-52", ["run", "shoe", "b", "52"]),
        ("iPhone15프로 케이스", ["iphone15", "프로", "케이스"]),
        ("그리고", ["그리고"]),  # a word without content stands for itself
        ("ㅋㅋ", ["ㅋㅋ"]),
        ("... !", []),
        ("", []),
    ],
)
def test_terms(analyzer, text, terms):
    assert [term.text for term in analyzer.terms(text)] == terms


def test_terms_tell_where_they_stand(analyzer):
    text = "골목 김치찌개 & Running"
    found = {
        term.text: text[term.start : term.start + term.length] for term in analyzer.terms(text)
    }
    assert found == {"골목": "골목", "김치찌개": "김치찌개", "run": "Running"}


def test_pairs_of_syllables():
    assert grams("김치찌개 집 pizza") == ["김치", "치찌", "찌개", "집"]


def test_normal_form():
    assert normal(" \u1100\u1161  나\x00다\t \n 줄 ") == "가  나 다\n줄"


def marked(highlights):
    """Field and text with brackets around what matches."""
    out = []
    for one in highlights:
        text = one.text
        for span in reversed(one.spans):
            end = span.start + span.length
            text = f"{text[: span.start]}[{text[span.start : end]}]{text[end:]}"
        out.append((one.field, text))
    return out


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("김치찌개", [("title", "골목 [김치찌개]"), ("body", "돼지 [김치찌개] 정식")]),
        ("김치", [("title", "골목 [김치]찌개"), ("body", "돼지 [김치]찌개 정식")]),
        ("shoe", [("body", "running [shoes] here")]),
        ("골목 돼지", [("title", "[골목] 김치찌개"), ("body", "[돼지] 김치찌개 정식")]),
        ("피자", []),
    ],
)
def test_highlights(analyzer, query, found):
    document = pb.Document(title="골목 김치찌개", body="돼지 김치찌개 정식\nrunning shoes here")
    highlighter = Highlighter(analyzer)
    assert marked(highlighter.mark(document, analyzer.terms(query), query)) == found


def test_a_long_line_is_cut_around_the_match(analyzer):
    document = pb.Document(title="x", body="가 " * 300 + "떡볶이 " + "나 " * 300)
    (only,) = Highlighter(analyzer).mark(document, analyzer.terms("떡볶이"), "떡볶이")
    assert len(only.text) == 160
    assert marked([only])[0][1].count("[떡볶이]") == 1


WORDS = Dictionary(
    {"떡볶이": 9, "김치찌개": 5, "pizza": 4, "피자": 6, "육개장": 2, "맛집": 8, "집": 3}
)


@pytest.mark.parametrize(
    ("query", "corrected"),
    [
        ("떡뽁이 맛집", "떡볶이 맛집"),
        ("김치찌게", "김치찌개"),
        ("육계장!", "육개장!"),
        ("vlwk", "피자"),
        ("ㅔㅑㅋㅋㅁ", "pizza"),
        ("pizaz", "pizza"),
        ("피자 맛집", ""),
        ("강남역", ""),
        ("", ""),
    ],
)
def test_corrections(query, corrected):
    assert correct(query, WORDS, lambda word: False) == corrected


def test_a_known_word_is_never_corrected():
    assert correct("떡뽁이", WORDS, lambda word: True) == ""


def test_of_a_long_query_some_words_are_corrected():
    assert correct("떡뽁이 " * 60, WORDS, lambda word: False).count("떡볶이") == 8


def test_of_words_as_near_the_most_used_one():
    dictionary = Dictionary({"cart": 1, "card": 7, "care": 3})
    assert dictionary.nearest("carx") == "card"
    assert dictionary.nearest("xxxxxx") is None
    assert dictionary.nearest("ca") is None  # too short to tell
