"""What a loaded model can do of what may be asked of it: English-only ones know one language, some translate.

Asked by `model.transcriber` and by the service's workers, before a recording is heard.
"""

from dataclasses import replace

from model.dims import DIMENSIONS, ModelDimensions
from model.errors import OptionError
from model.language import canonical_language
from model.network.whisper import Whisper
from model.options import TranscribeOptions


def can_translate(dims: ModelDimensions) -> bool:
    """Whether a model of these dimensions translates into English: the English-only ones and turbo were not trained to.

    By its dimensions and not by its name, which is that of a file or folder.
    """
    return dims.is_multilingual and dims != DIMENSIONS["large-v3-turbo"]


def check_detection(dims: ModelDimensions, name: str) -> None:
    """`OptionError` for a model that cannot tell languages apart."""
    if not dims.is_multilingual:
        raise OptionError("model", f"model {name} knows English only")


def check_options(options: TranscribeOptions, name: str, model: Whisper) -> TranscribeOptions:
    """The options with the language as a code; `OptionError` for what the model cannot do."""
    if options.task == "translate" and not can_translate(model.dims):
        raise OptionError("task", f"model {name} cannot translate; use task=transcribe or a multilingual model")
    if options.language is None:
        return options
    code = canonical_language(options.language)
    if not model.dims.is_multilingual and code != "en":
        raise OptionError("language", f"model {name} knows English only")
    if code == "yue" and model.dims.num_languages < 100:
        raise OptionError("language", f"model {name} does not know Cantonese; large-v3 does")
    return replace(options, language=code)
