"""`python -m madang_targeting`: run the service."""

from madang_runtime.server import run
from madang_targeting.settings import TargetingSettings
from madang_targeting.wiring import wire

if __name__ == "__main__":
    run("targeting", TargetingSettings(), wire)
