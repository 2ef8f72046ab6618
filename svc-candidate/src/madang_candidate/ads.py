"""The embedding networks of ads as they serve: one runs online, the ads' vectors lie ready."""

from madang_candidate.index import Floats
from madang_runtime.models.inputs import InputRows
from madang_runtime.models.onnx_backend import OnnxBackend


class AdNetworks:
    """The networks of one version.

    Args:
        query: ONNX of the user and context networks: → `vector`.
        ads: ONNX of the ad network: `ints` and `floats` → `vector`, for ads put in since training.
        threads: of either.
    """

    def __init__(self, query: bytes, ads: bytes, threads: int) -> None:
        self._query = OnnxBackend(query, threads)
        self._ads = OnnxBackend(ads, threads)

    def query(self, user: InputRows, context: InputRows) -> Floats:
        """The vector of one user in a context, shape [d], of length 1."""
        vector: Floats = self._query.run(
            {
                "user_ints": user.ints,
                "user_floats": user.floats,
                "context_ints": context.ints,
                "context_floats": context.floats,
            }
        )["vector"][0]
        return vector

    def vectors(self, ads: InputRows) -> Floats:
        """Vectors of n ads, shape [n, d], of length 1."""
        vectors: Floats = self._ads.run({"ints": ads.ints, "floats": ads.floats})["vector"]
        return vectors
