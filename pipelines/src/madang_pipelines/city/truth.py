"""What is true in the city and hidden from every feature."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class Truth:
    """Latent tastes and the probabilities that follow from them.

    Attributes:
        user_taste: [users, k], item_taste: [items, k]: latent vectors.
        item_quality: [items].
        price_pull: [users]: how much a user minds a price above the usual one of its kind.
        distance_pull: [users]: utility lost per kilometre.
        hour_demand: [categories, 24].
        item_category, item_log_price: [items], the price relative to its category's usual one.
        is_ad: [items].
        item_places, in degrees: [items, 2].
        past_orders: [users, items]: what habit builds on, as the held-out period begins.
    """

    user_taste: Floats
    item_taste: Floats
    item_quality: Floats
    price_pull: Floats
    distance_pull: Floats
    hour_demand: Floats
    item_category: Ints
    item_log_price: Floats
    is_ad: NDArray[np.bool_]
    item_places: Floats
    past_orders: NDArray[np.uint8]

    def probabilities(
        self, users: Ints, items: Ints, hours: Ints, places: Floats
    ) -> tuple[Floats, Floats]:
        """The true probabilities of a click and of an order, if seen.

        Args:
            users: indices, shape [n, 1] or [n, m] against `items`.
            items: indices, shape [n, m].
            hours: local hours, broadcast against `items`.
            places: degrees, shape [n, 1, 2] or [n, m, 2].
        """
        distance = kilometres(places, self.item_places[items])
        habit = np.log1p(self.past_orders[users, items].astype(np.float64))
        utility = (
            self._liking(users, items)
            + self.hour_demand[self.item_category[items], hours]
            - self.price_pull[users] * self.item_log_price[items]
            - self.distance_pull[users] * distance
            + 1.2 * habit
            - 0.6 * self.is_ad[items]
        )
        click = sigmoid(utility - 2.6)
        order_given_click = sigmoid(0.9 * utility - 2.4)
        return click, click * order_given_click

    def annoyance(self, users: Ints, items: Ints) -> Floats:
        """The true probability that a user hides an item, if seen: of what they don't like, and of
        ads more than of shops. Arguments as of `probabilities`."""
        return sigmoid(-4.4 - 0.8 * self._liking(users, items) + 1.2 * self.is_ad[items])

    def _liking(self, users: Ints, items: Ints) -> Floats:
        taste = (self.user_taste[users] * self.item_taste[items]).sum(-1)
        liking: Floats = 1.1 * taste + self.item_quality[items]
        return liking


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def kilometres(a: Floats, b: Floats) -> Floats:
    """Distance between points in degrees on the last axis, on a flat Seoul."""
    north = (a[..., 0] - b[..., 0]) * 111.2
    east = (a[..., 1] - b[..., 1]) * 88.2
    return np.hypot(north, east)
