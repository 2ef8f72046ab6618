"""The intent catalogue, with a real encoder."""

import numpy as np
import pytest

from madang.search.v1 import search_pb2 as pb
from madang_runtime.metrics import Metrics
from madang_search.intents import IntentKeeper, separating
from madang_search.nearest import NearestSearcher

ENTRIES = {
    "lost": ["카드를 잃어버렸어요", "카드 분실 신고", "신용카드를 도난당했어요"],
    "where": ["주문 어디까지 왔어", "배달 언제 와요", "배달 상태를 알고 싶어요"],
    "refund": ["환불해 주세요", "돈을 돌려받고 싶어요", "결제 취소하고 환불"],
    "weather": ["오늘 날씨 어때", "내일 비가 오나요", "이번 주 기온"],
    "alarm": ["알람 맞춰 줘", "아침 일곱 시에 깨워 줘", "기상 알람을 설정해"],
}


@pytest.fixture(scope="module")
def nearest(encoder):
    return NearestSearcher(encoder, Metrics())


def keeper(encoder, **entries):
    made = IntentKeeper()
    made.attach(encoder)
    made.apply({key: one.SerializeToString() for key, one in entries.items()}, False)
    return made


def plain():
    return {key: pb.Intent(intent_id=key, phrases=said) for key, said in ENTRIES.items()}


def first(found):
    return (found[0].intent_id, found[0].matched) if found else None


def test_the_nearest_entry_matches(encoder, nearest):
    catalogue = keeper(encoder, **plain()).catalogue(encoder)
    found = catalogue.match(nearest, "신용카드를 잃어버렸는데요", "", 0.5)
    assert first(found) == ("lost", True)
    assert found[0].phrase in ENTRIES["lost"]
    assert [m.similarity for m in found] == sorted((m.similarity for m in found), reverse=True)
    assert {m.intent_id for m in found} == {*ENTRIES}
    assert first(catalogue.match(nearest, "배달 언제 도착해요", "", 0.5)) == ("where", True)


def test_an_entry_has_its_own_threshold_switch_and_area(encoder, nearest):
    entries = plain()
    entries["lost"].threshold = 0.999
    entries["where"].disabled = True
    entries["refund"].area = "help"
    entries["refund"].path[:] = ["pay", "refund"]
    catalogue = keeper(encoder, **entries).catalogue(encoder)
    lost = catalogue.match(nearest, "카드를 잃어버린 것 같아요", "", 0.1)[0]
    assert (lost.intent_id, lost.threshold, lost.matched) == ("lost", pytest.approx(0.999), False)
    ids = {m.intent_id for m in catalogue.match(nearest, "배달 언제 와요", "home", 0.1)}
    assert ids == {"lost", "weather", "alarm"}
    found = catalogue.match(nearest, "환불", "help", 0.1)
    (refund,) = (m for m in found if m.intent_id == "refund")
    assert list(refund.path) == ["pay", "refund"]


def test_no_entry_captures_everything(encoder, nearest):
    """With suggested thresholds, phrases of other entries and strange ones lead nowhere."""
    entries = plain()
    catalogue = keeper(encoder, **entries).catalogue(encoder)
    for at, entry in enumerate(catalogue.entries):
        studied = catalogue.study(at, 0.5)
        assert 0.2 < studied.suggested_threshold < 0.9
        entries[entry.intent_id].threshold = studied.suggested_threshold
    catalogue = keeper(encoder, **entries).catalogue(encoder)
    strange = ["asdf qwer", "삼각형의 넓이", "한국의 수도", "파란 자전거", "피아노 소나타 3번"]
    others = [said for said_of in ENTRIES.values() for said in said_of]
    for at, entry in enumerate(catalogue.entries):
        taken = [
            query
            for query in (*others, *strange)
            if any(
                m.matched and m.intent_id == entry.intent_id
                for m in catalogue.match(nearest, query, "", 0.5)
            )
        ]
        assert len(taken) <= len(entry.phrases) + 2, (entry.intent_id, taken)
        assert catalogue.study(at, 0.5).captures < 0.2


def test_an_entry_that_captures_everything_is_told(encoder):
    entries = plain()
    entries["weather"].threshold = 1e-6
    catalogue = keeper(encoder, **entries).catalogue(encoder)
    captures = {
        e.intent_id: catalogue.study(i, 0.5).captures for i, e in enumerate(catalogue.entries)
    }
    assert max(captures, key=captures.get) == "weather"
    assert captures["weather"] > 0.6


def test_an_entry_that_another_takes_is_told(encoder):
    entries = plain()
    entries["stolen"] = pb.Intent(intent_id="stolen", phrases=["카드 분실했어요", "환불해 줘요"])
    catalogue = keeper(encoder, **entries).catalogue(encoder)
    (studied,) = (
        catalogue.study(at, 0.5)
        for at, entry in enumerate(catalogue.entries)
        if entry.intent_id == "stolen"
    )
    assert studied.self_accuracy < 1
    assert studied.rival in ("lost", "refund")


def test_entries_change_and_go(encoder, nearest):
    kept = keeper(encoder, **plain())
    kept.apply(
        {
            "lost": None,
            "alarm": pb.Intent(intent_id="alarm", phrases=["카드 분실"]).SerializeToString(),
        },
        False,
    )
    catalogue = kept.catalogue(encoder)
    assert first(catalogue.match(nearest, "카드 분실", "", 0.5)) == ("alarm", True)
    assert [e.intent_id for e in catalogue.entries] == ["alarm", "refund", "weather", "where"]
    kept.apply({}, True)
    assert kept.catalogue(encoder).match(nearest, "카드 분실", "", 0.5) == []


def test_a_single_entry_has_no_strangers(encoder):
    alone = pb.Intent(intent_id="x", phrases=["하나"])
    assert keeper(encoder, x=alone).catalogue(encoder).study(0, 0.5) == pb.ListedIntent(
        intent=alone
    )


@pytest.mark.parametrize(
    ("friends", "strangers", "low", "high"),
    [
        ([0.8, 0.9], [0.1, 0.4], 0.4, 0.8),
        ([0.9], [0.9, 0.2], 0.2, 0.9),
        ([0.1, 0.9, 0.95], [0.2, 0.3], 0.3, 0.9),
    ],
)
def test_the_threshold_that_separates_best(friends, strangers, low, high):
    found = separating(np.array(friends, np.float32), np.array(strangers, np.float32))
    assert low < found <= high
