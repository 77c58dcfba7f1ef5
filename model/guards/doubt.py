"""What to do with a window whose text the model itself does not believe. Pure.

The reference gives the last, hottest attempt of a ladder that failed all the way, which is noise: digits and syllables
of any script. Here, where `TranscribeOptions.guards` is set:

- `needs_search` has, on a CPU, a text that was taken token by token searched for again with beams where the model was
  not sure of it; what that gives takes its place, and it becomes one of those that the text is held against;
- `needs_witness` has a doubtful text heard again, up to four times: on a CPU beside a shadow that hears silence
  (`model.decoding.contrast`), greedily first and then by draws; on a GPU by draws alone. The window is not heated
  meanwhile: `is_worth_heating` says how far the ladder goes where nobody is heard, and before a GPU's draws;
- `salvage` keeps of the text and its witnesses the one that the others agree with most, and leaves out the words that
  they have nothing in place of (`model.guards.consensus`): what is heard comes again in some form, what is made up does
  not. Of a ladder without witnesses it keeps the first attempt up to 0.4 that does not repeat itself, or the first of
  all. Phrases that come twice in a window that needed more than one attempt are left out, and a loop ends after its
  first round, unless the model was sure of them the first time: people say the same again. Whether it heard that
  again, or once and goes round, is asked of its attention (`is_said_again`, `told_apart`).

Whether anybody speaks at all is another doubt (`model.guards.presence`).

A window that passed the thresholds, does not end in a loop, and whose `no_speech_prob` and log-probability are those of
speech, is never touched: its tokens are the reference's. Where products are in 8 bits they are not to the last anyway,
and a text is unsure sooner. The figures are measured, see benchmarks/LOG.md.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from model.guards.consensus import Consensus, is_same_text
from model.guards.repetition import comes_back, cut_loop, cut_repeats
from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.window import SURE_LOGPROB, DecodingResult, fallback_reason, goes_round, is_silent

WITNESS_TEMPERATURE = 0.4
"""Hotter, attempts are mostly noise; colder, they are all alike."""
_MOST = 4
"""Witnesses that are heard, unless the first one says the same as the text."""
_UNSURE_WORDS = -0.18
"""Below it such a search finds better texts often enough to be worth it (benchmarks/LOG.md)."""
_SURE_BESIDE = 10
"""Certain tokens that are thought beside those of a text: the mean of a few says little of them."""
_SURE_TOKEN = math.log(0.7)
"""Tokens at least as probable, from the first one on, are those of the text that a search finds as well."""


def is_worth_heating(
    attempts: Sequence[DecodingResult],
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    rung: int,
    *,
    contrasts: bool,
) -> bool:
    """Whether a window all of whose attempts failed is to be tried at this rung of the ladder, if there is one.

    `contrasts`: whether its witnesses will have a shadow, which helps where heat does not. Nor does it where somebody
    said the same again: what no longer repeats itself is wrong then.
    """
    if rung >= len(options.temperature):
        return False
    if not options.guards:
        return True
    if contrasts and options.hears_witnesses:
        return False
    if is_said_again(attempts[0], tokenizer) and fallback_reason(attempts[0], options) == "compression_ratio":
        return False
    return options.temperature[rung] <= WITNESS_TEMPERATURE or not _sound(attempts, options)


def needs_search(text: DecodingResult, options: TranscribeOptions, tokenizer: Tokenizer, *, rounds: bool) -> bool:
    """Whether a text of temperature 0 is to be searched for again with beams; `rounds`: whether products are in 8 bits.

    Not where its caller said with how many beams, nor where somebody says the same again.
    """
    if not options.searches or options.beam_size is not None or text.temperature > 0:
        return False
    if is_silent(text, options):
        return False
    if goes_round(text, options):
        return not is_said_again(text, tokenizer)
    return text.avg_logprob < SURE_LOGPROB or (rounds and _certainty(text, tokenizer) < _UNSURE_WORDS)


def _certainty(text: DecodingResult, tokenizer: Tokenizer) -> float:
    """The mean log-probability of what is no timestamp, with some certain tokens beside it."""
    words = [
        logprob for token, logprob in zip(text.tokens, text.logprobs, strict=True) if token < tokenizer.timestamp_begin
    ]
    return sum(words) / (len(words) + _SURE_BESIDE)


def sure_beginning(text: DecodingResult, options: TranscribeOptions) -> int:
    """How many tokens a search need not find again: the first ones, as far as the model was sure of each.

    None of a text that goes round, of which it is sure in the end.
    """
    if goes_round(text, options):
        return 0
    unsure = (i for i, logprob in enumerate(text.logprobs) if logprob < _SURE_TOKEN)
    return next(unsure, max(0, len(text.logprobs) - 1))


def needs_witness(
    attempts: Sequence[DecodingResult],
    witnesses: Sequence[DecodingResult],
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    *,
    failed: bool,
    voiced: bool = False,
) -> bool:
    """Whether one more is to be heard about a ladder's text; `failed`: whether its last rung did.

    After one that says the same there are no more. The text of a window that is `voiced` (`Window.voiced`) is worth
    nothing by itself, however sure a search made it.
    """
    text = _text(attempts, options, failed=failed)
    if not options.hears_witnesses or is_silent(text, options):
        return False
    if len(witnesses) == 1:
        return not is_same_text(text, witnesses[0], tokenizer)
    return len(witnesses) < _MOST and (failed or voiced or text.avg_logprob < SURE_LOGPROB)


def salvage(
    attempts: Sequence[DecodingResult],
    witnesses: Sequence[DecodingResult],
    options: TranscribeOptions,
    tokenizer: Tokenizer,
    *,
    failed: bool,
    first: DecodingResult | None = None,
) -> DecodingResult:
    """What to keep of a ladder: `attempts` holds one result of each of its temperatures so far, at least one.

    `failed`: whether the last one failed too. `first`: what was said before the text was searched for; a search makes a
    text more probable, and sounds on which nobody speaks no less doubtful.
    """
    text = _text(attempts, options, failed=failed)
    kept = replace(text, failed=failed)
    if witnesses:
        before = [] if first is None or len(witnesses) == 1 else [first]
        kept = _agreed([text, *before, *witnesses], options, tokenizer)
    elif goes_round(text, options):
        kept = _without_loop(kept, tokenizer)
    else:
        if cut_loop(kept.tokens, tokenizer.timestamp_begin) is not None:
            kept = replace(kept, repeating=True)
        kept = _without_repeats(kept, tokenizer) if len(attempts) > 1 or failed else kept
    doubted = first is not None and (first.avg_logprob < SURE_LOGPROB or goes_round(first, options))
    return replace(kept, doubted=doubted)


def is_said_again(text: DecodingResult, tokenizer: Tokenizer) -> bool:
    """Whether a text repeats itself, and the model was sure of all of that the first time: so may its witnesses then.

    They are chosen beside silence, and are less probable.
    """
    return _tidy(text, tokenizer) is text and _tidy(replace(text, logprobs=()), tokenizer).tokens != text.tokens


def told_apart(result: DecodingResult, seconds: Sequence[float], tokenizer: Tokenizer) -> DecodingResult:
    """A text that `is_said_again`, `circling` if it was heard once: by the seconds at which the decoder looked."""
    circling = comes_back(result.tokens, tokenizer.timestamp_begin, seconds, _inner(result, tokenizer))
    return replace(result, circling=circling)


def _agreed(heard: Sequence[DecodingResult], options: TranscribeOptions, tokenizer: Tokenizer) -> DecodingResult:
    """Of a text and its witnesses the one that all agree with most, without the words that the others leave out."""
    again = is_said_again(heard[0], tokenizer)
    tidy = [one if again and not one.endless else _tidy(one, tokenizer) for one in heard]
    consensus = Consensus(tidy, tokenizer)
    number = consensus.most_agreed()
    tokens, places = consensus.without_unconfirmed(number)
    kept = _changed(tidy[number], tokens, tokenizer)
    failed = fallback_reason(heard[number], options) is not None
    confirmed = consensus.confirmed(number)
    return replace(kept, failed=failed, unconfirmed=places, witnesses=len(heard) - 1, confirmed=confirmed)


def _text(attempts: Sequence[DecodingResult], options: TranscribeOptions, *, failed: bool) -> DecodingResult:
    """What a ladder says: its last attempt if that passed, else the first that does not repeat itself, or the first.

    What was too improbable and hot is noise, and no better than a loop that can be cut.
    """
    if not failed:
        return attempts[-1]
    cold = (one for one in _sound(attempts, options) if one.temperature <= WITNESS_TEMPERATURE)
    return next(cold, attempts[0])


def _sound(attempts: Sequence[DecodingResult], options: TranscribeOptions) -> list[DecodingResult]:
    """Those that do not repeat themselves."""
    return [one for one in attempts if not goes_round(one, options)]


def _changed(result: DecodingResult, tokens: tuple[int, ...], tokenizer: Tokenizer) -> DecodingResult:
    """The result with fewer tokens; its scores stay those of what was decoded."""
    return replace(result, tokens=tokens, text=tokenizer.decode(tokens).strip(), logprobs=())


def _tidy(result: DecodingResult, tokenizer: Tokenizer) -> DecodingResult:
    """The result itself where nothing is to be left out of it."""
    return _without_repeats(_without_loop(result, tokenizer), tokenizer)


def _logprobs(result: DecodingResult) -> tuple[float, ...]:
    """What tells repetitions that were said from a loop; nothing does in a text that found no end, or goes round."""
    return () if result.endless or result.circling else result.logprobs


def _inner(result: DecodingResult, tokenizer: Tokenizer) -> frozenset[int]:
    """Positions of the tokens that go on with the word before them, or with its character where there are no blanks."""
    _, words = tokenizer.split_to_word_tokens(result.tokens, result.language)
    return frozenset(range(len(result.tokens))).difference(itertools.accumulate(map(len, words), initial=0))


def _without_loop(result: DecodingResult, tokenizer: Tokenizer) -> DecodingResult:
    tokens = cut_loop(result.tokens, tokenizer.timestamp_begin, _logprobs(result), _inner(result, tokenizer))
    return result if tokens is None else replace(_changed(result, tokens, tokenizer), looped=True)


def _without_repeats(result: DecodingResult, tokenizer: Tokenizer) -> DecodingResult:
    inner = _inner(result, tokenizer)
    tokens, repeats = cut_repeats(result.tokens, tokenizer.timestamp_begin, _logprobs(result), inner)
    if not repeats:
        return result
    return replace(_changed(result, tokens, tokenizer), repeats=repeats)
