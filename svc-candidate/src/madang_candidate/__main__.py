"""`python -m madang_candidate`: run the service."""

from madang_candidate.settings import CandidateSettings
from madang_candidate.wiring import wire
from madang_runtime.server import run

if __name__ == "__main__":
    run("candidate", CandidateSettings(), wire)
