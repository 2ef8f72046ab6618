"""`make quality-search`: how good search is in the simulated city, and on public sets where DATA=
is given.

Writes docs/results/search-city.md, search.md and search-folds.md.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from quality_blocks import blocks_table
from quality_content import content_table
from quality_keywords import list_table, sequence_table
from rich.console import Console
from rich.progress import Progress
from scipy.stats import spearmanr

from madang.search.v1 import document_record_pb2
from madang.search.v1 import search_pb2 as pb
from madang_pipelines.city.names import CATEGORIES
from madang_pipelines.city.simulate import CitySize, simulate
from madang_pipelines.search.documents import shop_documents, upserts
from madang_pipelines.search.evaluation import bootstrap, ndcg, recall
from madang_pipelines.search.keywords.log import keyword_log
from madang_pipelines.search.training import (
    EncoderTraining,
    register_encoder,
    train_encoder,
)
from madang_pipelines.sources.retrieval import (
    RetrievalSet,
    SentencePairs,
    read_cranfield,
    read_offers,
    read_paraphrases,
    read_sentence_pairs,
)
from madang_pipelines.tables import Tables
from madang_runtime.changelog.compacted_memory import MemoryCompactedLog
from madang_runtime.changelog.follower import Follower
from madang_runtime.metrics import Metrics
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.text import ENCODER
from madang_runtime.text.encoder import Encoder
from madang_runtime.text.tokens import TextTokens
from madang_search.analysis import Analyzer, normal
from madang_search.backbone import load_backbone
from madang_search.documents import Wanted
from madang_search.exact import ExactDocuments, ExactIndex
from madang_search.index import Found, Query, rank
from madang_search.lexical import BODY, GRAMS, TITLE
from madang_search.model import SentenceEncoder
from madang_search.nearest import NearestSearcher
from madang_search.settings import SearchSettings
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
_BOTH, _WORDS, _MEANING = (
    pb.SEARCH_METHOD_UNSPECIFIED,
    pb.SEARCH_METHOD_LEXICAL,
    pb.SEARCH_METHOD_DENSE,
)
_METHODS = {"BM25": _WORDS, "vectors": _MEANING, "both": _BOTH}
_WEIGHTS = np.arange(0.05, 1.0, 0.05)
_WEIGHT = SearchSettings.model_fields["dense_weight"].default
_DEPTH = 1000


class _NoStages:
    """Times nothing."""

    def stage(self, name: str) -> Any:
        """A step that nobody watches."""
        return nullcontext()


class Lab:
    """Trains encoders and searches with them, as the service does.

    Args:
        registry: of what is trained.
        note: told what is done.
    """

    def __init__(self, registry: ModelRegistry, note: Callable[[str, float], None]) -> None:
        self.registry = registry
        self.note = note
        self.analyzer = Analyzer()

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

    def index(self, documents: Sequence[pb.Document], encoder: Encoder) -> ExactIndex:
        """The index `exact` with documents in it."""
        settings = SearchSettings()
        weights = {
            TITLE: settings.title_weight,
            BODY: settings.body_weight,
            GRAMS: settings.grams_weight,
        }
        held, log = ExactDocuments(self.analyzer, weights), MemoryCompactedLog()
        log.write(
            {
                d.document_id: document_record_pb2.DocumentRecord(document=d).SerializeToString()
                for d in documents
            }
        )
        followed = Follower(log, "documents", held.apply, Metrics())
        followed.renew()
        held.attach(encoder)
        return ExactIndex(held, NearestSearcher(encoder, Metrics()), followed)

    def found(self, index: ExactIndex, query: str, method: Any = _BOTH) -> Found:
        """What a query finds."""
        text = normal(query)
        asked = Query(text, [term.text for term in self.analyzer.terms(text)])
        return index.search(asked, Wanted(), method, _DEPTH, _NoStages())  # type: ignore[arg-type]


def positions(found: Found, method: Any, weight: float) -> list[int]:
    """The found documents in order, by the numbers that are their ids."""
    order = rank(found, method, weight, -1.0).order
    return [int(document.document_id) for document in found.documents(order[:10]) if document]


def similar(pairs: SentencePairs, encoder: Encoder) -> float:
    """Spearman's rank correlation of cosines and what people said, in hundredths."""
    vectors = encoder.encode([*pairs.first, *pairs.second])
    first, second = np.split(vectors, 2)
    return 100 * float(spearmanr((first * second).sum(1), pairs.scores)[0])


def sts_objectives(pairs: SentencePairs) -> list[Objective]:
    """How alike pairs are; and of those that say the same, that they are nearest."""
    same = np.flatnonzero(pairs.scores >= 0.8).tolist()
    return [
        Objective([pairs.first, pairs.second], {"scored": 10.0}, pairs.scores),
        Objective(
            [[pairs.first[i] for i in same], [pairs.second[i] for i in same]], {"pairs": 0.3}
        ),
    ]


def sentence_table(data: Path, lab: Lab) -> tuple[list[str], list[dict[str, Encoder]]]:
    """KorSTS, and the encoders: before, and the mean of all seeds."""
    parts = {p: read_sentence_pairs(data / f"sts-{p}.tsv") for p in ("train", "dev", "test")}
    objectives = sts_objectives(parts["train"])
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
                spread([similar(parts[p], one[precision]) for one in encoders], 2)
                for p in ("dev", "test")
            )
            rows.append(f"| {name}, {precision} | {dev} | {test} |")
    return rows, [backbone, mean]


def adapted(data: RetrievalSet, lab: Lab) -> list[Objective]:
    """What can be learned for a corpus without its test queries: the pairs of train, or where there
    are none, that a title belongs to its text; as third text the first wrong one of BM25."""
    train = data.of("train")
    texts = [f"{t}\n{b}" if b else t for t, b in zip(data.titles, data.bodies, strict=True)]
    if train:
        queries = [data.queries[q] for q in train]
        right = [next(iter(data.relevant[q])) for q in train]
        positives = [texts[at] for at in right]
    else:
        right = [at for at, body in enumerate(data.bodies) if body]
        queries, positives = [data.titles[at] for at in right], [data.bodies[at] for at in right]
    index = lab.index(documents(data), lab.tuned([], _STS, "")["int8"])
    wrong = []
    for query, answer in zip(queries, right, strict=True):
        listed = positions(lab.found(index, query, _WORDS), _WORDS, 0.0)
        other = next((at for at in listed if at != answer), (answer + 1) % len(texts))
        wrong.append(texts[other] if train else data.bodies[other] or texts[other])
    return [Objective([queries, positives, wrong], {"pairs": 1.0, "triplets": 0.5})]


def documents(data: RetrievalSet) -> list[pb.Document]:
    """The corpus; a document's id is its number."""
    return [
        pb.Document(document_id=str(at), title=normal(title) or "?", body=normal(body))
        for at, (title, body) in enumerate(zip(data.titles, data.bodies, strict=True))
    ]


def retrieval_table(name: str, data: RetrievalSet, lab: Lab) -> list[str]:
    """BM25, vectors and both, before and after fine-tuning."""
    rows = [
        f"| {name}: {len(data.titles):,} documents, {len(data.of('test'))} queries "
        "| nDCG@10 | Recall@10 |",
        "|---|---:|---:|",
    ]
    for state in ("before", "fine-tuned"):
        objectives = adapted(data, lab) if state == "fine-tuned" else []
        best, scored = judged(data, objectives, name, lab)
        labels = {"BM25": "BM25"} if state == "before" else {}
        labels |= {
            "vectors": f"vectors, {state}",
            "default": f"both, {state}, as by default ({_WEIGHT})",
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
        parts.append(judged(own, adapted(own, lab), f"{name}, fold {held + 1}", lab)[1])
    scored = {side: np.concatenate([part[side] for part in parts], axis=1) for side in parts[0]}
    rows = [f"| {name}: all {len(data.queries):,} queries, {_FOLDS} folds | nDCG@10 | Recall@10 |"]
    rows.append("|---|---:|---:|")
    for side, label in {"BM25": "BM25", "vectors": "vectors", "tuned": "both"}.items():
        rows.append(_row(label, scored[side]))
    return rows + gains(scored)


def judged(
    data: RetrievalSet, objectives: Sequence[Objective], name: str, lab: Lab
) -> tuple[float, dict[str, Floats]]:
    """The share of vectors that is best on valid; and nDCG@10 and Recall@10 of each query of test,
    shape [2, queries], by "BM25", "vectors", both as by "default" and as "tuned"."""
    schedule = Schedule(epochs=3, batch=32, learning_rate=2e-4, forget=0.1)
    index = lab.index(documents(data), lab.tuned(objectives, schedule, name)["int8"])
    asked = {q: lab.found(index, data.queries[q]) for q in data.of("valid") + data.of("test")}
    best = float(max(_WEIGHTS, key=lambda weight: mean_ndcg(data, asked, "valid", float(weight))))
    scored = {}
    for side, method, weight in (
        ("BM25", _WORDS, 0.0),
        ("vectors", _MEANING, 1.0),
        ("default", _BOTH, _WEIGHT),
        ("tuned", _BOTH, best),
    ):
        ranked = {q: positions(asked[q], method, weight) for q in data.of("test")}
        scored[side] = np.array(
            [[score(f, data.relevant[q]) for q, f in ranked.items()] for score in (ndcg, recall)]
        )
    return best, scored


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


def mean_ndcg(data: RetrievalSet, asked: dict[int, Found], split: str, weight: float) -> float:
    """Of both methods together over the queries of a split."""
    found = ((q, positions(asked[q], _BOTH, weight)) for q in data.of(split))
    return float(np.mean([ndcg(ranked, data.relevant[q]) for q, ranked in found]))


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
        index = lab.index(listed, encoder)
        near = float(lab.registry.manifest(ENCODER, version).parameters["near"])
        for label, method in _METHODS.items():
            if label == "BM25" and state != "before":
                continue
            shares, none = [], 0
            for query, kind in zip(queries, truth, strict=True):
                found = lab.found(index, query, method)
                first = found.documents(rank(found, method, _WEIGHT, near).order[:10])
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
    index = lab.index(upserts(shop_documents(tables)), encoder)
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
