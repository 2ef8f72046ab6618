"""URLs of stores."""

import pytest
from pydantic import SecretStr
from redis.connection import parse_url

from madang_runtime.urls import with_password


@pytest.mark.parametrize("password", ["secret", "p@ss/w:rd#?%", "열쇠"])
@pytest.mark.parametrize("login", ["", "me@", "me:old@"])
def test_a_password_reaches_the_store_as_it_is(login, password):
    url = with_password(f"rediss://{login}store:6380/2?timeout=1", SecretStr(password))
    parsed = parse_url(url)
    assert parsed["password"] == password
    assert (parsed["host"], parsed["port"], parsed["db"]) == ("store", 6380, 2)
    assert parsed.get("username", "") == ("me" if login else "")


def test_without_one_a_url_stays_as_it_is():
    assert with_password("redis://:own@store", SecretStr("")) == "redis://:own@store"
