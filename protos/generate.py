"""Generate the Python of every proto into a folder: `python protos/generate.py [FOLDER]`.

Writes messages, typed stubs, gRPC code and `madang/descriptors.binpb`, the descriptor set from
which the gateway transcodes JSON.
"""

import sys
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).parent
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
# The gateway turns errors into JSON only if it knows the types of their details.
ERROR_TYPES = ("google/rpc/status.proto", "google/rpc/error_details.proto")


def generate(out: Path) -> None:
    """Generate all code into `out`, which must exist.

    Raises:
        SystemExit: protoc refused a file; it has printed why.
    """
    sources = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.glob("madang/*/v1/*.proto"))
    descriptors = out / "madang" / "descriptors.binpb"
    descriptors.parent.mkdir(exist_ok=True)
    services = [s for s in sources if "\nservice " in (PROTOS / s).read_text()]
    _protoc(f"--python_out={out}", f"--mypy_out=quiet:{out}", *sources)
    _protoc(f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services)
    _protoc("--include_imports", f"--descriptor_set_out={descriptors}", *sources, *ERROR_TYPES)


def _protoc(*arguments: str) -> None:
    installed = Path(status_pb2.__file__).parents[2]
    includes = (PROTOS, PROTOS / "third_party", files("grpc_tools") / "_proto", installed)
    tools = Path(sys.executable).parent
    plugins = [f"--plugin={name}={tools / name}" for name in PLUGINS]
    if status := protoc.main(["protoc", *(f"-I{path}" for path in includes), *plugins, *arguments]):
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS / "gen")
