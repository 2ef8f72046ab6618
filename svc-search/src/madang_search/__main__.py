"""`python -m madang_search`: run the service."""

from madang_runtime.server import run
from madang_search.settings import SearchSettings
from madang_search.wiring import wire

if __name__ == "__main__":
    run("search", SearchSettings(), wire)
