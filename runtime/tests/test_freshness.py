"""Freshness tokens."""

import pytest

from madang_runtime.errors import MadangError, reason
from madang_runtime.freshness import merge, position, token


def test_a_service_finds_its_own_part():
    text = merge(token("it1", 7), token("fs1", 5), "", "fs1-9,it1-2")
    assert text == "fs1-9,it1-7"
    assert [position(text, log) for log in ("fs1", "it1", "xx1")] == [9, 7, 0]
    assert position("", "fs1") == 0
    assert merge("", "") == ""


@pytest.mark.parametrize(
    "text", ["x", "fs1", "fs1-", "-5", "fs1--5", "fs1-1,", "fs1-¹", "fs1-1 ,a1-2"]
)
def test_what_is_no_token_is_refused(text):
    for call in (lambda: position(text, "fs1"), lambda: merge(text)):
        with pytest.raises(MadangError) as caught:
            call()
        assert caught.value.reason == reason.ERROR_REASON_FRESHNESS_TOKEN_INVALID
