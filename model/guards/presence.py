"""Whether anybody speaks in a window: what the model says, and what the voice activity detector does. Pure.

The reference believes the model alone, which takes faint speech for silence and writes over sounds. Here, where
`TranscribeOptions.guards` is set:

- `is_doubtful` says for which windows the detector is asked at all: few, so that nobody else pays;
- `is_speech_after_all` has a window heard again that the model takes for silence and the detector for speech, this time
  as speech (`Window.voiced`). Its text stays if its witnesses (`model.guards.doubt`) have words of it too;
- `is_nobodys` says of a doubtful window, when it has said its first text, that it will give none whatever else is
  tried: most sounds without speech end there, where a search and four witnesses cost many times as much;
- `reason_to_skip` says why a window gives no text: silence, or a text that is doubtful while the detector hears nobody.

`model.longform.transcript` asks, and `model.decoding.ladder` while there is something to try, with results that
`Transcriber.weigh` had the detector hear. The figures are measured, see benchmarks/LOG.md.
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


def may_be_nobodys(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether `is_nobodys` can hold of a window that said this, once the detector has heard it."""
    if result.no_speech_prob <= _LITTLE or is_silent(result, options):
        return False
    return is_doubtful(result, options)


def is_nobodys(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the detector hears too little for a doubtful text: where a window `may_be_nobodys` it is dropped."""
    if not result.speech:
        return False
    return max(result.speech) < _NOBODY or (_is_scarce(result) and sounds_silent(result, options))


def _is_voiceless(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window's text is to be dropped: it is doubtful, and the detector hears hardly anybody.

    Whispering is no voice to the detector; a text of which the witnesses have several words too is kept.
    """
    if not result.speech or not is_doubtful(result, options):
        return False
    if result.confirmed >= _CONFIRMED_WORDS and result.no_speech_prob <= _LITTLE:
        return False
    return is_nobodys(result, options) or (result.failed and _is_scarce(result))


def _is_scarce(result: DecodingResult) -> bool:
    """Whether there is less speech in the window than in any in which somebody speaks."""
    least = max(_LEAST_SECONDS, _LEAST_SHARE * (len(result.speech) * CHUNK_SECONDS - _FREE_SECONDS))
    return _spoken(result) * CHUNK_SECONDS < least


def _spoken(result: DecodingResult) -> int:
    """How many pieces of the window are speech to the detector."""
    return sum(probability >= THRESHOLD for probability in result.speech)
