"""What documents say of values and commands is so."""

import re
from pathlib import Path

import pytest
import yaml
from charts import CHART

ROOT = CHART.parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/runbooks").glob("*.md")]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_values_that_a_page_names_exist(page):
    for path in re.findall(r"`([a-zA-Z]+(?:\.[a-zA-Z<>]+)+)(?::[^`]*)?`", page.read_text()):
        first, *rest = path.split(".")
        if first not in VALUES or path.endswith(".yaml"):
            continue
        value = VALUES[first]
        for key in rest:
            value = value["ranker" if key == "<name>" else key]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_links_that_a_page_names_exist(page):
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / Path(link)).exists(), link
