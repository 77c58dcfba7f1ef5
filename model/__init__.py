"""Whisper itself: log-Mel, tokenizer, Transformer, decoding. Imports nothing of the service.

    from model import load
    load("base").transcribe("talk.mp3").text

Importing the package loads neither torch nor a codec; `load` does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.loading import load
    from model.transcriber import Transcriber

__all__ = ["Transcriber", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import model.loading

        return getattr(model.loading, name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")
