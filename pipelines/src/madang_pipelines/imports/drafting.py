"""A mapping to begin with, from a file that has none."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from madang_pipelines.imports.guessing import Guess
from madang_pipelines.imports.mapping import NEEDED, TABLES

_ALSO = {
    "user": ("user_id", "userid", "customer_id", "client_id", "member_id", "uid"),
    "item": ("item_id", "itemid", "product_id", "movie_id", "place_id", "asin", "id"),
    "time": ("timestamp", "date", "datetime", "created_at", "order_time", "ts"),
    "label": ("click", "clicked", "target", "y", "is_click", "clk"),
    "order": ("order_id", "order no", "order_no", "id"),
    "shop": ("shop_id", "store_id", "restaurant_id", "merchant_id", "vendor_id"),
    "courier": ("courier_id", "rider", "rider_id", "driver_id", "delivery_person_id"),
    "minutes": ("time_taken(min)", "duration", "delivery_time", "eta", "time_taken", "minutes"),
    "latitude": (
        "lat",
        "delivery_location_latitude",
        "drop_lat",
        "destination lat",
        "dropoff_latitude",
    ),
    "longitude": (
        "lng",
        "lon",
        "long",
        "delivery_location_longitude",
        "drop_lng",
        "destination long",
    ),
    "origin_latitude": ("pickup_lat", "restaurant_latitude", "pickup lat", "pickup_latitude"),
    "origin_longitude": ("pickup_lng", "restaurant_longitude", "pickup long", "pickup_longitude"),
    "document": ("doc_id", "document_id", "docid", "id", "_id"),
    "query": ("query_id", "qid"),
    "text": ("body", "description", "content", "address"),
    "title": ("name",),
    "intent": ("label", "category", "class"),
    "phrase": ("text", "utterance", "sentence", "query"),
    "first": ("sentence1", "sentence_1"),
    "second": ("sentence2", "sentence_2"),
    "told": ("treatment", "treated", "exposure", "is_treated"),
    "clicked": ("visit", "click", "response", "y", "opened"),
    "ordered": ("conversion", "purchase", "converted", "bought"),
    "campaign": ("campaign_id",),
    "channel": ("contact",),
    "name": ("title",),
    "category": ("genre", "type"),
}
_TAKEN = re.compile(r"time.taken|minutes|seconds|duration|time from|delivery.time")
_LONG = 600  # longer orders than of so many minutes are likely counted in seconds
_GROUPS = (3, 2000)
"""Values that a category has at least and at most, if nothing else says that it is one."""


def likely_table(guesses: Sequence[Guess]) -> str:
    """The table of which the columns have most."""

    def fit(table: str) -> tuple[bool, float]:  # of equals the one that has fewer
        found = _columns(table, guesses)
        whole = all(column in found for column in NEEDED[table]) and bool(found)
        return whole, len(found) - len(TABLES[table]) / 100

    return max(TABLES, key=fit)


def draft(path: Path, guesses: Sequence[Guess], table: str, quoted: bool = True) -> str:
    """A mapping of one file as YAML, to be read and corrected by who knows it; `quoted` says
    whether quotes in it mean anything."""
    columns = _columns(table, guesses)
    used = {*columns.values()}
    rest = [g for g in guesses if g.name not in used and g.kind != "empty"]
    numbers = [g.name for g in rest if g.kind in ("number", "whole number")]
    categories = [
        g.name
        for g in rest
        if g.kind in ("category", "yes or no") and _GROUPS[0] - 1 <= g.distinct <= _GROUPS[1]
    ]
    lines = [f"name: {path.name.split('.')[0]}", f"{table}:", f"  files: {path.name}"]
    if not quoted:
        lines.append('  quote: ""')
    forms, most = {g.name: g.form for g in guesses}, {g.name: g.most for g in guesses}
    lines += ["  columns:"]
    for column, name in columns.items():
        more = f', format: "{forms[name]}"' if column == "time" and forms[name] else ""
        if column == "minutes" and (most[name] or 0) > _LONG:
            more = ", unit: seconds"
        lines.append(
            f"    {column}: {f'{{column: {_quoted(name)}{more}}}' if more else _quoted(name)}"
        )
    lines += [f"    {c}: ?  # needed" for c in NEEDED[table] if c not in columns]
    if table in ("clicks", "orders", "sends", "users", "items"):
        if table == "clicks":
            categories += [g.name for g in rest if g.kind == "id"]
        for key, names in (("numbers", numbers), ("categories", categories)):
            if names:
                lines.append(f"  {key}: [{', '.join(map(_quoted, names))}]")
    return "\n".join(lines)


def _columns(table: str, guesses: Sequence[Guess]) -> dict[str, str]:
    names = {g.name.lower().strip().rpartition(".")[2]: g.name for g in guesses}
    found: dict[str, str] = {}
    for column in TABLES[table]:
        for candidate in (column, *_ALSO.get(column, ())):
            if (name := names.get(candidate)) and name not in found.values():
                found[column] = name
                break
    times = [g.name for g in guesses if g.kind == "time" and g.name not in found.values()]
    if "time" in TABLES[table] and "time" not in found and times:
        found["time"] = times[0]
    if "minutes" in TABLES[table] and "minutes" not in found:
        likely = [names[name] for name in names if _TAKEN.search(name)]
        if free := [name for name in likely if name not in found.values()]:
            found["minutes"] = free[0]
    return found


def _quoted(name: str) -> str:
    words = name.replace("_", "").replace(" ", "")
    plain = words.isalpha() and name.lower() not in ("y", "n", "yes", "no", "on", "off")
    return name if plain else json.dumps(name, ensure_ascii=False)
