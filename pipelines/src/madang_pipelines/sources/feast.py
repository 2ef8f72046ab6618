"""Feature views from the definitions of a Feast repository.

The files are read, not run: neither Feast nor what they import need be there. What can't be read,
or has no like in Madang, is left out with the line where it stands.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import duration_pb2

from madang.common.v1 import tensor_pb2
from madang.feature.v1 import feature_store_pb2

_VIEWS = {"FeatureView", "BatchFeatureView", "StreamFeatureView", "LabelView"}
_COMPUTED = {"OnDemandFeatureView", "on_demand_feature_view"}
_TYPES = {
    "Float32": tensor_pb2.D_TYPE_FLOAT32,
    "Float64": tensor_pb2.D_TYPE_FLOAT32,
    "Int32": tensor_pb2.D_TYPE_INT64,
    "Int64": tensor_pb2.D_TYPE_INT64,
    "Bool": tensor_pb2.D_TYPE_INT64,
    "UnixTimestamp": tensor_pb2.D_TYPE_INT64,
    "String": tensor_pb2.D_TYPE_STRING,
}
_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_LONGEST_SECONDS = 3650 * 86_400


@dataclass
class FeastViews:
    """What a repository defines.

    Attributes:
        views: as ApplyFeatureView takes them, by name.
        notes: "file:line: what and why", of all that was left out or changed.
    """

    views: list[feature_store_pb2.FeatureView] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_feast(folder: Path) -> FeastViews:
    """Read the definitions below a folder.

    Raises:
        ValueError: a file is no Python, or there are none.
    """
    files = [path for path in sorted(folder.rglob("*.py")) if not _hidden(path, folder)]
    if not files:
        raise ValueError(f"{folder} holds no Python files")
    modules = [_Module(path, str(path.relative_to(folder))) for path in files]
    every = {name: node for module in modules for name, node in module.names.items()}
    found = FeastViews()
    for module in modules:
        module.read(every, found)
    found.views.sort(key=lambda view: view.name)
    return found


def _hidden(path: Path, folder: Path) -> bool:
    """Whether a file is of an environment or a cache."""
    parts = path.relative_to(folder).parts
    return any(part.startswith(".") or part in ("venv", "__pycache__") for part in parts)


_ODD = (TypeError, ValueError, AttributeError, RecursionError)
"""What values of other types than Feast takes, or that refer to themselves, end in."""


class _UnreadableError(Exception):
    """Something that only running the file would tell."""


class _Module:
    """A file, and the names that it gives values."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = name
        try:
            self._tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error
        self.names: dict[str, ast.expr] = {
            target.id: node.value
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def read(self, every: Mapping[str, ast.expr], found: FeastViews) -> None:
        """Add the views of this file; names that it imports are looked up among all files'."""
        reader = _Reader({**every, **self.names})
        taken = {view.name for view in found.views}
        for node in ast.walk(self._tree):
            kind = _called(node)
            note = f"{self._file}:{getattr(node, 'lineno', 0)}: "
            if kind in _COMPUTED:
                found.notes.append(f"{note}{kind} is computed on demand: left out")
            elif kind in _VIEWS:
                assert isinstance(node, ast.Call)
                try:
                    view, changes = reader.view(node)
                except (_UnreadableError, *_ODD) as error:
                    found.notes.append(f"{note}{kind} left out: {error}")
                    continue
                found.notes += [f"{note}{view.name}: {change}" for change in changes]
                if view.name in taken:
                    found.notes.append(f"{note}{view.name} is there already: left out")
                else:
                    found.views.append(view)
                    taken.add(view.name)


class _Reader:
    """Reads values from syntax.

    Args:
        names: what stands for which expression.
    """

    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self._names = names

    def view(self, call: ast.Call) -> tuple[feature_store_pb2.FeatureView, list[str]]:
        """A view, and what was changed or left out of it. Raises: _UnreadableError."""
        given = _keywords(call)
        name = self._text(given, "name")
        entity, keys = self._entity(given)
        changes: list[str] = []
        view = feature_store_pb2.FeatureView(
            name=_named(name, changes),
            entity=entity,
            description=self._value(given["description"]) if "description" in given else "",
        )
        if seconds := self._seconds(given.get("ttl")):
            if seconds > _LONGEST_SECONDS:
                changes.append("a ttl of over 10 years is kept for ever")
            else:
                view.ttl.CopyFrom(duration_pb2.Duration(seconds=seconds))
        fields = self._resolved(given["schema"]) if "schema" in given else None
        if not isinstance(fields, ast.List | ast.Tuple):
            raise _UnreadableError(f"{name} has no schema to read")
        for element in fields.elts:
            try:
                feature = self._feature(element, changes)
            except _UnreadableError as error:
                changes.append(f"{error}: left out")
                continue
            if feature.name not in keys:
                view.features.append(feature)
        if not view.features:
            raise _UnreadableError(f"{name} has no feature that Madang keeps")
        return view, changes

    def _feature(self, node: ast.expr, changes: list[str]) -> feature_store_pb2.Feature:
        call = self._resolved(node)
        if not isinstance(call, ast.Call) or _called(call) != "Field":
            raise _UnreadableError("a field that is no Field(…)")
        given = _keywords(call)
        name = self._text(given, "name")
        dtype, dim = self._resolved(given["dtype"]) if "dtype" in given else None, 1
        if _called(dtype) == "Array" and isinstance(dtype, ast.Call) and dtype.args:
            if "vector_length" not in given:
                raise _UnreadableError(f"{name} is an Array without vector_length")
            dtype, dim = dtype.args[0], self._value(given["vector_length"])
        kind = _last_name(dtype)
        if kind not in _TYPES or (dim > 1 and kind == "String"):
            raise _UnreadableError(f"{name} is of type {ast.unparse(dtype) if dtype else 'none'}")
        if kind == "Float64":
            changes.append(f"{name} is kept as FLOAT32")
        return feature_store_pb2.Feature(
            name=_named(name, changes),
            dtype=_TYPES[kind],
            dim=dim,
            description=self._value(given["description"]) if "description" in given else "",
        )

    def _entity(self, given: Mapping[str, ast.expr]) -> tuple[str, list[str]]:
        """The name of the one entity, and its join keys."""
        listed = self._resolved(given["entities"]) if "entities" in given else None
        if not isinstance(listed, ast.List | ast.Tuple) or len(listed.elts) != 1:
            raise _UnreadableError("a view has one entity")
        node = self._resolved(listed.elts[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value, [node.value]
        if not isinstance(node, ast.Call) or _called(node) != "Entity":
            raise _UnreadableError("its entity is no Entity(…)")
        own = _keywords(node)
        name = self._text(own, "name")
        return name, self._value(own["join_keys"]) if "join_keys" in own else [name]

    def _seconds(self, node: ast.expr | None) -> int:
        """Of a timedelta; 0 for none."""
        call = self._resolved(node) if node else None
        if call is None or (isinstance(call, ast.Constant) and call.value is None):
            return 0
        if not isinstance(call, ast.Call) or _called(call) != "timedelta":
            raise _UnreadableError("its ttl is no timedelta(…)")
        parts = dict(zip(("days", "seconds"), call.args, strict=False)) | _keywords(call)
        if unknown := parts.keys() - _SECONDS.keys():
            raise _UnreadableError(f"its ttl has {', '.join(sorted(unknown))}")
        return int(sum(_SECONDS[unit] * self._value(part) for unit, part in parts.items()))

    def _text(self, given: Mapping[str, ast.expr], key: str) -> str:
        value = self._value(given[key]) if key in given else None
        if not isinstance(value, str) or not value:
            raise _UnreadableError(f"it has no {key}")
        return value

    def _value(self, node: ast.expr) -> Any:
        """A literal, or simple arithmetic of numbers."""
        node = self._resolved(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Add):
            left, right = self._value(node.left), self._value(node.right)
            return left * right if isinstance(node.op, ast.Mult) else left + right
        try:
            return ast.literal_eval(node)
        except ValueError as error:
            raise _UnreadableError(f"{ast.unparse(node)} is no literal") from error

    def _resolved(self, node: ast.expr) -> ast.expr:
        """What a name stands for."""
        seen: set[str] = set()
        while isinstance(node, ast.Name) and node.id in self._names and node.id not in seen:
            seen.add(node.id)
            node = self._names[node.id]
        return node


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {one.arg: one.value for one in call.keywords if one.arg}


def _called(node: ast.AST | None) -> str:
    """The name of what a node calls; "" when it calls nothing."""
    return _last_name(node.func) if isinstance(node, ast.Call) else ""


def _last_name(node: ast.AST | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _named(name: str, changes: list[str]) -> str:
    """A name as Madang writes it: lower case, digits and underscores, a letter first."""
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    plain = plain if plain[0].isalpha() else f"f_{plain.lstrip('_')}"
    if plain != name:
        changes.append(f"{name} is called {plain}")
    return plain


def as_yaml(view: feature_store_pb2.FeatureView) -> Iterator[str]:
    """The lines of a view's file, as `madang_featurestore.yaml_views` reads them."""
    yield f"name: {view.name}"
    yield f"entity: {_quoted(view.entity)}"
    if view.description:
        yield f"description: {_quoted(view.description)}"
    if view.HasField("ttl"):
        yield f"ttl: {view.ttl.seconds}s"
    yield "features:"
    for feature in view.features:
        dtype = tensor_pb2.DType.Name(feature.dtype).removeprefix("D_TYPE_")
        parts = [f"name: {feature.name}", f"dtype: {dtype}"]
        if feature.dim > 1:
            parts.append(f"dim: {feature.dim}")
        if feature.description:
            parts.append(f"description: {_quoted(feature.description)}")
        yield f"  - {{{', '.join(parts)}}}"


def _quoted(text: str) -> str:
    """A text as YAML reads it on one line."""
    return json.dumps(text, ensure_ascii=False)
