"""Anybody's ONNX as the ranker's model: a graph in front of it gathers what it reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from pydantic import BaseModel, ConfigDict, ValidationError

from madang.feature.v1 import feature_store_pb2
from madang_pipelines.training import RANKER
from madang_ranker.fallback import pack_fallback
from madang_runtime.models.inputs import feature_refs
from madang_runtime.models.manifest import FeatureRef
from madang_runtime.models.registry import ModelRegistry

_CONTEXT = {"hour": ("ints", 0), "weekday": ("ints", 1), "latitude": ("floats", 0)}
_CONTEXT |= {"longitude": ("floats", 1)}
_FALLBACK = "fallback.npz"
_TRIED = 3
Nodes = list[onnx.NodeProto]


class OwnModelError(Exception):
    """The model, or what is said of it, does not fit; the message says how."""


class OwnModel(BaseModel):
    """What is said of a model, in YAML.

    Attributes:
        model: file of the ONNX, beside the YAML.
        features: the columns of its one input, float32 [rows, columns], in order: `view.feature` of
            the user's and the items' view, or `context.` hour (0 to 23, local), weekday (0 is
            Thursday), latitude, longitude. NaN where a number is not known, 0 where a code is not.
        click, order, hide: names of its outputs of probabilities, shaped [rows], [rows, 1], or
            [rows, 2] of which the second counts. `click` unset: the last output.
        user_view, item_view: whose rows are read.
        utc_offset_hours: of local time; None: the sun's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path
    features: list[str]
    click: str = ""
    order: str = ""
    hide: str = ""
    user_view: str = "user_profile"
    item_view: str = "item_profile"
    utc_offset_hours: float | None = None


def register_own_model(
    path: Path, views: Mapping[str, feature_store_pb2.FeatureView], registry: ModelRegistry
) -> str:
    """Register a model as a version of the ranker. No alias moves.

    Args:
        path: of the YAML.
        views: definitions of the views that it may read.

    Raises:
        OwnModelError: a feature is not known, its width is not that of the model's input, an output
            is missing, or what comes out are no probabilities.
    """
    try:
        said = OwnModel.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise OwnModelError(f"{path}: {error}") from error
    if len({*said.features}) < len(said.features):
        raise OwnModelError(f"{path}: features name one twice")
    refs = [_ref(name, said, views) for name in said.features]
    read = [ref for view in (said.user_view, said.item_view) for ref in refs if ref.view == view]
    try:
        own = onnx.load(path.parent / said.model)
        whole = _joined(own, said, refs, read)
        _try(whole, read, said)
    except OwnModelError:
        raise
    except Exception as error:  # what onnx and ONNX Runtime raise has no common type
        raise OwnModelError(f"{said.model}: {error}") from error
    return registry.register(
        RANKER,
        {"model.onnx": whole.SerializeToString(), _FALLBACK: _fallback(registry)},
        features=read,
        parameters={
            "user_view": said.user_view,
            "item_view": said.item_view,
            "utc_offset_hours": said.utc_offset_hours,
            "data": path.name,
        },
    )


def _ref(
    name: str, said: OwnModel, views: Mapping[str, feature_store_pb2.FeatureView]
) -> FeatureRef:
    view, _, feature = name.partition(".")
    if view == "context":
        if feature in _CONTEXT:
            return FeatureRef(view=view, name=feature, dtype="FLOAT32")
        raise OwnModelError(f"{name}: the context has {', '.join(_CONTEXT)}")
    if view not in (said.user_view, said.item_view) or view not in views:
        raise OwnModelError(f"{name}: it may read {said.user_view} and {said.item_view}")
    found = [ref for ref in feature_refs(views[view]) if ref.name == feature]
    if not found or found[0].dtype == "STRING":
        known = ", ".join(r.name for r in feature_refs(views[view]) if r.dtype != "STRING")
        raise OwnModelError(f"{name}: {view} has {known}")
    return found[0]


def _joined(
    own: onnx.ModelProto, said: OwnModel, refs: Sequence[FeatureRef], read: Sequence[FeatureRef]
) -> onnx.ModelProto:
    """The model behind a graph that makes its input from what svc-ranker gives."""
    weights = {tensor.name for tensor in own.graph.initializer}
    inputs = [i for i in own.graph.input if i.name not in weights]
    if len(inputs) != 1:
        raise OwnModelError(f"{said.model} has {len(inputs)} inputs; one of all features is read")
    wide = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim][-1:]
    width = sum(ref.dim for ref in refs)
    if wide and wide[0] not in (0, width):
        raise OwnModelError(f"{said.model} reads {wide[0]} columns, features have {width}")
    outputs = [o.name for o in own.graph.output]
    names = {"click": said.click or outputs[-1], "order": said.order, "hide": said.hide}
    for name in filter(None, names.values()):
        if name not in outputs:
            raise OwnModelError(f"{said.model} has no output {name!r}; it has {', '.join(outputs)}")
    before = compose.add_prefix(own, "own/")
    opsets, ir = before.opset_import, before.ir_version
    front = _model(*_front(said, refs, read), opsets, ir)
    joined = compose.merge_models(front, before, [("features", f"own/{inputs[0].name}")])
    shapes = {o.name: len(o.type.tensor_type.shape.dim) for o in own.graph.output}
    nodes = [
        node
        for head, name in names.items()
        for node in _head(head, f"own/{name}" if name else "", shapes.get(name, 0))
    ]
    joined.graph.node.extend(nodes)
    joined.graph.initializer.extend(_constants())
    del joined.graph.output[:]
    joined.graph.output.extend(
        helper.make_tensor_value_info(head, TensorProto.FLOAT, ["rows"]) for head in names
    )
    onnx.checker.check_model(joined)
    return joined


def _front(
    said: OwnModel, refs: Sequence[FeatureRef], read: Sequence[FeatureRef]
) -> tuple[Nodes, list[onnx.ValueInfoProto], list[onnx.TensorProto]]:
    """Nodes, inputs and constants that gather `features`, float32 [rows, columns]."""
    sides = {said.user_view: "user", said.item_view: "item", "context": "context"}
    nodes, constants, parts = Nodes(), list[onnx.TensorProto](), []
    used: dict[str, tuple[int, int]] = {"segment": (TensorProto.INT64, 0)}
    for at, ref in enumerate(refs):
        side = sides[ref.view]
        kind, columns = _place(ref, read)
        source = f"{side}_{kind}"
        dtype = TensorProto.INT64 if kind == "ints" else TensorProto.FLOAT
        used[source] = (dtype, 2)
        constants.append(numpy_helper.from_array(columns, f"columns/{at}"))
        nodes.append(helper.make_node("Gather", [source, f"columns/{at}"], [f"own/{at}"], axis=1))
        last = f"own/{at}"
        if kind == "ints":
            nodes.append(helper.make_node("Cast", [last], [f"float/{at}"], to=TensorProto.FLOAT))
            last = f"float/{at}"
        if side != "item":
            nodes.append(helper.make_node("Gather", [last, "segment"], [f"rows/{at}"], axis=0))
            last = f"rows/{at}"
        parts.append(last)
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=1))
    inputs = [
        helper.make_tensor_value_info(
            name, dtype, ["rows"] if not rank else [f"{name}_rows", f"{name}_columns"]
        )
        for name, (dtype, rank) in used.items()
    ]
    return nodes, inputs, constants


def _place(ref: FeatureRef, read: Sequence[FeatureRef]) -> tuple[str, NDArray[np.int64]]:
    """In which matrix of its side a feature is, and its columns there."""
    if ref.view == "context":
        kind, column = _CONTEXT[ref.name]
        return kind, np.array([column])
    same = [r for r in read if (r.view, r.dtype) == (ref.view, ref.dtype)]
    begin = sum(r.dim for r in same[: same.index(ref)])
    return "ints" if ref.dtype == "INT64" else "floats", np.arange(begin, begin + ref.dim)


def _head(head: str, output: str, rank: int) -> Nodes:
    """Nodes from an output of the model to one of ours, float32 [rows]; without one, zeros."""
    if not output:
        return [helper.make_node("Sub", ["click", "click"], [head])]
    if rank == 1:
        return [helper.make_node("Identity", [output], [head])]
    return [helper.make_node("Gather", [output, "own/last"], [head], axis=1)]


def _constants() -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array(-1), "own/last")]


def _model(
    nodes: Nodes,
    inputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
    opsets: Any,
    ir_version: int,
) -> onnx.ModelProto:
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", "columns"])
    graph = helper.make_graph(nodes, "features", inputs, [made], constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def _try(model: onnx.ModelProto, read: Sequence[FeatureRef], said: OwnModel) -> None:
    """Run it on nothing known, as svc-ranker does when it loads it."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows: dict[str, NDArray[Any]] = {
        "context_ints": np.zeros((1, 3), np.int64),
        "context_floats": np.zeros((1, 2), np.float32),
        "segment": np.zeros(_TRIED, np.int64),
    }
    for side, view, n in (("user", said.user_view, 1), ("item", said.item_view, _TRIED)):
        for kind, dtype, nothing in (("ints", "INT64", 0), ("floats", "FLOAT32", np.nan)):
            width = sum(r.dim for r in read if (r.view, r.dtype) == (view, dtype))
            as_type = np.int64 if kind == "ints" else np.float32
            rows[f"{side}_{kind}"] = np.full((n, width), nothing, as_type)
    given = {i.name: rows[i.name] for i in session.get_inputs()}
    for head, values in zip(("click", "order", "hide"), session.run(None, given), strict=True):
        if values.shape != (_TRIED,):
            raise OwnModelError(f"{head} has shape {list(values.shape)}, must be [rows]")
        if not ((values >= 0) & (values <= 1)).all():
            raise OwnModelError(
                f"{head} of rows without any value is {values[0]}: probabilities from 0 to 1 are "
                "wanted, and NaN is what is not known"
            )


def _fallback(registry: ModelRegistry) -> bytes:
    """What is shown when svc-candidate is away: as the champion has it."""
    if not registry.has_alias(RANKER):
        return pack_fallback({}, 7)
    return registry.load(RANKER, registry.resolve(RANKER)).files[_FALLBACK]
