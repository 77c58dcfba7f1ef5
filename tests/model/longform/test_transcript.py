from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.longform.transcript import Transcript
from model.options import TranscribeOptions
from model.segments import Skipped
from model.tokenizer import get_tokenizer
from model.window import DecodingResult, compression_ratio, segment_ends, spoken_language

DIMS = DIMENSIONS["base"]
TOKENIZER = get_tokenizer(DIMS)
BEGIN = TOKENIZER.timestamp_begin
WORDS = tuple(TOKENIZER.encode(" the quick brown fox jumps over the lazy dog"))


def _result(tokens: tuple[int, ...], **fields) -> DecodingResult:
    values = {
        "language": "en", "tokens": tokens, "text": TOKENIZER.decode(tokens).strip(), "avg_logprob": -0.3,
        "no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": 1.2,
    }  # fmt: skip
    return DecodingResult(**{**values, **fields})


def _transcript(seconds: float, **options) -> Transcript:
    return Transcript(DIMS, TOKENIZER, TranscribeOptions(**options), n_samples=int(seconds * 16_000))


def test_pairs_of_timestamps_cut_segments_and_the_rest_is_heard_again() -> None:
    transcript = _transcript(40)
    window = transcript.next_window()
    assert (window.index, window.seek, window.n_frames, window.prompt) == (0, 0, 3000, ())
    assert transcript.next_window() is window
    tokens = (BEGIN, *WORDS[:3], BEGIN + 100, BEGIN + 100, *WORDS[3:], BEGIN + 700, BEGIN + 700, WORDS[0])
    segments = transcript.feed(_result(tokens))
    assert [(s.id, s.start, s.end, s.text) for s in segments] == [
        (0, 0.0, 2.0, " the quick brown"),
        (1, 2.0, 14.0, " fox jumps over the lazy dog"),
    ]
    window = transcript.next_window()
    assert (window.index, window.seek, window.n_frames) == (1, 1400, 2600)
    assert window.prompt == tokens[:-2]


@pytest.mark.parametrize(
    ("tokens", "end"),
    [
        (WORDS, 12.5),
        ((BEGIN, *WORDS), 12.5),
        ((BEGIN, *WORDS, BEGIN + 100), 2.0),
        ((BEGIN + 50, *WORDS), 1.0),  # as in the reference
    ],
)
def test_without_a_pair_of_timestamps_a_window_is_one_segment(tokens: tuple[int, ...], end: float) -> None:
    transcript = _transcript(12.5)
    transcript.next_window()
    (segment,) = transcript.feed(_result(tokens))
    assert (segment.start, segment.end, segment.tokens) == (0.0, end, tokens)
    assert transcript.next_window() is None


def test_a_silent_window_is_skipped_and_a_credible_text_is_not() -> None:
    transcript = _transcript(50)
    transcript.next_window()
    assert transcript.feed(_result((BEGIN, *WORDS, BEGIN + 50), no_speech_prob=0.9, avg_logprob=-1.5)) == ()
    assert (transcript.seek, transcript.skipped) == (3000, [Skipped("no_speech", 0.0, 30.0)])
    transcript.next_window()
    assert transcript.feed(_result((BEGIN, *WORDS, BEGIN + 50), no_speech_prob=0.9, avg_logprob=-0.5))
    assert transcript.next_window() is None
    assert transcript.result().text == " the quick brown fox jumps over the lazy dog"
    assert transcript.result().warnings == (Skipped("no_speech", 0.0, 30.0),)


@pytest.mark.parametrize(("temperature", "kept"), [(0.5, True), (0.51, False)])
def test_a_high_temperature_resets_the_prompt(temperature: float, kept: bool) -> None:
    transcript = _transcript(90, initial_prompt="Foxes.")
    written, said = tuple(TOKENIZER.encode(" Foxes.")), (BEGIN, *WORDS, BEGIN + 50)
    assert transcript.next_window().prompt == written
    transcript.feed(_result(said, temperature=temperature))
    assert transcript.next_window().prompt == ((*written, *said) if kept else ())
    assert "Foxes" not in transcript.result().text


def test_a_blank_is_no_text_and_no_prompt() -> None:
    transcript = _transcript(60)
    transcript.next_window()
    assert transcript.feed(_result((BEGIN, *TOKENIZER.encode("  "), BEGIN + 50))) == ()
    assert transcript.next_window().prompt == ()


def test_a_window_that_would_go_on_where_it_begins_is_not_heard_for_ever() -> None:
    transcript = _transcript(60)
    transcript.next_window()
    transcript.feed(_result((BEGIN, *WORDS, BEGIN, BEGIN, *WORDS)))
    assert transcript.next_window().seek == 1


def test_clips_are_all_that_is_heard() -> None:
    transcript = _transcript(100, clip_timestamps=(5.0, 10.0, 60.0))
    seen = []
    while window := transcript.next_window():
        seen.append((window.seek, window.n_frames))
        transcript.feed(_result((BEGIN, *WORDS, BEGIN + 50)))
    assert seen == [(500, 500), (6000, 3000), (9000, 1000)]


def test_the_detected_language_is_what_later_windows_follow() -> None:
    transcript = _transcript(60)
    assert (transcript.next_window().language, transcript.next_window().follows) == (None, None)
    transcript.feed(_result((BEGIN, *WORDS, BEGIN + 50), language="de", language_probs={"de": 0.9, "en": 0.1}))
    assert (transcript.next_window().language, transcript.next_window().follows) == (None, "de")
    assert transcript.result().language_probability == 0.9


def test_a_recording_that_changes_language_says_so_and_starts_its_prompt_again() -> None:
    transcript = _transcript(120)
    said = (BEGIN, *WORDS, BEGIN + 1500)
    for language in ("de", "fr", "fr"):
        assert transcript.next_window() is not None
        transcript.feed(_result(said, language=language, language_probs={language: 0.95}))
    assert transcript.next_window().prompt == said + said
    assert transcript.next_window().follows == "fr"
    result = transcript.result()
    assert (result.language, result.language_probability) == ("de", 0.95)
    assert [segment.language for segment in result.segments] == ["de", "fr", "fr"]


def test_hearing_the_first_language_is_no_change_and_keeps_the_prompt() -> None:
    transcript = _transcript(120, initial_prompt="Foxes.")
    transcript.next_window()
    said = (BEGIN, *WORDS, BEGIN + 1500)
    transcript.feed(_result(said, language="de", language_probs={"de": 0.95}))
    assert transcript.next_window().prompt == (*TOKENIZER.encode(" Foxes."), *said)


def test_a_silent_window_changes_no_language() -> None:
    transcript = _transcript(120)
    transcript.next_window()
    transcript.feed(_result((BEGIN, *WORDS, BEGIN + 1500), language="de", language_probs={"de": 0.95}))
    transcript.next_window()
    transcript.feed(_result((), language="nn", language_probs={"nn": 0.99}, no_speech_prob=0.9, avg_logprob=-2.0))
    assert transcript.next_window().follows == "de"


@pytest.mark.parametrize(
    ("probabilities", "follows", "spoken"),
    [
        ({"en": 0.4, "de": 0.3}, None, "en"),
        ({"en": 0.89, "de": 0.1}, "de", "de"),
        ({"en": 0.9, "de": 0.01}, "de", "en"),
        ({}, None, "en"),
        ({}, "en", "en"),
    ],
)
def test_only_a_clear_change_of_language_counts(probabilities, follows, spoken) -> None:
    assert spoken_language(probabilities, follows) == spoken


def test_feed_before_next_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a window"):
        _transcript(3).feed(_result(()))


def test_a_recording_of_one_sample_has_one_window() -> None:
    transcript = Transcript(DIMS, TOKENIZER, TranscribeOptions(), n_samples=1)
    assert transcript.next_window().n_frames == 1
    transcript.feed(_result(()))
    assert transcript.next_window() is None


def test_hotwords_and_a_carried_prompt_stay_in_front_and_leave_room_for_the_text_before() -> None:
    transcript = _transcript(200, initial_prompt="Foxes.", hotwords="Reynard <|en|>", carry_initial_prompt=True)
    fixed = tuple(TOKENIZER.encode(" Reynard <|en|>") + TOKENIZER.encode(" Foxes."))
    assert all(token < TOKENIZER.eot for token in fixed)
    assert transcript.next_window().prompt == fixed
    said = (BEGIN, *WORDS * 40, BEGIN + 1500)
    transcript.feed(_result(said))
    transcript.next_window()
    transcript.feed(_result(said))
    prompt = transcript.next_window().prompt
    assert len(prompt) == 223
    assert prompt[: len(fixed)] == fixed
    assert prompt[len(fixed) :] == (said + said)[-(223 - len(fixed)) :]
    assert "Reynard" not in transcript.result().text


@pytest.mark.parametrize(("guards", "seconds"), [(True, 30.99), (True, 31.0), (False, 30.99)])
def test_less_than_a_second_has_the_written_prompts_and_no_text_before_it(guards, seconds) -> None:
    written = {"initial_prompt": "Foxes.", "hotwords": "Reynard"}
    short = _transcript(0.5, **written).next_window().prompt
    transcript = _transcript(seconds, guards=guards, **written)
    assert transcript.next_window().prompt == short
    transcript.feed(_result((BEGIN, *WORDS, BEGIN + 1500)))
    text = () if guards and seconds < 31 else (*TOKENIZER.encode(" Foxes."), BEGIN, *WORDS, BEGIN + 1500)
    assert transcript.next_window().prompt == (*TOKENIZER.encode(" Reynard"), *text)


@pytest.mark.parametrize("hotwords", [None, "Reynard", "alpha beta " * 200])
def test_a_long_initial_prompt_keeps_its_end_whether_it_is_carried_or_not(hotwords) -> None:
    written = {"initial_prompt": "alpha beta " * 200 + "Foxes.", "hotwords": hotwords}
    first = _transcript(90, **written).next_window().prompt
    transcript = _transcript(90, carry_initial_prompt=True, **written)
    assert len(first) == 223
    for _ in range(2):
        assert transcript.next_window().prompt == first
        transcript.feed(_result((BEGIN, *WORDS, BEGIN + 1500)))


def test_hotwords_longer_than_the_prompt_are_cut_and_leave_nothing_else() -> None:
    transcript = _transcript(90, hotwords="alpha beta " * 200)
    first = transcript.next_window().prompt
    transcript.feed(_result((BEGIN, *WORDS, BEGIN + 1500)))
    assert len(first) == 223
    assert transcript.next_window().prompt == first


# --- the reference's own loop over the same answers ----------------------------------------------------------------

pieces = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(tuple),
    st.integers(0, 1500).map(lambda step: (BEGIN + step,)),
    st.integers(0, 1500).map(lambda step: (BEGIN + step, BEGIN + step)),
)
# An answer that ends where it starts would make the reference loop for ever; the grammar forbids it.
answers = st.lists(pieces, min_size=1, max_size=7).map(lambda parts: (BEGIN, *WORDS[:1], *sum(parts, ())))
results = st.builds(
    lambda tokens, logprob, silence, temperature: (tokens, logprob, silence, temperature),
    answers,
    st.sampled_from([-0.2, -0.9, -1.7]),
    st.sampled_from([0.1, 0.7]),
    st.sampled_from([0.0, 0.4, 0.8]),
)


def _advances(tokens: tuple[int, ...]) -> bool:
    """Whether the reference moves on: both the last time and the end of the last segment lie ahead."""
    times = [token for token in tokens if token >= BEGIN]
    ends = [tokens[end - 1] for end in segment_ends(tokens, BEGIN)]
    return min(times[-1:] + ends[-1:]) > BEGIN + 5


@pytest.mark.oracle
@settings(max_examples=25, deadline=None)
@given(
    script=st.lists(results.filter(lambda r: _advances(r[0])), min_size=1, max_size=6),
    seconds=st.sampled_from([1.0, 29.99, 30.0, 61.3]),
    prompt=st.sampled_from([None, "Foxes and dogs."]),
    conditioned=st.booleans(),
    carried=st.booleans(),
    clips=st.sampled_from([(), (2.0,), (1.0, 20.0, 25.0, 40.0)]),
)
def test_segments_prompts_and_seeks_equal_the_reference(script, seconds, prompt, conditioned, carried, clips) -> None:
    import whisper
    from whisper.decoding import DecodingResult as TheirResult

    clips = tuple(t for t in clips if t < seconds)
    asked: list[tuple[int, ...]] = []

    def decode(mel, options):
        tokens, logprob, silence, temperature = script[len(asked) % len(script)]
        asked.append(tuple(options.prompt))
        text = TOKENIZER.decode(tokens).strip()
        return TheirResult(
            audio_features=None, language="en", tokens=list(tokens), text=text, avg_logprob=logprob,
            no_speech_prob=silence, temperature=temperature, compression_ratio=compression_ratio(text),
        )  # fmt: skip

    fake = SimpleNamespace(dims=DIMS, device=torch.device("cpu"), is_multilingual=True, num_languages=99, decode=decode)
    theirs = whisper.transcribe(
        fake, torch.zeros(int(seconds * 16_000)), language="en", fp16=False, temperature=(0.0,),
        initial_prompt=prompt, condition_on_previous_text=conditioned, carry_initial_prompt=carried,
        clip_timestamps=list(clips) or "0",
    )  # fmt: skip

    transcript = _transcript(
        seconds, language="en", initial_prompt=prompt, condition_on_previous_text=conditioned,
        carry_initial_prompt=carried, clip_timestamps=clips, guards=False,
    )  # fmt: skip
    prompts = []
    while window := transcript.next_window():
        tokens, logprob, silence, temperature = script[len(prompts) % len(script)]
        prompts.append(window.prompt)
        ratio = compression_ratio(TOKENIZER.decode(tokens).strip())
        transcript.feed(
            _result(
                tokens, avg_logprob=logprob, no_speech_prob=silence, temperature=temperature, compression_ratio=ratio
            )
        )
    ours = transcript.result()
    assert prompts == asked
    assert ours.text == theirs["text"]
    wanted = [s for s in theirs["segments"] if s["text"]]
    assert [(s.seek, s.start, s.end, s.text, list(s.tokens)) for s in ours.segments] == [
        (s["seek"], s["start"], s["end"], s["text"], s["tokens"]) for s in wanted
    ]
