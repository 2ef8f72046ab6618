"""`make quality-own DATA=folder`: what `madang train --data` reaches on public files.

Writes docs/results/own-data.md. `python bench/quality_own.py FOLDER NAME …` makes some of it anew.
"""

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from madang_cli.show import steps
from madang_pipelines.imports.mapping import Mapping
from madang_pipelines.imports.ready import find_mappings
from madang_pipelines.own.report import Report, table
from madang_pipelines.own.training import Plans, services_for, train_own
from madang_runtime.models.registry import ModelRegistry

PAGE = Path("docs/results/own-data.md")
HEAD = """# Own data: what the defaults reach

`make quality-own DATA=folder` of the public sets: every one through the mapping that comes with
Madang and `madang train SERVICE --data`, with nothing set by hand. What is chosen is chosen on a
part of what is learned from; the test part is read once. Two cores, no GPU. A set without a
section has not been run since its training last changed. Minutes are by the clock, and most ran
beside other work.
"""


def section(mapping: Mapping, service: str, console: Console) -> str:
    """Train, and tell."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, steps(console) as report:
        made = train_own(
            service,
            mapping,
            ModelRegistry(f"file://{folder}"),
            Plans(),
            lambda step, share: report(f"{mapping.name}, {step}"[:26], share),
        )
    minutes = (time.perf_counter() - started) / 60
    return "\n".join(_told(one, minutes) for one in made.reports)


def _told(report: Report, minutes: float) -> str:
    lines = [
        f"## {report.data}: {report.service}",
        "",
        report.judged,
        "",
        *table(report.scores),
        "",
    ]
    lines += [f"- {what}: {value}" for what, value in report.chosen.items()]
    lines += [f"- {note}" for note in report.notes if "is read as codes" not in note]
    lines += [f"- trained and judged in {minutes:.1f} minutes", ""]
    return "\n".join(lines)


def main() -> None:
    """Train all, or those that are named, and write each into the page."""
    console, names = Console(), sys.argv[2:]
    for mapping in find_mappings(Path(sys.argv[1])):
        for service in services_for(mapping):
            if names and mapping.name not in names:
                continue
            made = section(mapping, service, console)
            sections = _sections(PAGE.read_text("utf-8") if PAGE.exists() else "") | _sections(made)
            PAGE.write_text(
                "\n".join([HEAD, *(sections[one] for one in sorted(sections))]), "utf-8"
            )
            console.print(made, markup=False, highlight=False)


def _sections(page: str) -> dict[str, str]:
    """By title."""
    parts = f"\n{page}".split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.strip()}\n" for part in parts}


if __name__ == "__main__":
    main()
