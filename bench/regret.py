"""What late feedback costs a bandit: `make bench-regret`.

Ten days of a surface with one slot: 30 arms, 12 segments (6 ages × 2 genders), 8,000 impressions a
day. An arm's rate is a base times what its segment makes of it; where it drifts, each arm's appeal
takes a step a day. A reward comes after an exponential delay, its impression counts at once. All
policies see the same users by the same seeds.

Ours is the serving policy: Beta(1, 99) and everybody's rate pooled, batches of an hour, 64 rankings
each, a window of seven days. Plain Thompson has Beta(1, 1), all history, and draws for each
impression anew; greedy takes the highest mean; UCB is UCB1-tuned (Auer, Cesa-Bianchi, Fischer,
"Finite-time analysis of the multiarmed bandit problem", 2002); LinUCB is the disjoint one (Li et
al., "A contextual-bandit approach to personalized news article recommendation", WWW 2010) over age
and gender, α = 0.1. All but ours learn every 100 impressions.

Regret is against the best arm of each user's segment, as a share of what that would have earned.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from madang_ranker.bandit.policy import BanditPolicy
from madang_ranker.bandit.priors import segment_prior, surface_prior

SEEDS, ARMS, AGES, GENDERS = 20, 30, 6, 2
SEGMENTS = AGES * GENDERS
STEP, STEPS_A_DAY, DAYS = 100, 80, 10
STEPS_AN_HOUR = STEPS_A_DAY // 24
RATES, DELAYS_HOURS = (0.005, 0.02, 0.08), (0, 2, 12, 48)
SERVED = BanditPolicy()
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Cell(NamedTuple):
    """One world: the mean rate, how late rewards are, and whether appeal drifts."""

    rate: float
    delay_hours: float
    drifts: bool


class World:
    """Rates of SEEDS worlds at once."""

    def __init__(self, cell: Cell) -> None:
        self.rng = np.random.default_rng(11)
        self._cell = cell
        shape = (SEEDS, SEGMENTS, ARMS)
        age = np.repeat(self.rng.normal(0, 0.4, (SEEDS, AGES, ARMS)), GENDERS, axis=1)
        gender = np.tile(self.rng.normal(0, 0.3, (SEEDS, GENDERS, ARMS)), (1, AGES, 1))
        self._taste = age + gender + self.rng.normal(0, 0.2, shape)
        self._appeal = self.rng.normal(0, 0.5, (SEEDS, 1, ARMS))
        self.rates = self._now()

    def _now(self) -> Floats:
        rates = self._cell.rate * np.exp(self._taste + self._appeal - 0.25)
        return np.minimum(rates, 0.9)

    def next_day(self) -> None:
        """Let appeal drift."""
        if self._cell.drifts:
            self._appeal = self._appeal * 0.95 + self.rng.normal(0, 0.25, self._appeal.shape)
            self.rates = self._now()


class Policy(Protocol):
    """Chooses an arm for each user."""

    def choose(self, segments: Ints) -> Ints:
        """Arms for users of segments, both of shape [SEEDS, STEP]."""

    def learn(self, step: int, shown: Floats, rewards: Floats) -> None:
        """Take the counts [SEEDS, SEGMENTS, ARMS] that came in during a step."""


class Ours:
    """The serving policy."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        buckets = SERVED.window_seconds // SERVED.bucket_seconds
        self._buckets = np.zeros((buckets, 2, SEEDS, SEGMENTS, ARMS))
        self._bucket_steps = STEPS_A_DAY * SERVED.bucket_seconds // 86_400
        self._total = self._buckets.sum(0)
        self._draw()

    def _draw(self) -> None:
        shown, rewards = self._total
        counts = np.stack([rewards, np.maximum(shown - rewards, 0)])
        configured = np.array([SERVED.prior_successes, SERVED.prior_failures]).reshape(2, 1, 1, 1)
        prior = surface_prior(configured, counts.sum(axis=(2, 3), keepdims=True))
        everybody = prior + counts.sum(axis=2, keepdims=True)
        posterior = counts + segment_prior(everybody, SERVED.pooling)
        alpha, beta = posterior[..., None]
        rates = self._rng.beta(alpha, beta, (*shown.shape, SERVED.rankings))
        self._best: Ints = rates.argmax(axis=2)  # [seeds, segments, rankings]

    def choose(self, segments: Ints) -> Ints:
        """See `Policy`."""
        ranking = self._rng.integers(0, SERVED.rankings, segments.shape)
        chosen: Ints = self._best[np.arange(SEEDS)[:, None], segments, ranking]
        return chosen

    def learn(self, step: int, shown: Floats, rewards: Floats) -> None:
        """See `Policy`."""
        at = step // self._bucket_steps % len(self._buckets)
        if step % self._bucket_steps == 0:
            self._total -= self._buckets[at]
            self._buckets[at] = 0
        self._buckets[at] += (shown, rewards)
        self._total += (shown, rewards)
        if step % STEPS_AN_HOUR == 0:
            self._draw()


class Counting:
    """What has all history as counts and an index of each arm."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.shown = np.zeros((SEEDS, SEGMENTS, ARMS))
        self.rewards = np.zeros_like(self.shown)

    def learn(self, step: int, shown: Floats, rewards: Floats) -> None:
        """See `Policy`."""
        self.shown += shown
        self.rewards += rewards

    @property
    def means(self) -> Floats:
        """Rewards by impressions, 1 where there are none, so that each arm is tried."""
        return np.where(self.shown > 0, self.rewards / np.maximum(self.shown, 1), 1.0)

    def best(self, index: Floats, segments: Ints) -> Ints:
        """The arm of highest index for each user; ties by chance."""
        found = index[np.arange(SEEDS)[:, None], segments]
        chosen: Ints = (found + 1e-9 * self.rng.random(found.shape)).argmax(axis=-1)
        return chosen


class Plain(Counting):
    """Thompson sampling as in the textbook."""

    def choose(self, segments: Ints) -> Ints:
        """See `Policy`."""
        at = np.arange(SEEDS)[:, None], segments
        misses = np.maximum(self.shown[at] - self.rewards[at], 0)
        chosen: Ints = self.rng.beta(1 + self.rewards[at], 1 + misses).argmax(axis=-1)
        return chosen


class Greedy(Counting):
    """The highest mean."""

    def choose(self, segments: Ints) -> Ints:
        """See `Policy`."""
        return self.best(self.means, segments)


class Ucb(Counting):
    """UCB1-tuned."""

    def choose(self, segments: Ints) -> Ints:
        """See `Policy`."""
        n, p = np.maximum(self.shown, 1), self.means
        log_t = np.log(np.maximum(self.shown.sum(axis=2, keepdims=True), 2))
        variance = np.minimum(0.25, p * (1 - p) + np.sqrt(2 * log_t / n))
        return self.best(p + np.sqrt(log_t / n * variance), segments)


class LinUcb(Counting):
    """Ridge regression a arm, and its confidence ellipsoid."""

    _alpha = 0.1

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        age, gender = np.divmod(np.arange(SEGMENTS), GENDERS)
        ones = np.ones((SEGMENTS, 1))
        self._x = np.hstack([ones, np.eye(AGES)[age], np.eye(GENDERS)[gender]])

    def choose(self, segments: Ints) -> Ints:
        """See `Policy`."""
        x = self._x
        a = np.eye(x.shape[1]) + np.einsum("sgk,gi,gj->skij", self.shown, x, x, optimize=True)
        b = np.einsum("sgk,gi->ski", self.rewards, x)
        inverse = np.linalg.inv(a)
        theta = np.einsum("skij,skj->ski", inverse, b)
        width = np.sqrt(np.einsum("gi,skij,gj->sgk", x, inverse, x, optimize=True))
        return self.best(np.einsum("gi,ski->sgk", x, theta) + self._alpha * width, segments)


POLICIES: dict[str, Callable[[np.random.Generator], Policy]] = {
    "ours": Ours,
    "plain Thompson": Plain,
    "greedy": Greedy,
    "UCB": Ucb,
    "LinUCB": LinUcb,
}


def regret(cell: Cell, policy: str) -> Floats:
    """Relative regret of each seed."""
    world, rng = World(cell), np.random.default_rng(13)
    player = POLICIES[policy](np.random.default_rng(17))
    mean_delay = cell.delay_hours * STEPS_A_DAY / 24
    steps = STEPS_A_DAY * DAYS
    due = np.zeros((steps + 1, SEEDS, SEGMENTS, ARMS), np.float32)
    lost, best = np.zeros(SEEDS), np.zeros(SEEDS)
    seed = np.arange(SEEDS)[:, None]
    for step in range(steps):
        segments = rng.integers(0, SEGMENTS, (SEEDS, STEP))
        chance, late = rng.random((SEEDS, STEP)), rng.exponential(1, (SEEDS, STEP))
        arms = player.choose(segments)
        rates = world.rates[seed, segments]
        got, most = np.take_along_axis(rates, arms[..., None], 2)[..., 0], rates.max(axis=2)
        lost += (most - got).sum(axis=1)
        best += most.sum(axis=1)
        shown = np.zeros((SEEDS, SEGMENTS, ARMS))
        np.add.at(shown, (seed, segments, arms), 1)
        arrives = np.minimum(step + np.rint(late * mean_delay).astype(int), steps)
        paid = chance < got
        of = np.broadcast_to(seed, paid.shape)[paid]
        np.add.at(due, (arrives[paid], of, segments[paid], arms[paid]), 1)
        player.learn(step, shown, due[step])
        if step % STEPS_A_DAY == STEPS_A_DAY - 1:
            world.next_day()
    return lost / best


def main() -> None:
    """Print the grid."""
    cells = [Cell(*c) for c in product(RATES, DELAYS_HOURS, (False, True))]
    jobs = [(cell, policy) for cell in cells for policy in POLICIES]
    with ProcessPoolExecutor() as pool:
        found = dict(zip(jobs, pool.map(regret, *zip(*jobs, strict=True)), strict=True))
    table = Table(title=f"Regret in % of the best, mean ± 95 % of {SEEDS} seeds")
    for column in ("rate", "delay", "appeal", *POLICIES, "ours − best other"):
        table.add_column(column, justify="right", no_wrap=True)
    for cell in cells:
        regrets = {policy: 100 * found[cell, policy] for policy in POLICIES}
        best = min(list(POLICIES)[1:], key=lambda p: regrets[p].mean())
        mean, half = interval(regrets["ours"] - regrets[best])
        verdict = "win" if mean + half < 0 else "lose" if mean - half > 0 else "even"
        style = {"win": "green", "lose": "red", "even": ""}[verdict]
        table.add_row(
            f"{cell.rate:.1%}",
            f"{cell.delay_hours} h",
            "drifts" if cell.drifts else "stays",
            *("{:.1f} ± {:.1f}".format(*interval(r)) for r in regrets.values()),
            f"[{style}]{verdict}[/] {mean:+.1f} ± {half:.1f} {best}"
            if style
            else f"{verdict} {mean:+.1f} ± {half:.1f} {best}",
        )
    Console(width=140).print(table)


def interval(values: Floats) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval over seeds (Student's t)."""
    return float(values.mean()), float(2.093 * values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
