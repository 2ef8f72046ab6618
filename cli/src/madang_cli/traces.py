"""Reads traces from a file of OTLP JSON lines and draws them as a waterfall."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from madang_cli.mesh.mesh import wait_for

_BAR = 24
_COLOURS = {
    "madang-gateway": "bright_black",
    "madang-ranker": "magenta",
    "madang-candidate": "cyan",
    "madang-featurestore": "green",
}


@dataclass
class Span:
    """A span with its children; times in nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    start: int
    end: int
    attributes: dict[str, Any]
    failed: bool
    children: list["Span"] = field(default_factory=list)

    @property
    def milliseconds(self) -> float:
        """Its length."""
        return (self.end - self.start) / 1e6


def all_spans(path: Path) -> list[Span]:
    """All spans of all traces."""
    with path.open(encoding="utf-8") as lines:
        return [span for line in lines for span in _spans(json.loads(line))]


def read_spans(path: Path, trace_id: str) -> list[Span]:
    """All spans of a trace."""
    found = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if trace_id in line:
                found += [s for s in _spans(json.loads(line)) if s.trace_id == trace_id]
    return found


def _spans(document: dict[str, Any]) -> Iterator[Span]:
    for resource in document["resourceSpans"]:
        service = _attributes(resource["resource"]).get("service.name", "?")
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Span(
                    span["traceId"],
                    span["spanId"],
                    span.get("parentSpanId", ""),
                    service,
                    span["name"],
                    int(span["startTimeUnixNano"]),
                    int(span["endTimeUnixNano"]),
                    _attributes(span),
                    span.get("status", {}).get("code") == "STATUS_CODE_ERROR",
                )


def _attributes(holder: dict[str, Any]) -> dict[str, Any]:
    return {a["key"]: next(iter(a["value"].values())) for a in holder.get("attributes", ())}


def tree(spans: list[Span]) -> list[Span]:
    """Link children to parents; returns those without a parent in the trace."""
    by_id = {s.span_id: s for s in spans}
    roots: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start):
        span.children.clear()
        parent = by_id.get(span.parent_id)
        (parent.children if parent else roots).append(span)
    return roots


def is_whole(spans: list[Span]) -> bool:
    """Whether the root has arrived, every span's parent, and what the gateway handed a call to."""
    known = {s.span_id for s in spans}
    parents = {s.parent_id for s in spans}
    handed_on = {s.span_id for s in spans if s.service == "madang-gateway" and not s.failed}
    return bool(spans) and parents - {""} <= known and handed_on <= parents


def draw(spans: list[Span], console: Console) -> None:
    """Print the waterfall."""
    start, end = min(s.start for s in spans), max(s.end for s in spans)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("service", no_wrap=True)
    table.add_column("span", no_wrap=True, max_width=34)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column(f"0 … {(end - start) / 1e6:.1f} ms", no_wrap=True)
    for depth, span in _walk(tree(spans), 0):
        colour = "red" if span.failed else _COLOURS.get(span.service, "white")
        table.add_row(
            Text(span.service.removeprefix("madang-"), colour),
            Text("  " * depth + _short(span)),
            f"{span.milliseconds:.2f}",
            _bar(span, start, end, colour),
        )
    console.print(table)


def _walk(spans: list[Span], depth: int) -> Iterator[tuple[int, Span]]:
    for span in spans:
        yield depth, span
        yield from _walk(span.children, depth + 1)


def _short(span: Span) -> str:
    """The span's name; Envoy names all of its spans alike, so that its path tells more."""
    if span.service == "madang-gateway":
        path = str(span.attributes.get("http.url", span.name))
        return "→ " + path.rpartition("://")[2].partition("/")[2].rpartition("/")[2]
    return span.name.rpartition("Service/")[2]


def _bar(span: Span, start: int, end: int, colour: str) -> Text:
    scale = _BAR / max(end - start, 1)
    before = int((span.start - start) * scale)
    length = max(1, round((span.end - span.start) * scale))
    return Text(" " * before + "━" * min(length, _BAR - before), colour)


def draw_trace(traces: str, trace_id: str, console: Console) -> bool:
    """Draw a trace once its spans have arrived; returns whether there are any."""
    path = Path(traces)
    # The gateway ends first and last, and keeps its spans for half a second.
    wait_for(lambda: is_whole(read_spans(path, trace_id)), 5)
    if spans := read_spans(path, trace_id):
        draw(spans, console)
    return bool(spans)
