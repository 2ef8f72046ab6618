"""Logs in the format of the Open Bandit Dataset: `<policy>/<campaign>/<campaign>.csv`.

Columns used: item_id, position (from 1), click (0 or 1), propensity_score of the item at the
position. Saito et al., "Open bandit dataset and pipeline", NeurIPS 2021.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from madang_pipelines.ope import BanditLog, Floats
from madang_pipelines.tables import Rejected

POLICIES = ("random", "bts")
_COLUMNS = ("item_id", "position", "click", "propensity_score")


class MissingFilesError(ValueError):
    """The folder lacks files of the format."""


@dataclass(frozen=True)
class Campaign:
    """One campaign's logs by policy; contexts are positions.

    Attributes:
        name: of the campaign.
        logs: by policy.
        policies: P(item | position) by policy, [positions, items].
        quality: rows that were set aside.
    """

    name: str
    logs: dict[str, BanditLog]
    policies: dict[str, Floats]
    quality: list[Rejected]


def load_campaigns(folder: Path) -> list[Campaign]:
    """Every campaign that both policies have.

    Raises:
        MissingFilesError: there is none at or below the folder.
    """
    for root in (folder, *sorted(p for p in folder.rglob("*") if p.is_dir())):
        names = sorted(p.name for p in (root / POLICIES[0]).glob("*") if p.is_dir())
        names = [n for n in names if all((root / p / n / f"{n}.csv").is_file() for p in POLICIES)]
        if names:
            return [_campaign(root, name) for name in names]
    raise MissingFilesError(
        f"no folder at or below {folder} holds <policy>/<campaign>/<campaign>.csv of "
        f"{' and '.join(POLICIES)}"
    )


def _campaign(root: Path, name: str) -> Campaign:
    read = {policy: _rows(root / policy / name / f"{name}.csv") for policy in POLICIES}
    for policy, (rows, _) in read.items():
        if rows.is_empty():
            raise ValueError(f"{policy}/{name}: no row of the log can be used")
    logs = {policy: _log(rows) for policy, (rows, _) in read.items()}
    items = 1 + max(int(log.action.max()) for log in logs.values())
    positions = 1 + max(int(log.context.max()) for log in logs.values())
    policies = {
        "random": np.full((positions, items), 1 / items),
        "bts": _mean_policy(logs["bts"], positions, items),
    }
    return Campaign(name, logs, policies, [rejected for _, rejected in read.values()])


def _rows(path: Path) -> tuple[pl.DataFrame, Rejected]:
    rows = pl.read_csv(path, columns=list(_COLUMNS), infer_schema=False).with_row_index("line", 2)
    rows = rows.with_columns(
        pl.col("item_id", "position", "click").cast(pl.Int64, strict=False),
        pl.col("propensity_score").cast(pl.Float64, strict=False),
    )
    rejected = Rejected(f"{path.parent.parent.name}/{path.name}", len(rows))
    propensity = pl.col("propensity_score")
    good = pl.Series([True] * len(rows))
    for why, fine in (
        ("no item", pl.col("item_id") >= 0),
        ("no position", pl.col("position") >= 1),
        ("click is not 0 or 1", pl.col("click").is_in([0, 1])),
        ("propensity is not in (0, 1]", (propensity > 0) & (propensity <= 1)),
    ):
        found = rows.select(fine.fill_null(False).alias("fine"))["fine"]
        for line in rows["line"].filter(good & ~found).to_list():
            rejected.reject(line, why)
        good &= found
    return rows.filter(good), rejected


def _log(rows: pl.DataFrame) -> BanditLog:
    return BanditLog(
        rows["position"].to_numpy() - 1,
        rows["item_id"].to_numpy(),
        rows["click"].to_numpy().astype(np.float64),
        rows["propensity_score"].to_numpy(),
    )


def _mean_policy(log: BanditLog, positions: int, items: int) -> Floats:
    """The policy's mean over the log's time: how often it showed each item at each position. It was
    updated in batches, and only the propensities of what it showed are logged."""
    cell = log.context * items + log.action
    shown = np.bincount(cell, minlength=positions * items).reshape(positions, items)
    if missing := (np.flatnonzero(shown.sum(axis=1) == 0) + 1).tolist():
        raise ValueError(f"the log of bts has nothing at positions {missing}")
    policy: Floats = shown / shown.sum(axis=1, keepdims=True)
    return policy
