"""Which of the two kinds of tokenizer a file is."""

from __future__ import annotations

from pathlib import Path

from pulse_edge.errors import BundleError
from pulse_edge.text.json_tokenizer import SUFFIX, JsonTokenizer
from pulse_edge.text.json_vocabulary import LARGEST_FILE
from pulse_edge.text.tokenizer import Tokenizer


def open_tokenizer(source: Path | bytes, legacy: bool, name: str | None = None) -> Tokenizer:
    """Open a tokenizer by the end of its name.

    Args:
        source: its file, or its bytes.
        legacy: see `PromptSpec.legacy`.
        name: what messages call it; None: the file's path. Without both, it is a SentencePiece
            model.

    Raises:
        BundleError: it is no tokenizer, or `tokenizers` is not installed.
    """
    kind = name or (source.name if isinstance(source, Path) else "")
    if not kind.endswith(SUFFIX):
        return Tokenizer(source, legacy, name)
    content = _read_tokenizer(source) if isinstance(source, Path) else source
    return JsonTokenizer(content, legacy, name or str(source))


def _read_tokenizer(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: not a tokenizer (not a file); get the file again")
        if path.stat().st_size > LARGEST_FILE:
            raise BundleError(f"{path}: not a tokenizer (over {LARGEST_FILE} bytes)")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: not a tokenizer ({error.strerror})") from None
