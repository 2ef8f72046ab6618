"""`python -m madang_ranker`: run the service."""

from madang_ranker.settings import RankerSettings
from madang_ranker.wiring import wire
from madang_runtime.server import run

if __name__ == "__main__":
    run("ranker", RankerSettings(), wire)
