"""Lists the Python packages of each image as CycloneDX: `python helm/sbom.py FOLDER [IMAGE…]`.

An image's own `pip install` steps run in a fresh virtual environment, and that is listed. It needs
no Docker; Debian's packages are those of the base image, which an image scanner lists.
"""

import re
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BASE = "base"


def stages(dockerfile: str) -> dict[str, list[list[str]]]:
    """The arguments of every `pip install` of each stage."""
    joined = dockerfile.replace("\\\n", " ")
    found: dict[str, list[list[str]]] = {}
    for line in joined.splitlines():
        if stage := re.match(r"FROM \S+ AS (\S+)", line):
            found[stage[1]] = []
        elif step := re.match(r"RUN pip install (.*)", line):
            found[list(found)[-1]].append(shlex.split(step[1]))
    return found


def write(image: str, installs: list[list[str]], folder: Path) -> Path:
    """Install what an image does and list it."""
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = f"{place}/bin/python"
        for arguments in installs:
            subprocess.run(
                [python, "-m", "pip", "install", "-qq", *arguments], cwd=ROOT, check=True
            )
        listed = folder / f"{image}.cdx.json"
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", python, "-o", str(listed)]
        subprocess.run(tool, check=True)
    return listed


def main(folder: Path, images: list[str]) -> None:
    """Write one file an image, all of them if none is named."""
    steps = stages((ROOT / "Dockerfile").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for image in images or [name for name in steps if name != _BASE]:
        print(write(image, steps[_BASE] + steps[image], folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
