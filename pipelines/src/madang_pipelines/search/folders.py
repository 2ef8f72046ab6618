"""Sentence encoders that others trained: folders in the layout of sentence-transformers."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from madang_pipelines.search.training import LONGEST, register_encoder, strangers
from madang_runtime.models.registry import ModelRegistry

_PAIRS = 512
_SAME, _MOST_BLIND = 0.999, 0.005


class FolderError(ValueError):
    """A folder that holds no encoder that can serve."""


class _Whole(nn.Module):
    """All modules of a folder, from token ids to vectors of length 1."""

    def __init__(self, loaded: SentenceTransformer) -> None:
        super().__init__()
        self.steps = nn.ModuleList(loaded)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [n, d] of n texts."""
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for step in self.steps:
            features = step(features)
        vectors: Tensor = nn.functional.normalize(features["sentence_embedding"], dim=1)
        return vectors


def import_encoder(
    folder: Path, registry: ModelRegistry, texts: Sequence[str] | None = None
) -> str:
    """Export the encoder of a folder, as it is and quantised, and register it. Nothing is fetched.

    Args:
        texts: some hundred of the kind that will be searched; unset takes phrases about food.
            Each beside another one tells from which cosine on this encoder means that texts are
            alike.

    Returns:
        the version. No alias moves.

    Raises:
        FolderError: with what is wrong.
    """
    if not (folder / "modules.json").exists():
        raise FolderError(f"{folder} is no folder of sentence-transformers: no modules.json")
    try:
        loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except (OSError, ValueError) as error:
        raise FolderError(f"{folder} can't be read: {error}") from error
    tokenizer = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise FolderError(f"{folder} has no fast tokenizer: tokenizer.json")
    given = loaded.prompts
    prompts = {
        "query": given.get("query") or "",
        "document": given.get("document") or given.get("passage") or "",
    }
    first, second = _beside(texts) if texts else strangers()
    unrelated = (
        [prompts["query"] + text for text in first],
        [prompts["document"] + text for text in second],
    )
    vectors = [loaded.encode(one, normalize_embeddings=True) for one in unrelated]
    blind = float(((vectors[0] * vectors[1]).sum(1) > _SAME).mean())
    if blind > _MOST_BLIND:
        raise FolderError(
            f"{folder} can't tell {blind:.0%} of different texts apart: give texts in a language "
            "that it knows"
        )
    return register_encoder(
        _Whole(loaded),
        tokenizer.to_str().encode(),
        registry,
        unrelated,
        longest=loaded.max_seq_length or LONGEST,
        prompts=prompts,
        source=folder.name,
    )


def _beside(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each text beside another one."""
    unique = sorted({text.strip() for text in texts} - {""})
    if len(unique) < 2:
        raise FolderError("at least two different texts are needed")
    drawn = Random(0)
    pairs = [drawn.sample(unique, 2) for _ in range(_PAIRS)]
    return [first for first, _ in pairs], [second for _, second in pairs]
