"""Whether anybody speaks in a window: what the model says, and what the voice activity detector does. Pure.

The reference believes the model alone, which takes faint speech for silence and writes over sounds. Here, where
`TranscribeOptions.guards` is set:

- `is_doubtful` says for which windows the detector is asked at all: few, so that nobody else pays;
- `is_speech_after_all` has a window heard again that the model takes for silence and the detector for speech, this time
  as speech (`Window.voiced`). Its text stays if its witnesses (`model.guards.doubt`) have words of it too;
- `reason_to_skip` says why a window gives no text: silence, or a text that is doubtful while the detector hears nobody.

`model.longform.transcript` asks, with the results of `model.decoding.batch` that `Transcriber.weigh` had the detector
hear. The figures are measured, see benchmarks/LOG.md.
"""

from typing import Literal

from model.options import TranscribeOptions
from model.voice.speech import CHUNK_SECONDS, THRESHOLD
from model.window import SURE_LOGPROB, DecodingResult, Window, is_silent, sounds_silent

_CONFIRMED_WORDS = 3
"""Words that most witnesses must have, for a text to stay that the model or the detector takes for nobody's."""
_NOBODY = 0.3
"""Speech probability below which nobody speaks: of 333 clips of speech in as much white noise, two stay below."""
_LEAST_SECONDS, _LEAST_SHARE = 0.2, 0.1
"""Speech that a window must have, in seconds and as a share of it, for a text that failed to be kept."""
_FREE_SECONDS = 5.0
"""Seconds of a window that ask for no share: a command of one word stands in so many (benchmarks/LOG.md)."""
_MOSTLY = 0.5
"""Share of a window that must be speech to the detector for it not to be silence."""
_LITTLE = 0.3
"""The `no_speech_prob` up to which confirmed words outweigh the detector."""


def is_doubtful(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the detector is to be asked about the window."""
    if not options.guards:
        return False
    if result.failed or result.repeating or result.doubted:
        return True
    return sounds_silent(result, options) or result.avg_logprob < SURE_LOGPROB


def is_speech_after_all(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window, which the model takes for silence, is to be heard again as speech: the detector hears some.

    Not where there would be no witnesses: the text of such a window is worth nothing by itself.
    """
    if not is_silent(result, options) or not options.hears_witnesses:
        return False
    return _spoken(result) > _MOSTLY * len(result.speech)


def reason_to_skip(
    result: DecodingResult, window: Window, options: TranscribeOptions
) -> Literal["no_speech", "no_voice"] | None:
    """Why the window gives no text; None where it gives one."""
    if is_silent(result, options) or (window.voiced and result.confirmed < _CONFIRMED_WORDS):
        return "no_speech"
    return "no_voice" if _is_voiceless(result, options) else None


def _is_voiceless(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window's text is to be dropped: it is doubtful, and the detector hears hardly anybody.

    Whispering is no voice to the detector; a text of which the witnesses have several words too is kept.
    """
    probabilities = result.speech
    if not probabilities or not is_doubtful(result, options):
        return False
    if result.confirmed >= _CONFIRMED_WORDS and result.no_speech_prob <= _LITTLE:
        return False
    if max(probabilities) < _NOBODY:
        return True
    least = max(_LEAST_SECONDS, _LEAST_SHARE * (len(probabilities) * CHUNK_SECONDS - _FREE_SECONDS))
    scarce = _spoken(result) * CHUNK_SECONDS < least
    return scarce and (result.failed or sounds_silent(result, options))


def _spoken(result: DecodingResult) -> int:
    """How many pieces of the window are speech to the detector."""
    return sum(probability >= THRESHOLD for probability in result.speech)
