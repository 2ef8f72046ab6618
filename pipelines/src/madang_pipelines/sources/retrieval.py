"""Sets of queries, documents and judgements, and sentence pairs, from public files."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from madang_pipelines.own.search_sets import SentencePairs
from madang_pipelines.search.retrieval import RetrievalSet

_COLUMN = re.compile(r"COL (\S+) VAL (.*?)(?= COL |$)")
_SPLITS = ("train", "valid", "test")


def read_offers(folder: Path) -> RetrievalSet:
    """Product offers of two shops (`COL … VAL …` left ⇥ right ⇥ 0/1 in train, valid and test): the
    offers of the left shop are queries, those of the right one documents."""
    documents: dict[str, int] = {}
    answers: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for split in _SPLITS:
        for line in (folder / f"{split}.txt").read_text("utf-8").splitlines():
            left, right, label = line.split("\t")
            at = documents.setdefault(right, len(documents))
            if label == "1":
                answers[left, split][at] = 1
    found = [dict(_COLUMN.findall(right.strip())) for right in documents]
    return RetrievalSet(
        titles=[offer.get("title", "") for offer in found],
        bodies=[_rest(offer) for offer in found],
        queries=[_flat(left) for left, _ in answers],
        relevant=list(answers.values()),
        split=[split for _, split in answers],
    )


def read_cranfield(folder: Path) -> RetrievalSet:
    """The Cranfield abstracts. Judgements number queries by position; code 1 is the best answer, 4
    the least, 5 and -1 none. Every fifth query is of "valid", the others of "test"."""
    records = _records(folder / "cran.all.1400")
    queries = [text for _, text in _records(folder / "cran.qry")]
    relevant: list[dict[int, int]] = [{} for _ in queries]
    for line in (folder / "cranqrel").read_text("utf-8").splitlines():
        query, document, code = (int(cell) for cell in line.split()[:3])
        if 1 <= code <= 4:
            relevant[query - 1][document - 1] = 5 - code
    return RetrievalSet(
        titles=[title for title, _ in records],
        bodies=[text for _, text in records],
        queries=queries,
        relevant=relevant,
        split=["valid" if at % 5 == 0 else "test" for at in range(len(queries))],
    )


def read_sentence_pairs(path: Path) -> SentencePairs:
    """KorSTS (Ham et al. 2020, arXiv:2004.03289): score, sentence1 and sentence2 of a TSV."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return SentencePairs(
        [row["sentence1"] for row in rows],
        [row["sentence2"] for row in rows],
        np.array([float(row["score"]) / 5 for row in rows], np.float32),
    )


def read_paraphrases(path: Path) -> list[list[str]]:
    """ParaKQC (Cho et al. 2020, arXiv:2010.00000): a thousand groups of ten ways to say one thing,
    a line each: topic, kind, sentence."""
    lines = path.read_text("utf-8").splitlines()
    sentences = [line.split("\t")[-1] for line in lines if line.strip()]
    return [sentences[at : at + 10] for at in range(0, len(sentences), 10)]


def _records(path: Path) -> list[tuple[str, str]]:
    """Title (.T) and text (.W) of each record that begins with .I."""
    found = []
    for record in re.split(r"^\.I .*\n", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        parts = re.split(r"^\.([TABW])\s*\n", record, flags=re.MULTILINE)
        fields = {
            name: " ".join(text.split())
            for name, text in zip(parts[1::2], parts[2::2], strict=True)
        }
        found.append((fields.get("T", ""), fields.get("W", "")))
    return found


def _flat(offer: str) -> str:
    values = (value.strip() for name, value in _COLUMN.findall(offer.strip()) if name != "price")
    return " ".join(value for value in values if value)


def _rest(offer: dict[str, str]) -> str:
    kept = (value.strip() for name, value in offer.items() if name not in ("title", "price"))
    return " ".join(value for value in kept if value)
