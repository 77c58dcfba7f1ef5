"""What to do with a window whose text the model itself does not believe. Pure.

The reference gives the last, hottest attempt of a ladder that failed all the way, which is noise: digits and syllables
of any script. Here, where `TranscribeOptions.guards` is set:

- `salvage` keeps the most probable attempt that does not repeat itself; where every attempt did, it ends the text
  after the first round of the loop;
- `is_doubtful` says for which windows the voice activity detector is asked at all: few, so that nobody else pays;
- `is_voiceless` drops the text of such a window where the detector hears nobody either.

A window that passed the thresholds, and whose `no_speech_prob` and log-probability are those of speech, is never
touched: its tokens are the reference's. The figures are measured, see benchmarks/LOG.md.
"""

from collections.abc import Sequence
from dataclasses import replace

from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.window import DecodingResult

_SURE_LOGPROB = -0.7
"""From here on the detector is not asked, unless something else speaks against the window."""
_NOBODY = 0.3
"""Speech probability below which nobody speaks: of 333 clips of speech in as much white noise, two stay below."""
_SPEECH = 0.5
_LEAST_SECONDS, _LEAST_SHARE = 0.2, 0.1
"""Speech that a window must have, in seconds and as a share of it, for a text that failed to be kept."""
_CHUNK_SECONDS = 0.032
_ROUNDS = 3
"""So often a text says the same before it counts as a loop."""
_LEAST_LOOP = 12
"""Tokens that a loop has at least: "no, no, no" is none."""


def salvage(attempts: Sequence[DecodingResult], options: TranscribeOptions, tokenizer: Tokenizer) -> DecodingResult:
    """What to keep of a ladder that failed at every temperature: `attempts` holds one result of each, at least one."""
    limit = options.compression_ratio_threshold
    sound = [one for one in attempts if limit is None or one.compression_ratio <= limit]
    if sound:
        return replace(max(sound, key=lambda one: one.avg_logprob), failed=True)
    first = replace(attempts[0], failed=True)
    tokens = cut_loop(first.tokens, tokenizer.timestamp_begin)
    if tokens is None:
        return first
    return replace(first, tokens=tokens, text=tokenizer.decode(tokens).strip(), looped=True)


def cut_loop(tokens: Sequence[int], timestamp_begin: int) -> tuple[int, ...] | None:
    """The tokens up to the end of the first round of the loop in which they end, or None where they end in none.

    Timestamps do not count for what is the same. The next one after the cut is kept: it ends the segment.
    """
    places = [i for i, token in enumerate(tokens) if token < timestamp_begin]
    text = [tokens[i] for i in places]
    best: int | None = None
    for period in range(1, len(text) // _ROUNDS + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        if len(text) - start >= max(_ROUNDS * period, _LEAST_LOOP):
            end = start + period
            best = end if best is None else min(best, end)
    if best is None:
        return None
    stop = places[best - 1] + 1
    after = next((token for token in tokens[stop:] if token >= timestamp_begin), None)
    return (*tokens[:stop], *(() if after is None else (after,)))


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
