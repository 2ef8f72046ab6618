"""How the making of a segment is watched."""

from collections.abc import Callable
from dataclasses import dataclass

from madang_targeting.trees import StoppedError


@dataclass(frozen=True)
class Work:
    """Passed along to whatever takes long.

    Attributes:
        note: told the stage and the share of it that is done.
        stopped: asked whether to stop.
        threads: to work with.
    """

    note: Callable[[str, float], None] = lambda stage, share: None
    stopped: Callable[[], bool] = lambda: False
    threads: int = 1

    def heed(self) -> None:
        """Raises: StoppedError, when it is to stop."""
        if self.stopped():
            raise StoppedError
