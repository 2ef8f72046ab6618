"""What a training on someone's data is worth, and its model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from madang_pipelines.tables import Rejected

OURS = "ours"


@dataclass(frozen=True)
class Score:
    """A metric of one side.

    Attributes:
        value: the mean.
        spread: half the width of its 95 % interval, 0 where that is not known.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    value: float
    spread: float = 0.0
    better: int = 1

    def text(self) -> str:
        """As people read it, with no more digits than its spread bears."""
        digits = 1 if abs(self.value) >= 10 else 3 if self.spread >= 0.003 else 4
        spread = f" ± {self.spread:.{digits}f}" if self.spread else ""
        return f"{self.value:.{digits}f}{spread}"


@dataclass(frozen=True)
class Report:
    """A training.

    Attributes:
        service: whose model it is.
        data: what the data set is called.
        versions: the registered version of each model.
        judged: what was held out, in a sentence.
        scores: each side's metrics by name; ours is `OURS`.
        chosen: what was chosen from the data, and what it is.
        notes: what else there is to know.
        quality: what was set aside, by file.
    """

    service: str
    data: str
    versions: Mapping[str, str]
    judged: str
    scores: Mapping[str, Mapping[str, Score]]
    chosen: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    quality: Sequence[Rejected] = ()


def table(scores: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """A table in Markdown; the best of each metric is bold."""
    metrics = list(dict.fromkeys(name for own in scores.values() for name in own))
    best = {
        m: max(own[m].better * own[m].value for own in scores.values() if m in own) for m in metrics
    }
    rows = [f"| | {' | '.join(metrics)} |", f"|---|{'---:|' * len(metrics)}"]
    for side, own in scores.items():
        cells = []
        for m in metrics:
            text = own[m].text() if m in own else ""
            first = m in own and own[m].better and own[m].better * own[m].value == best[m]
            cells.append(f"**{text}**" if first else text)
        rows.append(f"| {side} | {' | '.join(cells)} |")
    return rows


def card(report: Report, made: date, features: Sequence[str] = ()) -> str:
    """The model card (Mitchell et al., "Model cards for model reporting", FAccT 2019): what it is,
    what it learned from, how good it is beside simpler ones, and what to know before it is used."""
    names = ", ".join(report.versions)
    lines = [
        f"# {names}: {report.data}",
        "",
        f"Trained on {made.isoformat()} for {report.service}.",
    ]
    lines += ["", "## How good it is", "", report.judged, "", *table(report.scores)]
    if report.chosen:
        lines += ["", "## What was chosen from the data", ""]
        lines += [f"- {what}: {value}" for what, value in report.chosen.items()]
    if features:
        lines += ["", "## What it reads", "", *(f"- {name}" for name in features)]
    lines += ["", "## Data", ""]
    for q in report.quality:
        reasons = ", ".join(f"{n:,} {why}" for why, n in q.reasons().items())
        lines.append(f"- {q.source}: {q.read:,} rows read, {reasons or 'none'} set aside")
    if report.notes:
        lines += ["", "## To know", "", *(f"- {note}" for note in report.notes)]
    return "\n".join(lines) + "\n"
