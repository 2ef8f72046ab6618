"""`python -m madang_gateway CONFIG FOLDER`: write what Envoy needs to start."""

import sys
from pathlib import Path

import yaml

from madang_gateway.config import load_config
from madang_gateway.files import write_all


def main(arguments: list[str]) -> None:
    """Write, or say what is wrong and exit with 1."""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m madang_gateway CONFIG FOLDER")
    source, folder = map(Path, arguments)
    try:
        write_all(load_config(source), folder)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SystemExit(f"{source}: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
