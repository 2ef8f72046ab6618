"""Which of several data sets each service learns from, in the demo on own files."""

import pytest

from madang_cli.own_demo import choose
from madang_pipelines.imports.mapping import read_mapping


@pytest.fixture
def mappings(tmp_path):
    tables = {
        "lists": "interactions: {files: a.csv, columns: {user: u, item: i}}",
        "visits": (
            "interactions: {files: a.csv, columns: {user: u, item: i}}\n"
            "items: {files: b.csv, columns: {item: i}}"
        ),
        "clicks": "clicks: {files: a.csv, columns: {label: l}, categories: [c]}",
        "alike": "alike: {files: a.csv, columns: {first: f, second: s, score: n}}",
        "phrases": "intents: {files: a.csv, columns: {intent: i, phrase: p}}",
        "places": "documents: {files: a.csv, columns: {document: d}}",
        "products": "pairs: {files: a.csv, columns: {query: q, title: t}}",
    }
    found = []
    for name, text in tables.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: {name}\n{text}\n")
        found.append(read_mapping(path))
    return found


def names(chosen):
    return {service: [m.name for m in own] for service, own in chosen.items()}


def test_the_richest_is_learned_from_and_all_documents_are_found(mappings):
    assert names(choose(mappings)) == {
        "candidate": ["visits"],
        "search": ["products", "places"],
    }


def test_what_is_alone_is_taken(mappings):
    assert names(choose([m for m in mappings if m.name == "clicks"])) == {"ranker": ["clicks"]}
    wordless = [m for m in mappings if m.name in ("alike", "phrases")]
    assert names(choose(wordless)) == {"search": ["alike"]}  # nothing else is to be found
    assert choose([]) == {}
