"""The shops as documents of svc-search."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from madang.common.v1 import place_pb2
from madang.search.v1 import search_pb2 as pb
from madang_pipelines.city.names import DISTRICTS
from madang_pipelines.tables import Tables


def shop_documents(tables: Tables) -> pl.DataFrame:
    """One row a shop that has a name, a column a field of Document (its place as latitude and
    longitude); popularity is how often it was ordered from before the held-out period."""
    items = tables.frames["items"].filter(
        (pl.col("kind") == place_pb2.ITEM_KIND_SHOP) & (pl.col("name") != "")
    )
    orders = (
        tables.frames["actions"]
        .filter((pl.col("type") == "order") & (pl.col("period") < tables.test_period))
        .group_by("item_id")
        .agg(popularity=pl.len().cast(pl.Float64))
    )
    bodies = ["\n".join(_lines(row)) for row in items.iter_rows(named=True)]
    return (
        items.with_columns(pl.Series("body", bodies, pl.String))
        .join(orders, "item_id", how="left", maintain_order="left")
        .select(
            pl.col("item_id").alias("document_id"),
            pl.col("name").alias("title"),
            "body",
            pl.col("category_name").alias("category"),
            "latitude",
            "longitude",
            pl.col("radius_km").alias("delivery_radius_km"),
            "open_hours",
            pl.col("popularity").fill_null(0.0),
        )
    )


def upserts(documents: pl.DataFrame) -> list[pb.Document]:
    """Rows as UpsertDocuments takes them."""
    return [_document(row) for row in documents.iter_rows(named=True)]


def save_documents(documents: pl.DataFrame, path: Path) -> None:
    """Write rows, and as `gone` those that the file had and that are no more."""
    now = documents.with_columns(gone=pl.lit(False))
    if path.exists():
        before = pl.read_parquet(path).join(documents, "document_id", how="anti")
        now = pl.concat([now, before.with_columns(gone=pl.lit(True))])
    path.parent.mkdir(parents=True, exist_ok=True)
    now.write_parquet(path)


def _document(row: Mapping[str, Any]) -> pb.Document:
    place = None
    if row["latitude"] is not None and row["longitude"] is not None:
        place = place_pb2.Place(latitude=row["latitude"], longitude=row["longitude"])
    fields = {name: row[name] for name in row.keys() & pb.Document.DESCRIPTOR.fields_by_name.keys()}
    return pb.Document(**fields, place=place)


def _lines(row: Mapping[str, Any]) -> list[str]:
    """The text of a shop beside its name: kind, English name, menu and district, a line each."""
    lines = [row["category_name"], row["name_en"], *(row["menu"] or [])]
    if 1 <= row["district"] <= len(DISTRICTS):
        lines.append(DISTRICTS[row["district"] - 1][0])
    return [line for line in lines if line]
