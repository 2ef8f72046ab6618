"""Ids of a batch."""

from collections import Counter
from collections.abc import Sequence

from madang_runtime.errors import invalid


def check_distinct(ids: Sequence[str], field: str) -> None:
    """Refuse a batch in which an id is empty or comes twice. Raises: MadangError FIELD_INVALID."""
    if "" in ids:
        raise invalid(field, "has an empty id")
    if twice := [id_ for id_, n in Counter(ids).items() if n > 1]:
        raise invalid(field, f"has {twice[0]!r} twice")
