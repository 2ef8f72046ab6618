"""Vectors in closed form, where nothing is known but who chose what.

With R the users' choices, D their degrees and a a smoothing, R̃ = (D_u + a)^-n R (D_i + a)^-n is
about U S Vᵀ. A user's vector is R̃ V S^p, an item's V (D_i + a)^(n-c). With n = ½ and c = p = 0 that
is the ideal low-pass filter of GF-CF (Shen et al., "How powerful is graph convolution for
recommendation?", CIKM 2021) as one dot product. With n < ½ those who choose much count for more (Fu
et al., "Revisiting neighborhood-based link prediction for collaborative filtering", WWW 2022), p
softens the filter, and c takes some popularity away. What they and the dimensions are is chosen on
choices held out. Serving never imports this file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from madang_candidate.train import Towers

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
_WEIGHTS = 96_000_000
"""That users and items may have together: they bound the dimensions."""
_MOST, _LEAST = 1536, 32
_JUDGED, _K = 6000, 20
_ASKED, _NEAREST, _ODDS = 1000, 300, 0.1
_CHUNK = 512


@dataclass(frozen=True)
class Spectrum:
    """How choices become vectors: see above.

    Attributes:
        dimensions: of the vectors.
        smoothing: a.
        exponent: n of the degrees.
        power: p of the singular values.
        correction: c of popularity.
        ndcg: NDCG@20 on the choices held out; 0 before it is judged.
        slope, intercept: what makes a dot product the log odds that an item is chosen, where of
            eleven that are near one is.
    """

    dimensions: int
    smoothing: float = 5.0
    exponent: float = 0.5
    power: float = 0.5
    correction: float = 0.15
    ndcg: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.dimensions} dimensions, smoothing {self.smoothing:g}, "
            f"exponent {self.exponent:g}, power {self.power:g}, correction {self.correction:g}"
        )


@dataclass(frozen=True)
class Choices:
    """Distinct pairs of a user's and an item's row, sorted by user.

    Attributes:
        user, item: int64 [n].
        users, items: how many there are.
    """

    user: Rows
    item: Rows
    users: int
    items: int

    @classmethod
    def of(cls, user: Rows, item: Rows, users: int, items: int) -> "Choices":
        """From pairs in any order, repeated or not."""
        pairs = np.unique(user * items + item)
        return cls(pairs // items, pairs % items, users, items)

    @property
    def pairs(self) -> Rows:
        """A number for each."""
        return self.user * self.items + self.item

    def without(self, held: NDArray[np.bool_]) -> "Choices":
        """Those that are not held out."""
        return replace(self, user=self.user[~held], item=self.item[~held])


def most_dimensions(users: int, items: int) -> int:
    """The most that vectors may have; below 32, there are too many of them for tables."""
    return min(_MOST, _WEIGHTS // (users + items), min(users, items) // 2)


def fits(users: int, items: int) -> bool:
    """Whether there are few enough users and items for a vector each."""
    return most_dimensions(users, items) >= _LEAST


def choose(
    choices: Choices,
    degrees: tuple[tuple[float, float], ...] = ((5.0, 0.5), (20.0, 0.5), (5.0, 0.4)),
    seed: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> Spectrum:
    """The best by NDCG@20 on a tenth of the choices, held out, of each smoothing and exponent in
    `degrees`."""
    held = np.random.default_rng(seed).random(len(choices.user)) < 0.1
    learn, later = choices.without(held), choices.without(~held)
    most, best = most_dimensions(choices.users, choices.items), Spectrum(_LEAST, ndcg=-1.0)
    for at, (smoothing, exponent) in enumerate(degrees):
        whole = _Decomposed(learn, Spectrum(most, smoothing, exponent))
        for share, power, correction in product((1.0, 0.5), (0.0, 0.5), (0.1, 0.15, 0.2)):
            dimensions = max(int(share * most), _LEAST)
            one = Spectrum(dimensions, smoothing, exponent, power, correction)
            user, item = whole.vectors(one)
            _, ndcg = judge(user, item, learn, later, _JUDGED, seed)
            if ndcg.mean() > best.ndcg:
                best, found = replace(one, ndcg=float(ndcg.mean())), (user, item)
        progress((at + 1) / len(degrees))
    slope, intercept = _odds(*_scaled(*found), learn, later, seed)
    return replace(best, slope=slope, intercept=intercept)


def vectors(choices: Choices, how: Spectrum) -> tuple[Floats, Floats]:
    """Of users, of length 1, shape [users, d], and of items, none longer than 1, [items, d]."""
    return _scaled(*_Decomposed(choices, how).vectors(how))


class _Decomposed:
    """The largest singular values of R̃, and what they make of users and items."""

    def __init__(self, choices: Choices, how: Spectrum) -> None:
        n = choices.users, choices.items
        of_user, self._of_item = (
            (np.bincount(rows, minlength=size) + how.smoothing).astype(np.float32)
            for rows, size in zip((choices.user, choices.item), n, strict=True)
        )
        of_both = of_user[choices.user] * self._of_item[choices.item]
        weights = of_both ** np.float32(-how.exponent)
        matrix = sparse.csr_array((weights, (choices.user, choices.item)), n)
        self._values, self._right = _largest(matrix, how.dimensions)
        self._folded = matrix @ self._right

    def vectors(self, how: Spectrum) -> tuple[Floats, Floats]:
        """Of all users and items, float32, as they come."""
        d, popularity = how.dimensions, np.float32(how.exponent - how.correction)
        user: Floats = self._folded[:, :d] * self._values[:d] ** np.float32(how.power)
        item: Floats = self._right[:, :d] * self._of_item[:, None] ** popularity
        return user, item


def _scaled(user: Floats, item: Floats) -> tuple[Floats, Floats]:
    length = np.linalg.norm(user, axis=1, keepdims=True)
    return user / np.maximum(length, 1e-9), item / np.linalg.norm(item, axis=1).max()


def _largest(matrix: "sparse.csr_array", k: int, rounds: int = 3) -> tuple[Floats, Floats]:
    """The k largest singular values and their right vectors, [columns, k]: randomised SVD (Halko,
    Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011)."""
    turned = matrix.T.tocsr()
    drawn = np.random.default_rng(0).standard_normal((matrix.shape[1], k + 16), np.float32)
    for _ in range(rounds):
        drawn = _orthogonal(turned @ _orthogonal(matrix @ drawn))
    left = _orthogonal(matrix @ drawn)
    _, values, right = torch.linalg.svd(torch.from_numpy(turned @ left).t(), full_matrices=False)
    return values[:k].numpy(), right[:k].t().contiguous().numpy()


def _orthogonal(columns: Floats) -> Floats:
    found: Floats = torch.linalg.qr(torch.from_numpy(columns)).Q.numpy()
    return found


def judge(
    user: Floats,
    item: Floats,
    past: Choices,
    later: Choices,
    most: int = 0,
    seed: int = 0,
    k: int = _K,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall@k and NDCG@k by dot products, of each user who later chose what they had not before.

    Args:
        user, item: vectors.
        most: of so many users at most, drawn by `seed`; 0: of all.
    """
    new = later.without(np.isin(later.pairs, past.pairs))
    wanted, k = rows_by_user(new), min(k, past.items)
    asked = _drawn(new, most, seed)
    discount = 1 / np.log2(np.arange(2, k + 2))
    recall, ndcg = np.zeros(len(asked)), np.zeros(len(asked))
    for at, (one, scores) in enumerate(_scored(user, item, past, asked)):
        best = np.argpartition(-scores, k - 1)[:k]
        own = wanted(one)
        hits = np.isin(best[np.argsort(-scores[best])], own)
        recall[at] = hits.sum() / len(own)
        ndcg[at] = (hits * discount).sum() / discount[: len(own)].sum()
    return recall, ndcg


def _odds(
    user: Floats, item: Floats, past: Choices, later: Choices, seed: int
) -> tuple[float, float]:
    """Slope and intercept of the log odds by choices held out among the nearest new items; the
    odds of all together are those of a DCN's drawn negatives, ten to one."""
    wanted, dots, chosen = rows_by_user(later), list[Floats](), list[NDArray[np.bool_]]()
    for one, scores in _scored(user, item, past, _drawn(later, _ASKED, seed)):
        near = np.argsort(-scores)[:_NEAREST]
        near = near[np.isfinite(scores[near])]
        dots.append(scores[near])
        chosen.append(np.isin(near, wanted(one)))
    column, is_chosen = np.concatenate(dots)[:, None], np.concatenate(chosen)
    scale, rate = column.std(), is_chosen.mean()
    if not scale or not 0 < rate < 1:
        return 1.0, np.log(_ODDS)
    fitted = LogisticRegression(C=np.inf).fit(column / scale, is_chosen)
    shift = np.log(_ODDS) - np.log(rate / (1 - rate))
    # Never against the vectors: how they order is what was judged.
    return max(float(fitted.coef_[0, 0] / scale), 1.0), float(fitted.intercept_[0] + shift)


def _drawn(choices: Choices, most: int, seed: int) -> Rows:
    """Users who chose something, `most` of them, or all with 0."""
    users = np.unique(choices.user)
    if most and most < len(users):
        return np.random.default_rng(seed).choice(users, most, replace=False)
    return users


def _scored(user: Floats, item: Floats, past: Choices, asked: Rows) -> Iterator[tuple[int, Floats]]:
    """Each user's dot products with all items, -inf for what they chose before."""
    before = rows_by_user(past)
    for at in range(0, len(asked), _CHUNK):
        part = asked[at : at + _CHUNK]
        for one, scores in zip(part.tolist(), user[part] @ item.T, strict=True):
            scores[before(one)] = -np.inf
            yield one, scores


def rows_by_user(choices: Choices) -> Callable[[int], Rows]:
    """The items of a user's row."""
    starts = np.searchsorted(choices.user, np.arange(choices.users + 1))
    return lambda user: choices.item[starts[user] : starts[user + 1]]


class _Known(nn.Module):
    """A table of vectors by code, in half precision; zeros for 0 and codes outside it."""

    def __init__(self, table: Floats) -> None:
        super().__init__()
        whole = np.concatenate([np.zeros((1, table.shape[1]), np.float32), table])
        self.register_buffer("table", torch.from_numpy(whole).half())

    def of(self, codes: Tensor) -> Tensor:
        """Vectors of codes, float32."""
        table: Tensor = self.table  # type: ignore[assignment]
        inside = (codes >= 0) & (codes < table.shape[0])
        return table[torch.where(inside, codes, torch.zeros_like(codes))].float()


class KnownUsers(_Known):
    """In place of a user tower."""

    def __init__(self, table: Floats, code_column: int) -> None:
        super().__init__(table)
        self._column = code_column

    def forward(
        self, user_ints: Tensor, user_floats: Tensor, context_ints: Tensor, context_floats: Tensor
    ) -> Tensor:
        """Vectors of shape [n, d]."""
        del user_floats, context_ints, context_floats
        return self.of(user_ints[:, self._column])


class KnownItems(_Known):
    """In place of an item tower."""

    def __init__(self, table: Floats, code_column: int) -> None:
        super().__init__(table)
        self._column = code_column

    def forward(self, ints: Tensor, floats: Tensor) -> Tensor:
        """Vectors of shape [n, d]."""
        del floats
        return self.of(ints[:, self._column])


def towers(user: Floats, item: Floats, user_code: int, item_code: int) -> Towers:
    """Tables that take the towers' places, by the columns of `user_code` and `item_code`."""
    return Towers(KnownUsers(user, user_code).eval(), KnownItems(item, item_code).eval())
