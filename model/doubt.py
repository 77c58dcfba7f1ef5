"""What to do with a window whose text the model itself does not believe. Pure.

The reference gives the last, hottest attempt of a ladder that failed all the way, which is noise: digits and syllables
of any script. Here, where `TranscribeOptions.guards` is set:

- `salvage` keeps of a ladder that failed the attempt that the others agree with most: what is heard comes again at
  every temperature, what is made up does not. Where every attempt went in a loop, it ends the text after the first
  round. Of a window that needed more than one attempt it leaves out phrases that come twice;
- `is_doubtful` says for which windows the voice activity detector is asked at all: few, so that nobody else pays;
- `is_voiceless` drops the text of such a window where the detector hears nobody either.

A window that passed the thresholds, and whose `no_speech_prob` and log-probability are those of speech, is never
touched: its tokens are the reference's. The figures are measured, see benchmarks/LOG.md.
"""

from collections.abc import Sequence
from dataclasses import replace

from model.dims import FRAMES_PER_SECOND
from model.options import TranscribeOptions
from model.repetition import cut_loop, cut_repeats, edit_distance
from model.segments import Segment, Skipped
from model.tokenizer import Tokenizer
from model.window import TIMESTAMP_SECONDS, DecodingResult, Window

_SURE_LOGPROB = -0.7
"""From here on the detector is not asked, unless something else speaks against the window."""
_NOBODY = 0.3
"""Speech probability below which nobody speaks: of 333 clips of speech in as much white noise, two stay below."""
_SPEECH = 0.5
_LEAST_SECONDS, _LEAST_SHARE = 0.2, 0.1
"""Speech that a window must have, in seconds and as a share of it, for a text that failed to be kept."""
_CHUNK_SECONDS = 0.032
_SOBER = 0.4
"""Temperature up to which an attempt is worth comparing: hotter ones are mostly noise."""


def salvage(
    attempts: Sequence[DecodingResult], options: TranscribeOptions, tokenizer: Tokenizer, *, failed: bool
) -> DecodingResult:
    """What to keep of a ladder: `attempts` holds one result of each of its temperatures so far, at least one.

    `failed`: whether the last one failed too.
    """
    if not failed:
        return _without_repeats(attempts[-1], tokenizer)
    limit = options.compression_ratio_threshold
    sound = [one for one in attempts if limit is None or one.compression_ratio <= limit]
    if sound:
        agreed = _agreed([one for one in sound if one.temperature <= _SOBER] or sound, tokenizer)
        return _without_repeats(replace(agreed, failed=True), tokenizer)
    first = replace(attempts[0], failed=True)
    tokens = cut_loop(first.tokens, tokenizer.timestamp_begin)
    if tokens is None:
        return first
    return replace(first, tokens=tokens, text=tokenizer.decode(tokens).strip(), looped=True)


def _agreed(attempts: Sequence[DecodingResult], tokenizer: Tokenizer) -> DecodingResult:
    """The attempt with the fewest changes of a token to the others, the first of several."""
    texts = [[token for token in one.tokens if token < tokenizer.eot] for one in attempts]
    changes = [sum(edit_distance(text, other) for other in texts) for text in texts]
    return attempts[changes.index(min(changes))]


def _without_repeats(result: DecodingResult, tokenizer: Tokenizer) -> DecodingResult:
    tokens, repeats = cut_repeats(result.tokens, tokenizer.timestamp_begin)
    if not repeats:
        return result
    return replace(result, tokens=tokens, text=tokenizer.decode(tokens).strip(), repeats=repeats)


def left_out(
    result: DecodingResult, window: Window, segments: Sequence[Segment], timestamp_begin: int
) -> list[Skipped]:
    """Where in the recording the window's text was cut because it repeats itself; `segments` are what is left of it."""
    offset, stop = window.seek / FRAMES_PER_SECOND, (window.seek + window.n_frames) / FRAMES_PER_SECOND
    left = []
    for first, last in result.repeats:
        end = stop if last is None else offset + (last - timestamp_begin) * TIMESTAMP_SECONDS
        left.append((offset + (first - timestamp_begin) * TIMESTAMP_SECONDS, min(stop, end)))
    if result.looped and segments:
        left.append((segments[-1].end, stop))
    return [Skipped("repetition", start, end) for start, end in left if start < end]


def is_doubtful(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the detector is to be asked about the window."""
    if not options.guards:
        return False
    return result.failed or _sounds_silent(result, options) or result.avg_logprob < _SURE_LOGPROB


def is_voiceless(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window's text is to be dropped: it is doubtful, and the detector hears hardly anybody."""
    probabilities = result.speech
    if not probabilities or not is_doubtful(result, options):
        return False
    if max(probabilities) < _NOBODY:
        return True
    least = max(_LEAST_SECONDS, _LEAST_SHARE * len(probabilities) * _CHUNK_SECONDS)
    scarce = sum(probability >= _SPEECH for probability in probabilities) * _CHUNK_SECONDS < least
    return scarce and (result.failed or _sounds_silent(result, options))


def _sounds_silent(result: DecodingResult, options: TranscribeOptions) -> bool:
    return options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
