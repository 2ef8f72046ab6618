"""Commands in the guide to one's own data print what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text("utf-8")
FILES = re.findall(r"```\w+ (\S+)\n(.*?)```", GUIDE, re.DOTALL)
SHOWN = re.findall(r"```sh\nmadang ([^\n]*)\n```\n\n```text\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=[command for command, _ in SHOWN])
def test_a_command_prints_what_the_guide_says(tmp_path, command, printed):
    for name, text in FILES:
        (tmp_path / name).write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "madang_cli", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        check=True,
    )
    lines = [line.rstrip() for line in done.stdout.strip().splitlines()]
    assert lines == printed.strip().splitlines()


def test_the_guide_has_commands_and_files():
    assert len(SHOWN) == 2
    assert {name for name, _ in FILES} == {"orders.csv", "my.yaml"}
