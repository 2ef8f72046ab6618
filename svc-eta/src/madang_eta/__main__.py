"""`python -m madang_eta`: run the service."""

from madang_eta.settings import EtaSettings
from madang_eta.wiring import wire
from madang_runtime.server import run

if __name__ == "__main__":
    run("eta", EtaSettings(), wire)
