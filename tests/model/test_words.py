"""Words and what is skipped by their looks, held against the reference's own loop over the same alignments."""

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.longform.transcript import Transcript
from model.options import TranscribeOptions
from model.segments import Segment, Skipped, Word
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, TokenTimes, compression_ratio, finished_tokens
from model.words import clamped, speech_end

DIMS = DIMENSIONS["base"]
TOKENIZER = get_tokenizer(DIMS)
BEGIN = TOKENIZER.timestamp_begin
TEXTS = (" the", " quick.", " brown", " (", "fox", '"', ",", "?", " -", " jumps", "ing", "犬", "が", " 日本", "é", ' "')
PIECES = tuple(tuple(TOKENIZER.encode(text)) for text in TEXTS)


def _result(tokens: tuple[int, ...], lengths: list[int], probabilities: list[float], **fields) -> DecodingResult:
    """A window whose i-th text token lasts `lengths[i]` steps of 20 ms, over and over."""
    text = [token for token in finished_tokens(tokens, BEGIN) if token < TOKENIZER.eot]
    values = {
        "language": "en", "tokens": tokens, "text": TOKENIZER.decode(tokens).strip(), "avg_logprob": -0.3,
        "no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": 1.2,
        "token_times": TokenTimes(_boundaries(len(text), lengths), _cycled(len(text), probabilities)),
    }  # fmt: skip
    return DecodingResult(**{**values, **fields})


def _boundaries(n_tokens: int, lengths: list[int]) -> tuple[float, ...]:
    at, steps = [0], _cycled(n_tokens + 1, lengths)
    for i in range(n_tokens):
        at.append(min(1499, at[-1] + steps[i]))
    return tuple(step / 50 for step in at)


def _cycled(n: int, values: list) -> tuple:
    return tuple(values[i % len(values)] for i in range(n))


def _transcript(seconds: float, **options) -> Transcript:
    return Transcript(DIMS, TOKENIZER, TranscribeOptions(**options), n_samples=int(seconds * 16_000))


def _tokens(*parts: str | float) -> tuple[int, ...]:
    """Texts, and times in seconds, as tokens."""
    pairs = ((BEGIN + round(part * 50),) if isinstance(part, float) else TOKENIZER.encode(part) for part in parts)
    return tuple(token for pair in pairs for token in pair)


def _segments(tokens: tuple[int, ...], boundaries: tuple[float, ...], **options) -> tuple[Segment, ...]:
    """Those of a window whose text tokens are there."""
    transcript = _transcript(30, language="en", word_timestamps=True, **options)
    transcript.next_window()
    result = _result(tokens, [1], [0.9])
    return transcript.feed(replace(result, token_times=replace(result.token_times, boundaries=boundaries)))


def _times(*segments: Segment) -> list[tuple[float, float]]:
    """When each word is said."""
    return [(round(word.start, 2), round(word.end, 2)) for segment in segments for word in segment.words]


def test_words_have_their_marks_and_segments_begin_and_end_with_words() -> None:
    transcript = _transcript(30, language="en", word_timestamps=True)
    transcript.next_window()
    tokens = _tokens(0.0, ' He said: "no", ( and', 2.0, 2.0, " left.", 3.0)
    (first, second) = transcript.feed(_result(tokens, [20], [0.5, 0.7]))
    assert [word.word for word in first.words] == [" He", " said:", ' "no",', " ( and"]
    assert [(word.start, word.end) for word in first.words] == [(0.0, 0.4), (0.4, 0.8), (1.2, 2.4), (2.8, 3.2)]
    assert first.words[0].probability == 0.5
    assert (first.start, first.end) == (0.0, 3.2)
    assert [word.word for word in second.words] == [" left."]
    assert (second.start, second.end) == (3.2, 3.6)  # a mark gives the word before it its text, not its time


def test_a_word_that_goes_on_in_the_next_segment_is_one_of_the_first() -> None:
    transcript = _transcript(30, language="en", word_timestamps=True)
    transcript.next_window()
    segments = transcript.feed(_result(_tokens(0.0, " jump", 1.0, 1.0, "ing", 2.0), [20], [0.5]))
    assert [[word.word for word in segment.words] for segment in segments] == [[" jumping"], []]


@pytest.mark.parametrize(
    ("boundaries", "start"),
    [
        ((0.0, 1.0, 2.0, 3.0, 5.0), 3.0),  # no pause before it
        ((0.0, 1.0, 2.0, 3.0, 8.0), 6.6),  # twice 0.7 s, which counts as the longest median
        ((0.0, 0.4, 0.8, 1.2, 6.0), 5.2),  # twice 0.4 s
        ((0.0, 0.4, 0.4, 0.4, 6.0), 4.6),  # words without length have no part in the median
    ],
)
def test_a_word_that_soaked_up_a_pause_begins_later(boundaries, start) -> None:
    *_, last = _times(*_segments(_tokens(0.0, " one two three", 3.0, 3.0, " four", 9.0), boundaries))
    assert last == (start, boundaries[-1])


@pytest.mark.parametrize(
    ("boundaries", "times"),
    [
        ((0.0, 2.0, 4.0, 4.4, 4.8, 5.2), [(2.4, 3.2), (3.2, 4.0)]),
        ((1.0, 1.7, 3.0, 3.4, 3.8, 4.2), [(1.4, 2.2), (2.2, 3.0)]),  # the first is not long by itself
        ((1.0, 1.7, 2.5, 2.9, 3.3, 3.7), [(1.0, 1.7), (1.7, 2.5)]),  # nor are the two together
        ((0.0, 2.0, 2.4, 2.8, 3.2, 3.6), [(1.2, 2.0), (2.0, 2.4)]),
    ],
)
def test_two_words_may_have_soaked_up_a_pause(boundaries, times) -> None:
    assert _times(*_segments(_tokens(0.0, " one two three four five", 9.0), boundaries))[:2] == times


@pytest.mark.parametrize(("first_window", "start"), [(0, 10.4), (1, 10.0)])
def test_what_a_recording_begins_with_comes_after_a_pause_and_its_parts_do_not(first_window, start) -> None:
    options = TranscribeOptions(language="en", word_timestamps=True)
    transcript = Transcript(
        DIMS, TOKENIZER, options, n_samples=16_000 * 40, clips=[(1000, 4000)], first_window=first_window
    )
    transcript.next_window()
    result = _result(_tokens(0.0, " one two three four five", 9.0), [60, 20, 20, 20, 20], [0.9])
    assert _times(*transcript.feed(result))[0] == (start, 11.2)


@pytest.mark.parametrize(
    ("start", "first_end", "length", "word_start", "segment_start"),
    [
        (0.6, 1.2, 0.4, 0.6, 0.6),
        (0.9, 1.2, 0.4, 0.8, 0.9),  # a word has the median length at least
        (0.52, 0.6, 0.7, 0.0, 0.52),  # and no time before the recording
        (0.5, 1.2, 0.4, 0.0, 0.0),  # not far enough
        (1.2, 1.2, 0.4, 0.0, 0.0),  # nor in the word
    ],
)
def test_the_model_s_start_is_believed_where_a_word_reaches_far_beyond(
    start, first_end, length, word_start, segment_start
) -> None:
    boundaries = (0.0, first_end, first_end + length, first_end + 2 * length, first_end + 3 * length)
    (segment,) = _segments(_tokens(start, " one two three four", 9.0, 9.0), boundaries)
    assert (_times(segment)[0], segment.start) == ((word_start, first_end), segment_start)


@pytest.mark.parametrize(
    ("end", "word_end", "segment_end"),
    [(1.8, 1.8, 1.8), (1.4, 1.6, 1.4), (1.9, 2.4, 2.4), (1.2, 2.4, 2.4)],
)
def test_the_model_s_end_is_believed_where_a_word_reaches_far_beyond(end, word_end, segment_end) -> None:
    (segment,) = _segments(_tokens(0.0, " one two three four", end), (0.0, 0.4, 0.8, 1.2, 2.4))
    assert (_times(segment)[-1], round(segment.end, 2)) == ((1.2, word_end), segment_end)


def test_a_pause_at_the_end_of_a_sentence_is_no_part_of_a_mark_or_word() -> None:
    tokens = _tokens(0.0, " one two. three", 9.0)
    _, _, mark, _ = _times(*_segments(tokens, (0.0, 0.4, 0.8, 3.0, 3.4), append_punctuations=""))
    assert mark == (0.8, 1.6)
    *_, last = _times(*_segments(tokens, (0.0, 0.4, 0.8, 1.2, 4.2)))
    assert last == (3.4, 4.2)
    *_, last = _times(*_segments(_tokens(0.0, " one two three", 9.0), (0.0, 0.4, 0.8, 4.2)))
    assert last == (0.8, 4.2)  # within a sentence a word may be long


@pytest.mark.parametrize("order", [("en", "ja"), ("ja", "en")])
def test_words_are_those_of_the_language_of_their_window(order) -> None:
    said = {"en": " Extraordinarily thankful.", "ja": "今日は天気がいいですね"}
    transcript = _transcript(60, word_timestamps=True)
    words = {}
    for language in order:
        transcript.next_window()
        (segment,) = transcript.feed(_result(_tokens(0.0, said[language], 20.0), [20], [0.9], language=language))
        words[language] = [word.word for word in segment.words]
    assert words["en"] == [" Extraordinarily", " thankful."]
    assert len(words["ja"]) > 3


def test_an_unfinished_window_is_followed_by_one_that_starts_at_the_end_of_its_last_word() -> None:
    transcript = _transcript(60, language="en", word_timestamps=True)
    transcript.next_window()
    transcript.feed(_result(_tokens(0.0, " one two three", 9.0, 9.0, " fo"), [100], [0.9]))
    assert transcript.next_window().seek == 600


def test_words_at_its_very_beginning_do_not_say_where_an_unfinished_window_goes_on() -> None:
    transcript = _transcript(60, language="en", word_timestamps=True)
    transcript.next_window()
    transcript.feed(_result(_tokens(0.0, " one", 9.0, 9.0, " fo"), [0], [0.9]))
    assert transcript.next_window().seek == 900


def test_words_are_found_for_the_threshold_but_shown_only_when_asked_for() -> None:
    transcript = _transcript(30, language="en", hallucination_silence_threshold=2.0)
    transcript.next_window()
    (segment,) = transcript.feed(_result(_tokens(0.0, " one two three", 9.0), [20], [0.9]))
    assert segment.words is None
    assert (segment.start, segment.end) == (0.0, 1.2)


def _invented(seconds: float, end: float) -> tuple[Transcript, tuple[Segment, ...]]:
    """Five words, and after a long silence one that nobody said."""
    transcript = _transcript(seconds, language="en", word_timestamps=True, hallucination_silence_threshold=1.0)
    transcript.next_window()
    tokens = _tokens(0.0, " one two three four five", 3.0, 3.0, " Thanks", 29.2)
    times = TokenTimes((0.0, 0.5, 1.0, 1.5, 2.0, 2.5, end), (*[0.9] * 5, 0.01))
    return transcript, transcript.feed(replace(_result(tokens, [1], [1.0]), token_times=times))


def test_text_invented_between_silences_is_dropped_and_heard_again() -> None:
    transcript, segments = _invented(40, end=22.0)
    assert [segment.text for segment in segments] == [" one two three four five"]
    assert transcript.seek == 2100
    assert transcript.skipped == []
    # It comes again without the silence before it: now a second of it is skipped, and that is said.
    transcript.next_window()
    assert transcript.feed(_result(_tokens(0.0, " Thanks", 10.0), [25], [0.01])) == ()
    assert transcript.seek == 2200
    assert transcript.result().warnings == (Skipped("hallucination", 21.0, 22.0),)
    assert transcript.result().text == " one two three four five"


def test_at_the_end_of_the_recording_what_was_invented_is_the_end() -> None:
    transcript, _ = _invented(29.5, end=29.0)
    assert transcript.next_window() is None
    assert transcript.result().warnings == (Skipped("hallucination", 28.0, 29.5),)


def test_the_silence_before_a_suspect_first_segment_is_not_heard_again() -> None:
    transcript = _transcript(90, language="en", word_timestamps=True, hallucination_silence_threshold=1.0)
    transcript.next_window()
    said = _tokens(0.0, " one two three four", 29.0)
    transcript.feed(_result(said, [50], [0.9]))
    transcript.next_window()
    times = TokenTimes((12.0, 12.04, 12.1), (0.1, 0.1))
    tokens = _tokens(0.0, " one two", 9.0)
    assert transcript.feed(replace(_result(tokens, [1], [1.0], temperature=0.8), token_times=times)) == ()
    assert transcript.skipped == [Skipped("hallucination", 30.0, transcript.seek / 100)]
    assert transcript.next_window().prompt == said  # a window that counts for nothing takes no text away
    assert 4000 < transcript.seek <= 4200


def test_what_is_skipped_ends_with_the_recording() -> None:
    transcript = _transcript(6, language="en", word_timestamps=True, hallucination_silence_threshold=1.0)
    transcript.next_window()
    times = TokenTimes((12.0, 12.04, 12.1), (0.1, 0.1))
    transcript.feed(replace(_result(_tokens(0.0, " one two", 9.0), [1], [1.0]), token_times=times))
    assert transcript.next_window() is None
    assert transcript.result().warnings == (Skipped("hallucination", 0.0, 6.0),)


def test_an_unfinished_text_that_will_not_be_heard_again_is_said() -> None:
    transcript = _transcript(60, language="en", word_timestamps=True, hallucination_silence_threshold=2.0)
    transcript.next_window()
    tokens = _tokens(0.0, " one" * 14, 29.0, 29.0, " seven")
    transcript.feed(_result(tokens, [105], [0.9]))
    assert transcript.seek == 3000
    assert transcript.skipped == [Skipped("hallucination", 29.4, 30.0)]


def test_a_window_always_moves_on() -> None:
    transcript = _transcript(60, language="en", word_timestamps=True, hallucination_silence_threshold=0.0)
    transcript.next_window()
    times = TokenTimes((0.0, 0.0), (0.01,))
    transcript.feed(replace(_result(_tokens(0.0, " one", 0.02), [1], [1.0]), token_times=times))
    assert transcript.seek > 0


def test_speech_ends_with_the_last_word_or_else_with_the_last_segment() -> None:
    blank = Segment(0, 0, 1.0, 2.0, "", (), 0.0, -0.1, 1.0, 0.1, words=())
    assert speech_end([]) is None
    assert speech_end([blank]) == 2.0
    assert speech_end([blank, replace(blank, end=3.0)]) == 3.0
    first, second = (replace(blank, words=(Word(" a", 1.0, end, 0.9),)) for end in (1.5, 1.8))
    assert speech_end([first, second, blank]) == 1.8


def test_no_word_reaches_beyond_a_clamped_segment() -> None:
    words = tuple(Word(" a", *times, 0.9) for times in ((0.1, 0.5), (0.5, 1.5), (1.5, 2.5), (2.5, 2.8)))
    segment = clamped(Segment(0, 0, 0.1, 2.8, " a a a a", (), 0.0, -0.1, 1.0, 0.1, words=words), 1.0, 2.0)
    assert (segment.start, segment.end) == (1.0, 2.0)
    assert [(word.start, word.end) for word in segment.words] == [(1.0, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 2.0)]
    assert clamped(replace(segment, words=None), 1.0, 2.0).words is None


# --- the reference's own loop over the same answers ----------------------------------------------------------------

MOST_WINDOWS = 25
texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(lambda parts: sum(parts, ()))
times = st.integers(0, 1500).map(lambda step: (BEGIN + step,))
pairs = st.integers(0, 1500).map(lambda step: (BEGIN + step, BEGIN + step))
answers = st.lists(st.one_of(texts, times, pairs), min_size=1, max_size=7).map(
    lambda parts: (BEGIN, *PIECES[0], *sum(parts, ()))
)
lengths = st.lists(st.sampled_from([1, 3, 10, 20, 25, 40, 120, 300]), min_size=1, max_size=7)
beliefs = st.lists(st.sampled_from([0.01, 0.12, 0.5, 0.9]), min_size=1, max_size=5)
scripts = st.lists(st.tuples(answers, lengths, beliefs), min_size=1, max_size=5)


class TooManyWindows(Exception):
    pass


@pytest.mark.oracle
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    script=scripts,
    seconds=st.sampled_from([1.0, 29.99, 30.0, 75.5]),
    language=st.sampled_from(["en", "ja"]),
    threshold=st.sampled_from([None, 0.5, 2.0]),
    clips=st.sampled_from([(), (2.0,), (1.0, 20.0, 25.0, 40.0)]),
)
def test_words_segments_and_seeks_equal_the_reference(script, seconds, language, threshold, clips) -> None:
    clips = tuple(t for t in clips if t < seconds)
    options = {"language": language, "hallucination_silence_threshold": threshold, "word_timestamps": True}
    theirs = _reference(script, seconds, clips, options)
    transcript = _transcript(seconds, clip_timestamps=clips, **options)
    for number in itertools.count():
        if transcript.next_window() is None:
            break
        tokens, steps, probabilities = script[number % len(script)]
        transcript.feed(_result(tokens, steps, probabilities, language=language))
    ours = transcript.result()
    assert ours.text == theirs["text"]
    wanted = [segment for segment in theirs["segments"] if segment["text"]]
    assert [(s.seek, s.start, s.end, s.text) for s in ours.segments] == [
        (s["seek"], s["start"], s["end"], s["text"]) for s in wanted
    ]
    for segment, want in zip(ours.segments, wanted, strict=True):
        assert [(w.word, w.start, w.end) for w in segment.words] == [
            (w["word"], w["start"], w["end"]) for w in want["words"]
        ]
        assert [w.probability for w in segment.words] == pytest.approx([w["probability"] for w in want["words"]])


def _reference(script, seconds: float, clips: tuple[float, ...], options: dict[str, Any]) -> dict[str, Any]:
    """What `whisper.transcribe` makes of the script, with alignments from it in place of its own."""
    import whisper
    from whisper import timing, tokenizer
    from whisper.decoding import DecodingResult as TheirResult

    asked: list[int] = []
    theirs = tokenizer.get_tokenizer(True, language=options["language"])

    def decode(mel, _):
        if len(asked) == MOST_WINDOWS:
            raise TooManyWindows
        tokens = script[len(asked) % len(script)][0]
        asked.append(len(asked))
        text = TOKENIZER.decode(tokens).strip()
        return TheirResult(
            audio_features=None, language=options["language"], tokens=list(tokens), text=text, avg_logprob=-0.3,
            no_speech_prob=0.1, temperature=0.0, compression_ratio=compression_ratio(text),
        )  # fmt: skip

    def find_alignment(model, _, text_tokens, mel, num_frames, **kwargs):
        _, steps, beliefs = script[asked[-1] % len(script)]
        at, probabilities = _boundaries(len(text_tokens), steps), _cycled(len(text_tokens), beliefs)
        words, word_tokens = theirs.split_to_word_tokens([*text_tokens, theirs.eot])
        found, first = [], 0
        for word, tokens in zip(words[:-1], word_tokens[:-1], strict=True):
            last = first + len(tokens)
            mean = sum(probabilities[first:last]) / len(tokens)
            found.append(timing.WordTiming(word, tokens, at[first], at[last], mean))
            first = last
        return found

    fake = SimpleNamespace(dims=DIMS, device=torch.device("cpu"), is_multilingual=True, num_languages=99, decode=decode)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "find_alignment", find_alignment)
        try:
            return whisper.transcribe(
                fake, torch.zeros(int(seconds * 16_000)), fp16=False, temperature=(0.0,),
                clip_timestamps=list(clips) or "0", **options,
            )  # fmt: skip
        except TooManyWindows:
            assume(False)
            raise
