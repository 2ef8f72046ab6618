"""Each user's keywords before they do anything: factors of what they searched for, a network over
the keywords, and a correction by popularity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.decomposition import NMF
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's name

from madang_pipelines.search.keywords.log import KeywordLog

Floats = NDArray[np.float32]

_FACTORS, _HIDDEN = 16, 64
_EPOCHS, _BATCH, _LEARNING_RATE = 12, 256, 2e-3
_CORRECTIONS = [(m, n, a) for m in (0.0, 0.5, 1.0) for n in (0.5, 1.0) for a in (1.0, 10.0, 100.0)]


@dataclass(frozen=True)
class Correction:
    """A list's scores are multiplied by pop^m / (pop^n + a), of searches for a keyword: which
    of the popular ones to hold back, and which of the rare ones not to trust."""

    m: float = 0.0
    n: float = 0.0
    a: float = 0.0

    def of(self, popularity: NDArray[np.int64]) -> Floats:
        """The factors [K]."""
        pop = np.maximum(popularity, 1).astype(np.float32)
        return np.asarray(pop**self.m / (pop**self.n + self.a), np.float32)


class BatchKeywords:
    """Scores of keywords by user.

    Non-negative matrix factorisation (Lee & Seung 1999) of who searched for what gives a user's
    factors; with the categories that they ordered from, these are the input of a network that
    was trained on what was searched for next.

    Args:
        log: to learn from.
        periods: whose searches are what was searched for next; the first is not 0.
    """

    def __init__(self, log: KeywordLog, periods: Sequence[int], seed: int = 0) -> None:
        self._log = log
        self._users = log.tables.frames["users"]["user_id"]
        self._row = pl.DataFrame({"user_id": self._users}).with_row_index("user")
        categories = log.tables.frames["items"]["category"].to_numpy()
        self._categories = int(categories.max(initial=0)) + 1
        counts = self._searched(periods[-1])
        factors = min(_FACTORS, *counts.shape)
        self._nmf = NMF(factors, init="nndsvda", max_iter=100, tol=1e-3, random_state=seed)
        self._nmf.fit(counts)
        torch.manual_seed(seed)
        self._network = nn.Sequential(
            nn.Linear(factors + self._categories, _HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(_HIDDEN, len(log.keywords)),
        )
        self._fit(periods, seed)
        self.correction = Correction()

    def scores(self, before: int) -> Floats:
        """Probabilities of what each user searches for next, [users, K], from what is known before
        a period."""
        with torch.no_grad():
            logits: torch.Tensor = self._network(torch.from_numpy(self._inputs(before)))
            scores: Floats = F.softmax(logits, dim=1).numpy()
        return scores

    def corrected(self, before: int) -> Floats:
        """`scores`, corrected by popularity."""
        return self.scores(before) * self.correction.of(self._log.popularity)

    def tune(self, period: int) -> None:
        """Choose the correction that is best on a period."""
        users, keywords = self.asked([period])
        if not len(keywords):
            return
        scores = self.scores(period)[users]
        known = np.bincount(self.asked(range(period))[1], minlength=len(self._log.keywords))
        corrections = [Correction(), *(Correction(*tried) for tried in _CORRECTIONS)]
        values = [reciprocal_rank(scores * one.of(known), keywords) for one in corrections]
        self.correction = corrections[int(np.argmax(values))]

    def asked(self, periods: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Who searched for what in some periods: rows of users and of keywords."""
        found = self._log.searches.filter(pl.col("period").is_in(periods)).join(
            self._row, "user_id", maintain_order="left"
        )
        return found["user"].to_numpy().astype(np.int64), found["keyword"].to_numpy()

    def factorised(self, before: int) -> Floats:
        """The factors alone: what they say of each keyword, [users, K]."""
        found: Floats = (
            self._nmf.transform(self._searched(before)) @ self._nmf.components_
        ).astype(np.float32)
        return found

    def _fit(self, periods: Sequence[int], seed: int) -> None:
        examples = [(self._inputs(period), *self.asked([period])) for period in periods]
        inputs = torch.from_numpy(np.concatenate([x[users] for x, users, _ in examples]))
        wanted = torch.from_numpy(np.concatenate([keywords for _, _, keywords in examples]))
        optimizer = torch.optim.AdamW(self._network.parameters(), _LEARNING_RATE, weight_decay=0.01)
        random = np.random.default_rng(seed)
        self._network.train()
        for _ in range(_EPOCHS):
            for rows in torch.split(torch.from_numpy(random.permutation(len(wanted))), _BATCH):
                loss = F.cross_entropy(self._network(inputs[rows]), wanted[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self._network.eval()

    def _inputs(self, before: int) -> Floats:
        """What is known of each user before a period: factors, and the share of each category."""
        factors = self._nmf.transform(self._searched(before))
        orders = (
            self._log.tables.frames["actions"]
            .filter((pl.col("type") == "order") & (pl.col("period") < before))
            .join(self._row, "user_id")
            .join(self._log.tables.frames["items"].select("item_id", "category"), "item_id")
        )
        counts = np.zeros((len(self._users), self._categories), np.float32)
        np.add.at(counts, (orders["user"].to_numpy(), orders["category"].to_numpy()), 1)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        return np.concatenate([factors, shares], axis=1).astype(np.float32)

    def _searched(self, before: int) -> Floats:
        """log(1 + searches) of each user and keyword before a period."""
        users, keywords = self.asked(range(before))
        counts = np.zeros((len(self._users), len(self._log.keywords)), np.float32)
        np.add.at(counts, (users, keywords), 1)
        return np.log1p(counts)


def ranks(scores: Floats, wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """The rank of what was wanted by scores [n, K], from 1; among equals the mean one."""
    own = scores[np.arange(len(wanted)), wanted][:, None]
    above, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.asarray(above + (equal + 1) / 2, np.float64)


def reciprocal_rank(scores: Floats, wanted: NDArray[np.int64]) -> float:
    """The mean of 1 / rank."""
    return float((1 / ranks(scores, wanted)).mean())
