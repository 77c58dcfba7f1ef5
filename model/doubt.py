"""What to do with a window whose text the model itself does not believe. Pure.

The reference gives the last, hottest attempt of a ladder that failed all the way, which is noise: digits and syllables
of any script. Here, where `TranscribeOptions.guards` is set:

- `is_worth_heating` says how far up the ladder a window that is merely improbable goes: hotter than 0.4 the attempts
  are mostly noise. `salvage` keeps of a ladder that failed the first attempt that does not repeat itself; where all of
  them do, it ends the text after the first round. Of a window that needed more than one attempt it leaves out phrases
  that come twice;
- `needs_witness` has a doubtful text heard again, up to six times, and `salvage` leaves out the words that the
  witnesses have nothing in place of (`model.consensus`): what is heard comes again in some form, what is made up does
  not;
- `is_doubtful` says for which windows the voice activity detector is asked at all: few, so that nobody else pays;
- `is_voiceless` drops the text of such a window where the detector hears nobody either.

A window that passed the thresholds, does not end in a loop, and whose `no_speech_prob` and log-probability are those of
speech, is never touched: its tokens are the reference's. The figures are measured, see benchmarks/LOG.md.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from model.consensus import confirmed_words, cut_unconfirmed, is_disputed
from model.cuts import Place
from model.dims import FRAMES_PER_SECOND
from model.options import TranscribeOptions
from model.repetition import cut_loop, cut_repeats
from model.segments import Segment, Skipped
from model.tokenizer import Tokenizer
from model.window import TIMESTAMP_SECONDS, DecodingResult, Window, is_silent

_SURE_LOGPROB = -0.7
"""From here on nobody else is asked, unless something else speaks against the window."""
_NOBODY = 0.3
"""Speech probability below which nobody speaks: of 333 clips of speech in as much white noise, two stay below."""
_SPEECH = 0.5
_LEAST_SECONDS, _LEAST_SHARE = 0.2, 0.1
"""Speech that a window must have, in seconds and as a share of it, for a text that failed to be kept."""
_CHUNK_SECONDS = 0.032
WITNESS_TEMPERATURE = 0.4
"""Hotter, attempts are mostly noise; colder, they are all alike."""
_FEW, _MOST = 2, 6
"""Witnesses that are heard at least, and at most."""
_CONFIRMED, _LITTLE = 3, 0.3
"""Words that most witnesses must have, and the `no_speech_prob` up to which they then outweigh the detector."""


def is_worth_heating(attempts: Sequence[DecodingResult], options: TranscribeOptions, rung: int) -> bool:
    """Whether a window all of whose attempts failed is to be tried at this rung of the ladder, if there is one."""
    if rung >= len(options.temperature):
        return False
    return not options.guards or options.temperature[rung] <= WITNESS_TEMPERATURE or not _sound(attempts, options)


def needs_witness(
    attempts: Sequence[DecodingResult],
    witnesses: Sequence[DecodingResult],
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    *,
    failed: bool,
) -> bool:
    """Whether one more is to be heard about what is kept of a ladder, which failed or did not.

    None is where one attempt alone is asked for or improbable text is welcome, about a translation, which has many
    wordings, or about silence. After the second there are more only if one of the two left something out.
    """
    if not options.guards or options.task != "transcribe":
        return False
    if options.logprob_threshold is None or len(options.temperature) == 1:
        return False
    kept = _kept(attempts, options, failed=failed)
    if kept is None or is_silent(kept, options) or not (failed or kept.avg_logprob < _SURE_LOGPROB):
        return False
    if len(witnesses) == _FEW:
        return is_disputed(kept, _sound(witnesses, options), tokenizer)
    return len(witnesses) < _MOST


def salvage(
    attempts: Sequence[DecodingResult],
    witnesses: Sequence[DecodingResult],
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    *,
    failed: bool,
) -> DecodingResult:
    """What to keep of a ladder: `attempts` holds one result of each of its temperatures so far, at least one.

    `failed`: whether the last one failed too.
    """
    kept = _kept(attempts, options, failed=failed)
    if kept is None:
        first = replace(attempts[0], failed=True)
        tokens = cut_loop(first.tokens, tokenizer.timestamp_begin)
        return first if tokens is None else replace(_changed(first, tokens, tokenizer), looped=True)
    if cut_loop(kept.tokens, tokenizer.timestamp_begin) is not None:
        kept = replace(kept, repeating=True)
    if len(attempts) > 1 or failed:
        kept = _without_repeats(kept, tokenizer)  # before words are missing in one of the two
    return _confirmed(kept, _sound(witnesses, options), tokenizer)


def _kept(attempts: Sequence[DecodingResult], options: TranscribeOptions, *, failed: bool) -> DecodingResult | None:
    """The attempt that stays; None of a ladder in which every attempt repeats itself."""
    if not failed:
        return attempts[-1]
    sound = _sound(attempts, options)
    return replace(sound[0], failed=True) if sound else None


def _sound(attempts: Sequence[DecodingResult], options: TranscribeOptions) -> list[DecodingResult]:
    """Those that do not repeat themselves."""
    limit = options.compression_ratio_threshold
    return [one for one in attempts if limit is None or one.compression_ratio <= limit]


def _confirmed(result: DecodingResult, witnesses: Sequence[DecodingResult], tokenizer: Tokenizer) -> DecodingResult:
    if not witnesses:
        return result
    confirmed = confirmed_words(result, witnesses, tokenizer)
    tokens, places = cut_unconfirmed(result, witnesses, tokenizer) if len(witnesses) > _FEW else ((), ())
    if places:
        result = _changed(result, tokens, tokenizer)
    return replace(result, unconfirmed=places, confirmed=confirmed)


def _changed(result: DecodingResult, tokens: tuple[int, ...], tokenizer: Tokenizer) -> DecodingResult:
    """The result with fewer tokens; its scores stay those of what was decoded."""
    return replace(result, tokens=tokens, text=tokenizer.decode(tokens).strip(), logprobs=())


def _without_repeats(result: DecodingResult, tokenizer: Tokenizer) -> DecodingResult:
    tokens, repeats = cut_repeats(result.tokens, tokenizer.timestamp_begin)
    if not repeats:
        return result
    return replace(_changed(result, tokens, tokenizer), repeats=repeats)


def left_out(
    result: DecodingResult, window: Window, segments: Sequence[Segment], timestamp_begin: int
) -> list[Skipped]:
    """Where in the recording something was cut out of the window's text; `segments` are what is left of it."""
    offset, stop = window.seek / FRAMES_PER_SECOND, (window.seek + window.n_frames) / FRAMES_PER_SECOND
    left: list[Skipped] = []

    def note(reason: Literal["repetition", "unconfirmed"], places: Sequence[Place]) -> None:
        for first, last in places:
            end = stop if last is None else offset + (last - timestamp_begin) * TIMESTAMP_SECONDS
            left.append(Skipped(reason, offset + (first - timestamp_begin) * TIMESTAMP_SECONDS, min(stop, end)))

    note("repetition", result.repeats)
    note("unconfirmed", result.unconfirmed)
    if result.looped and segments:
        left.append(Skipped("repetition", segments[-1].end, stop))
    return [one for one in left if one.start < one.end]


def is_doubtful(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the detector is to be asked about the window."""
    if not options.guards:
        return False
    return result.failed or result.repeating or _sounds_silent(result, options) or result.avg_logprob < _SURE_LOGPROB


def is_voiceless(result: DecodingResult, options: TranscribeOptions) -> bool:
    """Whether the window's text is to be dropped: it is doubtful, and the detector hears hardly anybody.

    Whispering is no voice to the detector; a text of which the witnesses have several words too is kept.
    """
    probabilities = result.speech
    if not probabilities or not is_doubtful(result, options):
        return False
    if result.confirmed >= _CONFIRMED and result.no_speech_prob <= _LITTLE:
        return False
    if max(probabilities) < _NOBODY:
        return True
    least = max(_LEAST_SECONDS, _LEAST_SHARE * len(probabilities) * _CHUNK_SECONDS)
    scarce = sum(probability >= _SPEECH for probability in probabilities) * _CHUNK_SECONDS < least
    return scarce and (result.failed or _sounds_silent(result, options))


def _sounds_silent(result: DecodingResult, options: TranscribeOptions) -> bool:
    return options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
