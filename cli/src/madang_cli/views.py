"""What `madang views` prints."""

from datetime import timedelta

from rich.console import Console
from rich.table import Table

from madang.common.v1 import tensor_pb2
from madang_pipelines.sources.feast import FeastViews


def print_views(found: FeastViews, console: Console) -> None:
    """The views with their features, and what was left out or changed."""
    table = Table("view", "entity", "fresh for", "features", box=None, pad_edge=False)
    for view in found.views:
        features = ", ".join(
            f"{feature.name} {tensor_pb2.DType.Name(feature.dtype).removeprefix('D_TYPE_').lower()}"
            + (f"[dim]\\[{feature.dim}][/]" if feature.dim > 1 else "")
            for feature in view.features
        )
        fresh = str(timedelta(seconds=view.ttl.seconds)) if view.HasField("ttl") else "ever"
        table.add_row(view.name, view.entity, fresh, features)
    console.print(table)
    for note in found.notes:
        console.print(f"· {note}", style="yellow", highlight=False, markup=False)
