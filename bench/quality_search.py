"""`make quality-search`: how good search is in the simulated city, and on public sets where DATA=
is given.

Writes docs/results/search-city.md, search.md and search-folds.md.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from quality_blocks import blocks_table
from quality_content import content_table
from quality_keywords import list_table, sequence_table
from rich.console import Console
from rich.progress import Progress

from madang_pipelines.city.names import CATEGORIES
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.own.search_lab import sentence_objectives, similar
from madang_pipelines.search.documents import shop_documents, upserts
from madang_pipelines.search.evaluation import bootstrap
from madang_pipelines.search.keywords.log import keyword_log
from madang_pipelines.search.retrieval import BOTH, MEANING, WORDS, Judged, RetrievalSet, Searcher
from madang_pipelines.search.training import (
    DENSE_WEIGHT,
    EncoderTraining,
    register_encoder,
    train_encoder,
)
from madang_pipelines.sources.retrieval import (
    read_cranfield,
    read_offers,
    read_paraphrases,
    read_sentence_pairs,
)
from madang_pipelines.tables import Tables
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_runtime.text.tokens import TextTokens
from madang_search.backbone import load_backbone
from madang_search.index import rank
from madang_search.model import SentenceEncoder
from madang_search.train import Objective, Schedule, fine_tune, mean_weights

Floats = NDArray[np.float64]
RESULTS = Path(__file__).parents[1] / "docs" / "results"
_SEEDS = (0, 1, 2, 3)
_FOLDS = 5
_LEARNED = 96
"""Tokens of a text that are learned from."""
_STS = Schedule(epochs=4, batch=32, forget=0.2)
_SETS: dict[str, Callable[[Path], RetrievalSet]] = {
    "cranfield": read_cranfield,
    "amazon-google": read_offers,
    "walmart-amazon": read_offers,
}
_CROSSED = ("amazon-google", "walmart-amazon")
_METHODS = {"BM25": WORDS, "vectors": MEANING, "both": BOTH}


class Lab:
    """Trains encoders and searches with them, as the service does.

    Args:
        registry: of what is trained.
        note: told what is done.
    """

    def __init__(self, registry: ModelRegistry, note: Callable[[str, float], None]) -> None:
        self.registry = registry
        self.note = note
        self.searcher = Searcher()

    def tuned(
        self, objectives: Sequence[Objective], schedule: Schedule, what: str
    ) -> dict[str, Encoder]:
        """The backbone, fine-tuned, as it serves: "fp32" and "int8"."""
        return self.served(self.trained(objectives, schedule, what))

    def trained(
        self, objectives: Sequence[Objective], schedule: Schedule, what: str
    ) -> SentenceEncoder:
        """The backbone, fine-tuned."""
        model, tokenizer = load_backbone()
        if objectives:
            tokens = TextTokens(tokenizer, _LEARNED)

            def step(done: int, steps: int) -> None:
                self.note(what, done / steps)

            fine_tune(model, tokens, objectives, schedule, step)
        return model

    def served(self, model: SentenceEncoder) -> dict[str, Encoder]:
        """A model as it serves: "fp32" and "int8"."""
        anything = (["a"], ["b"])
        return self.load(register_encoder(model, load_backbone()[1], self.registry, anything))

    def load(self, version: str) -> dict[str, Encoder]:
        """A registered version."""
        files = self.registry.load(ENCODER, version)
        return {
            name: Encoder(files, small=small, threads=2)
            for name, small in (("fp32", False), ("int8", True))
        }


def sentence_table(data: Path, lab: Lab) -> tuple[list[str], list[dict[str, Encoder]]]:
    """KorSTS, and the encoders: before, and the mean of all seeds."""
    parts = {p: read_sentence_pairs(data / f"sts-{p}.tsv") for p in ("train", "dev", "test")}
    objectives = sentence_objectives(parts["train"])
    backbone = lab.tuned([], _STS, "")
    models = [
        lab.trained(objectives, replace(_STS, seed=seed), f"KorSTS, seed {seed}") for seed in _SEEDS
    ]
    tuned = [lab.served(model) for model in models]
    mean = lab.served(mean_weights(models))
    rows = ["| encoder | dev | test |", "|---|---:|---:|"]
    for name, encoders in (
        ("before", [backbone]),
        ("fine-tuned", tuned),
        (f"mean weights of these {len(_SEEDS)}", [mean]),
    ):
        for precision in ("fp32", "int8"):
            dev, test = (
                spread([100 * similar(parts[p], one[precision].encode) for one in encoders], 2)
                for p in ("dev", "test")
            )
            rows.append(f"| {name}, {precision} | {dev} | {test} |")
    return rows, [backbone, mean]


def retrieval_table(name: str, data: RetrievalSet, lab: Lab) -> list[str]:
    """BM25, vectors and both, before and after fine-tuning."""
    rows = [
        f"| {name}: {len(data.titles):,} documents, {len(data.of('test'))} queries "
        "| nDCG@10 | Recall@10 |",
        "|---|---:|---:|",
    ]
    for state in ("before", "fine-tuned"):
        found = judged(data, name, lab, tuned=state == "fine-tuned")
        best, scored = found.weight, found.scored
        labels = {"BM25": "BM25"} if state == "before" else {}
        labels |= {
            "vectors": f"vectors, {state}",
            "default": f"both, {state}, as by default ({DENSE_WEIGHT})",
            "tuned": f"both, {state}, share of vectors tuned on valid ({best:.2f})",
        }
        for side, label in labels.items():
            rows.append(_row(label, scored[side]))
        rows += gains(scored)
    return rows


def crossed_table(name: str, data: RetrievalSet, lab: Lab) -> list[str]:
    """The same after fine-tuning, with each query held out once: a fold is tested, the next one
    tunes the share of vectors, the others are learned from."""
    fold = np.random.default_rng(0).permutation(len(data.queries)) % _FOLDS
    parts = []
    for held in range(_FOLDS):
        role = {held: "test", (held + 1) % _FOLDS: "valid"}
        own = replace(data, split=[role.get(int(at), "train") for at in fold])
        parts.append(judged(own, f"{name}, fold {held + 1}", lab).scored)
    scored = {side: np.concatenate([part[side] for part in parts], axis=1) for side in parts[0]}
    rows = [f"| {name}: all {len(data.queries):,} queries, {_FOLDS} folds | nDCG@10 | Recall@10 |"]
    rows.append("|---|---:|---:|")
    for side, label in {"BM25": "BM25", "vectors": "vectors", "tuned": "both"}.items():
        rows.append(_row(label, scored[side]))
    return rows + gains(scored)


def judged(data: RetrievalSet, name: str, lab: Lab, *, tuned: bool = True) -> Judged:
    """Answers by the backbone, or by it fine-tuned."""
    came = lab.tuned([], _STS, "")["int8"]
    if not tuned:
        return lab.searcher.judged(data, came)
    schedule = Schedule(epochs=3, batch=32, learning_rate=2e-4, forget=0.1)
    learned = lab.searcher.adapted(data, came)
    return lab.searcher.judged(data, lab.tuned(learned, schedule, name)["int8"])


def gains(scored: dict[str, Floats]) -> list[str]:
    """What both gain over each, with 95 % intervals."""
    rows = []
    for part in ("BM25", "vectors"):
        found = (bootstrap(b - a) for a, b in zip(scored[part], scored["tuned"], strict=True))
        cells = " | ".join(f"{g.mean:+.4f} ({g.low:+.4f} to {g.high:+.4f})" for g in found)
        rows.append(f"| gain of the last over {part} | {cells} |")
    return rows


def _row(label: str, scored: Floats) -> str:
    return f"| {label} | {' | '.join(f'{values.mean():.4f}' for values in scored)} |"


def intent_table(groups: list[list[str]], encoders: Sequence[dict[str, Encoder]]) -> list[str]:
    """ParaKQC: which of a thousand intents a sentence means, by a few examples of each."""
    rows = ["| examples of an intent | before | fine-tuned on KorSTS |", "|---|---:|---:|"]
    coded = [one["int8"].encode([s for g in groups for s in g]) for one in encoders]
    shaped = [v.reshape(len(groups), -1, v.shape[1]) for v in coded]
    for count in (1, 3, 5):
        cells = []
        for vectors in shaped:
            examples = vectors[:, :count].reshape(-1, vectors.shape[2])
            rest = vectors[:, count:].reshape(-1, vectors.shape[2])
            nearest = (rest @ examples.T).argmax(1) // count
            truth = np.repeat(np.arange(len(groups)), vectors.shape[1] - count)
            cells.append(f"{100 * float((nearest == truth).mean()):.1f}")
        rows.append(f"| {count} | {' | '.join(cells)} |")
    return rows


def city_table(tables: Tables, lab: Lab) -> tuple[list[str], Encoder]:
    """Searches of the held-out period: how many of ten places hold the kind that was ordered; and
    the city's encoder."""
    shops = shop_documents(tables)
    own = {row: str(at) for at, row in enumerate(shops["document_id"].to_list())}
    kinds = shops["category"].to_list()
    listed = upserts(shops.with_columns(pl.col("document_id").replace_strict(own)))
    held = tables.frames["searches"].filter(pl.col("period") == tables.test_period)
    held = held.filter(pl.col("item_id").is_in([*own])).sample(1000, seed=0, shuffle=True)
    meant = {word: kind.korean for kind in CATEGORIES for word in kind.asked}
    worded = [query in meant for query in held["query"]]
    queries = held["query"].to_list()
    truth = [kinds[int(own[item])] for item in held["item_id"]]
    version = train_encoder(tables, lab.registry, EncoderTraining(), lab.note)
    encoders = {"before": lab.tuned([], _STS, "")["int8"], "fine-tuned": lab.load(version)["int8"]}
    rows = [
        f"| 1,000 searches | all | the {sum(worded)} that no menu has | without an answer |",
        "|---|---:|---:|---:|",
    ]
    for state, encoder in encoders.items():
        index = lab.searcher.index(listed, encoder)
        near = float(lab.registry.manifest(ENCODER, version).parameters["near"])
        for label, method in _METHODS.items():
            if label == "BM25" and state != "before":
                continue
            shares, none = [], 0
            for query, kind in zip(queries, truth, strict=True):
                found = lab.searcher.found(index, query, method)
                first = found.documents(rank(found, method, DENSE_WEIGHT, near).order[:10])
                none += not first
                right = [document is not None and document.category == kind for document in first]
                shares.append(sum(right) / 10)
            means = (
                np.mean(shares),
                np.mean([s for s, w in zip(shares, worded, strict=True) if w]),
            )
            cells = " | ".join(f"{100 * mean:.1f}" for mean in means)
            name = label if label == "BM25" else f"{label}, {state}"
            rows.append(f"| {name} | {cells} | {100 * none / len(queries):.1f} |")
    return rows, encoders["fine-tuned"]


def spread(values: Sequence[float], digits: int) -> str:
    """A mean, and the range in brackets where there are several."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def report(data: Path, lab: Lab, started: float) -> Iterator[str]:
    """The lines of the page."""
    sentences, encoders = sentence_table(data / "korsts", lab)
    intents = intent_table(read_paraphrases(data / "parakqc" / "paraKQC_v1.txt"), encoders)
    tables = [retrieval_table(name, read(data / name), lab) for name, read in _SETS.items()]
    yield "# Search\n"
    minutes = (time.monotonic() - started) / 60
    yield f"Made by `make quality-search DATA=…` in {minutes:.0f} min on two cores."
    yield f"Seeds {', '.join(map(str, _SEEDS))} where a range is in brackets; int8 serves.\n"
    yield "## Korean sentences: KorSTS\n"
    yield "Spearman's rank correlation × 100. Fine-tuned on its train part.\n"
    yield from sentences
    yield "\n## Intents: ParaKQC\n"
    yield (
        "The encoder of mean weights, which has not seen ParaKQC. A thousand intents of ten "
        "sentences; so many are examples, the others are asked: share (× 100) of which the nearest "
        "example is of the right intent.\n"
    )
    yield from intents
    yield "\n## Queries and documents\n"
    yield (
        "Fine-tuned on the pairs of train; Cranfield, which has none, on titles and their texts. "
        "Gains by paired bootstrap, with 95 % intervals.\n"
    )
    for table in tables:
        yield from table
        yield ""


def report_folds(data: Path, lab: Lab) -> Iterator[str]:
    """The lines of the page on all queries of the product sets."""
    yield "# Product search, every query held out once\n"
    yield (
        "Made by `make quality-search DATA=…`. The test parts hold some two hundred queries, which "
        "leaves wide intervals. Here each of five folds is tested once: the next one tunes the "
        "share of vectors, the other three are learned from.\n"
    )
    for name in _CROSSED:
        yield from crossed_table(name, _SETS[name](data / name), lab)
        yield ""


def report_city(lab: Lab) -> Iterator[str]:
    """The lines of the page on the simulated city."""
    tables = simulate(CitySize()).tables
    found, encoder = city_table(tables, lab)
    yield "# Search in the simulated city\n"
    yield "Made by `make quality-search`.\n"
    yield "## Searches\n"
    yield (
        "Held-out searches over all shops: how many of ten places (× 10) hold a shop of the kind "
        "that was ordered from. A place that stays empty counts as wrong. Some of what people type "
        "(「시원한 음료」 for a café) no menu has.\n"
    )
    yield from found
    yield "\n## Shops by content\n"
    yield (
        "Held-out searches: where the shop that was ordered from is among those that deliver to "
        "the user's home, by the vectors of texts alone and by towers that learned from orders. "
        "The latter rank what svc-candidate's reactive source proposes after a search.\n"
    )
    yield from content_table(tables, encoder)
    yield "\n## Blocks\n"
    yield (
        "Held-out searches where they were made: whether the first block is of the kind of shop "
        "that was ordered from, and the mean reciprocal rank of the shop among all that is "
        "delivered there. People agree on a query whose click entropy is below 1 bit, most of all "
        "on names; a wish (「맛집」, “noodles”) is met by shops of several kinds. What users just "
        "did is left out: in this city it gives the order away.\n"
    )
    index = lab.searcher.index(upserts(shop_documents(tables)), encoder)
    yield from blocks_table(tables, index, encoder, lab.registry)
    yield "\n## Keywords\n"
    yield (
        "What users of the held-out period searched for, among what is recommended. Before they do "
        "anything:\n"
    )
    log = keyword_log(tables)
    yield from list_table(log)
    yield (
        "\nAfter what they did within the hour before the search (means of three seeds). In this "
        "city the categories of the shops that somebody opens are nearly all that tells, which "
        "the sequence finds out by itself.\n"
    )
    yield from sequence_table(log, encoder)


def main(arguments: Iterable[str] | None = None) -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the public data sets")
    data = parser.parse_args(arguments and [*arguments]).data
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    console, started = Console(), time.monotonic()
    with Progress(console=console) as bars, tempfile.TemporaryDirectory() as folder:
        bar = bars.add_task("", total=1.0)

        def note(what: str, share: float) -> None:
            bars.update(bar, description=what, completed=share)

        lab = Lab(ModelRegistry(f"file://{folder}"), note)
        pages = {"search-city": [*report_city(lab)]}
        if data:
            pages["search"] = [*report(data / "search", lab, started)]
            pages["search-folds"] = [*report_folds(data / "search", lab)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, lines in pages.items():
        (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", "utf-8")
        console.print("\n".join(lines), markup=False)


if __name__ == "__main__":
    main()
