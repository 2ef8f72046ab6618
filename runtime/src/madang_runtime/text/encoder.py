"""The sentence encoder as it serves: any registered version, in ONNX Runtime."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from madang_runtime.models.onnx_backend import OnnxBackend
from madang_runtime.models.registry import ModelFiles
from madang_runtime.text.tokens import TextTokens, padded

Floats = NDArray[np.float32]
Role = Literal["query", "document"]

FULL, SMALL, TOKENIZER = "model.onnx", "model.int8.onnx", "tokenizer.json"
_TOKENS_AT_ONCE = 2048


class Encoder:
    """Texts → vectors of length 1.

    A version holds `model.onnx` and `tokenizer.json`, and may hold `model.int8.onnx`. The model
    reads `input_ids` and, where it wants them, `attention_mask` and `token_type_ids`: int64
    [n, tokens]. It gives vectors [n, d], or those of tokens [n, tokens, d], of which the
    parameter `pooling` tells what to make: "mean" or "cls". An encoder that was trained with
    prompts has the parameter `prompts`: what to put before a text, by its role.

    Attributes:
        parameters: of the version.

    Args:
        files: the version; its parameters are `dimension`, `longest` (tokens) and `pooling`.
        small: whether to run the int8 model where there is one.
        threads: of an operator.
    """

    def __init__(self, files: ModelFiles, *, small: bool, threads: int) -> None:
        parameters = files.manifest.parameters
        self.name, self.version = files.manifest.name, files.manifest.version
        self.parameters = parameters
        self.dimension = int(parameters["dimension"])
        self._pooling = str(parameters.get("pooling", ""))
        self._prompts = dict(parameters.get("prompts", {}))
        self._tokens = TextTokens(files.files[TOKENIZER], int(parameters["longest"]))
        model = files.files[SMALL if small and SMALL in files.files else FULL]
        self._backend = OnnxBackend(model, threads)
        found = self.encode(["warm up"]).shape
        if found != (1, self.dimension):
            raise ValueError(f"the encoder gives {found}, the manifest says {self.dimension}")

    def tokens(self, texts: Sequence[str], role: Role = "query") -> list[list[int]]:
        """Token ids of each text."""
        prompt = self._prompts.get(role, "")
        return self._tokens([prompt + text for text in texts] if prompt else texts)

    def encode(self, texts: Sequence[str], role: Role = "query") -> Floats:
        """Vectors of n texts: [n, d]."""
        return self.vectors(self.tokens(texts, role))

    def vectors(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Vectors of n lists of token ids, some at a time, those about as long together."""
        out = np.empty((len(tokens), self.dimension), np.float32)
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            # Ascending, so that the last of a batch is its longest.
            sizes = lengths[order[start:]] * np.arange(1, len(order) - start + 1)
            rows = order[start : start + max(1, int((sizes <= _TOKENS_AT_ONCE).sum()))]
            out[rows] = self._run([tokens[row] for row in rows.tolist()])
            start += len(rows)
        return out

    def _run(self, tokens: Sequence[Sequence[int]]) -> Floats:
        ids, mask = padded(tokens)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        vectors = next(iter(self._backend.run(inputs).values()))
        if vectors.ndim == 3:
            if self._pooling == "cls":
                vectors = vectors[:, 0]
            else:
                vectors = (vectors * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        norm: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norm, 1e-9), np.float32)
