"""Mappings that come with Madang, for public data sets, and which of them a folder fits."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from madang_pipelines.imports.formats import read_file
from madang_pipelines.imports.importing import files_of
from madang_pipelines.imports.mapping import Mapping, MappingError, TableMapping, read_mapping


def ready_mappings() -> dict[str, Path]:
    """Their paths by name."""
    folder = Path(str(files("madang_pipelines.imports") / "ready"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_mappings(folder: Path) -> list[Mapping]:
    """The mappings that folders at or below one fit, one for each that has any."""
    found = []
    for own in (folder, *sorted(p for p in folder.rglob("*") if p.is_dir())):
        fitting = [(_size(m), m) for m in _fitting(own)]
        if fitting:
            found.append(max(fitting, key=lambda pair: pair[0])[1])
    return found


def open_mappings(path: Path) -> list[Mapping]:
    """What a path names: a mapping, or a folder that ready ones fit.

    Raises:
        MappingError: neither.
    """
    if path.suffix in (".yaml", ".yml"):
        return [read_mapping(path)]
    if found := find_mappings(path):
        return found
    raise MappingError(
        f"{path} is no mapping, and no folder at or below it has the files of one that comes with "
        f"Madang ({', '.join(ready_mappings())}); `madang data inspect FILE` begins one"
    )


def _fitting(folder: Path) -> Iterator[Mapping]:
    for path in ready_mappings().values():
        mapping = read_mapping(path, folder)
        tables = mapping.tables().values()
        try:
            if all(_reads(own, folder) for own in tables):
                yield mapping
        except MappingError:
            continue


def _reads(table: TableMapping, folder: Path) -> bool:
    """Whether a table's files are there, and have its columns."""
    joined = [path for own in table.join for _, path in files_of(own, folder)]
    paths = [path for _, path in files_of(table, folder)]
    if not (joined or paths) or table.format == "lists":
        return _is_lists(paths[0])
    named = {c.column for c in table.columns.values() if isinstance(c.column, str)}
    named |= {c for c in (*table.numbers, *table.categories) if isinstance(c, str)}
    columns = set(read_file(paths[0], table).frame.columns)
    columns |= {c for own in table.join for c in read_file(joined[0], own).frame.columns}
    return named <= columns


def _is_lists(path: Path) -> bool:
    """Whether its first line is ids, and no record of names and values."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().split()
    return len(first) > 1 and "VAL" not in first


def _size(mapping: Mapping) -> int:
    """How many files a mapping reads: of several that fit, the most wanting is meant."""
    return sum(
        len(own.parts()) + len(own.join) + (own.beside is not None)
        for own in mapping.tables().values()
    )
