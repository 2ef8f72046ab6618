"""Quality is shed before calls are refused."""

from madang_ranker.surfaces import Surface
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.stages import Stages

# Pressure under which nothing is shed, and the fewest candidates to which it is.
_CALM, _FEWEST = 0.1, 50


def candidates_under(pressure: float, size: int, surface: Surface, stages: Stages) -> int:
    """How many candidates a list is made of: fewer under pressure, so that calls need not be
    refused, but more than a page of `size`."""
    if pressure < _CALM:
        return surface.candidates
    least = max(_FEWEST, size + 1)
    kept = min(surface.candidates, max(least, round(surface.candidates * (1 - pressure))))
    if kept < surface.candidates:
        busy = MadangError(
            Code.RESOURCE_EXHAUSTED, reason.ERROR_REASON_OVERLOADED, "calls wait for a thread"
        )
        stages.degrade("ranker", busy, f"{kept} of {surface.candidates} candidates are ranked")
    return kept
