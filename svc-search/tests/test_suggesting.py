"""What is suggested while somebody types."""

import pytest

from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_search.lexicon import LexiconKeeper
from madang_search.suggesting import PhraseBook
from madang_search.vocabulary import Vocabulary

PREFIX, WORD = pb.SUGGESTION_KIND_PREFIX, pb.SUGGESTION_KIND_WORD
KEYBOARD, TYPO = pb.SUGGESTION_KIND_KEYBOARD, pb.SUGGESTION_KIND_TYPO
BOOK = PhraseBook(
    {"떡볶이": 10, "김치찌개": 9, "김밥": 12, "골목 김치": 1, "pizza": 5, "피자": 8, "불고기": 3}
)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ["김밥", "떡볶이", "김치찌개"]),
        ("ㄱ", ["김밥", "김치찌개", "골목 김치"]),
        ("기", ["김밥", "김치찌개", "골목 김치"]),
        ("김ㅊ", ["김치찌개", "골목 김치"]),
        ("붉", ["불고기"]),
        ("PIZ", ["pizza"]),
        ("rlaq", ["김밥"]),
        ("ㅔㅑㅋ", ["pizza"]),
        ("떡뽁", ["떡볶이"]),
        ("김챠", ["김치찌개"]),
        ("pzza", ["pizza"]),
        ("ㅁㅁㅁㅁ", []),
        ("   ", ["김밥", "떡볶이", "김치찌개"]),
        ("\U0010ffff", []),
    ],
)
def test_suggestions(typed, found):
    assert [s.text for s in BOOK.suggest(typed, 3)] == found


def test_each_says_why():
    kinds = {q: BOOK.suggest(q, 5)[-1].kind for q in ("불", "김치", "qnf", "떡뽁")}
    assert kinds == {"불": PREFIX, "김치": WORD, "qnf": KEYBOARD, "떡뽁": TYPO}


def test_every_letter_of_every_phrase_leads_there():
    for phrase in ("떡볶이", "골목 김치", "pizza"):
        for end in range(1, len(phrase) + 1):
            assert phrase in [s.text for s in BOOK.suggest(phrase[:end], 7)]


def test_an_empty_book_suggests_nothing():
    assert PhraseBook({}).suggest("김", 5) == []


def test_the_lexicon_is_made_anew_when_documents_change():
    def record(title):
        document = pb.Document(title=title, body="속초 오징어", popularity=2)
        return document_record_pb2.DocumentRecord(document=document).SerializeToString()

    vocabulary = Vocabulary()
    vocabulary.apply({"a": record("하나")}, False)
    keeper = LexiconKeeper(vocabulary)
    keeper.refresh()
    first = keeper.lexicon
    keeper.refresh()
    assert keeper.lexicon is first
    assert "오징어" in first.dictionary
    vocabulary.apply({"a": None, "b": record("둘"), "c": record("둘")}, False)
    keeper.refresh()
    (only,) = keeper.lexicon.book.suggest("", 3)
    assert (only.text, only.popularity) == ("둘", 4)
    assert "하나" not in keeper.lexicon.dictionary
    vocabulary.apply({}, True)
    keeper.refresh()
    assert len(keeper.lexicon.book) == 0
