import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from model.dims import DIMENSIONS
from model.options import TranscribeOptions
from model.tokenizer import get_tokenizer
from model.window import (
    DecodingResult,
    Window,
    compression_ratio,
    ends_with_time,
    fallback_reason,
    finished_tokens,
    initial_tokens,
    is_silent,
    segment_ends,
)

DIMS = DIMENSIONS["base"]
TOKENIZER = get_tokenizer(DIMS)
BEGIN = TOKENIZER.timestamp_begin
TOKENS = (BEGIN, *TOKENIZER.encode(" Hello."), BEGIN + 25)


def _result(**fields) -> DecodingResult:
    values = {"avg_logprob": -0.3, "no_speech_prob": 0.1, "compression_ratio": 1.2} | fields
    return DecodingResult(language="en", tokens=TOKENS, text="Hello.", temperature=0.0, **values)


@pytest.mark.oracle
@pytest.mark.parametrize("silence_threshold", [None, 0.6])
@pytest.mark.parametrize("logprob_threshold", [None, -1.0])
@pytest.mark.parametrize("ratio_threshold", [None, 2.4])
def test_what_fails_and_what_is_silent_at_and_beside_each_threshold_is_the_reference_s(
    silence_threshold, logprob_threshold, ratio_threshold
) -> None:
    thresholds = {
        "no_speech_threshold": silence_threshold,
        "logprob_threshold": logprob_threshold,
        "compression_ratio_threshold": ratio_threshold,
    }
    options = TranscribeOptions(**thresholds)
    for logprob, silence, ratio in itertools.product((-1.01, -1.0, -0.99), (0.6, 0.61), (2.4, 2.41)):
        values = {"avg_logprob": logprob, "no_speech_prob": silence, "compression_ratio": ratio}
        attempts, texts = _reference(values, thresholds)
        result = _result(**values)
        assert (fallback_reason(result, options) is None) == (attempts == 1)
        assert is_silent(result, options) == (texts == [])


def _reference(values: dict[str, float], thresholds: dict[str, float | None]) -> tuple[int, list[str]]:
    """How often `whisper.transcribe` asks for a window that always gives these values, and its texts."""
    import whisper
    from whisper.decoding import DecodingResult as TheirResult

    asked = []

    def decode(mel, options):
        asked.append(options.temperature)
        return TheirResult(audio_features=None, language="en", tokens=list(TOKENS), temperature=0.0, **values)

    fake = SimpleNamespace(dims=DIMS, device=torch.device("cpu"), is_multilingual=True, num_languages=99, decode=decode)
    audio = torch.zeros(16_000)
    said = whisper.transcribe(fake, audio, language="en", fp16=False, temperature=(0.0, 0.2), **thresholds)
    return len(asked), [segment["text"] for segment in said["segments"]]


def test_a_text_that_witnesses_were_heard_about_is_no_silence() -> None:
    silent = _result(avg_logprob=-1.5, no_speech_prob=0.9)
    assert is_silent(silent, TranscribeOptions())
    assert not is_silent(replace(silent, witnesses=1), TranscribeOptions())


@pytest.mark.parametrize(
    ("kinds", "ends", "ends_with_one"),
    [
        ("", [], False),
        ("t", [], False),
        ("twt", [], True),
        ("twtt", [3], False),
        ("twttw", [3], False),
        ("ttwt", [1, 4], True),
        ("twttwt", [3, 6], True),
        ("twttwtt", [3, 6], False),
    ],
)
def test_pairs_of_timestamps_and_a_single_one_at_the_end_cut_a_window(kinds, ends, ends_with_one) -> None:
    tokens = [BEGIN if kind == "t" else 400 for kind in kinds]
    assert segment_ends(tokens, BEGIN) == ends
    assert ends_with_time(tokens, BEGIN) == ends_with_one
    assert finished_tokens(tokens, BEGIN) == tokens[: max(ends, default=None)]


@pytest.mark.oracle
@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("untimed", [False, True])
def test_a_window_opens_with_the_end_of_its_prompt_and_with_what_is_asked(task, untimed) -> None:
    from whisper.tokenizer import get_tokenizer as reference

    theirs = reference(True, num_languages=99, language="de", task=task)
    opening = theirs.sot_sequence_including_notimestamps if untimed else theirs.sot_sequence
    options = TranscribeOptions(task=task, without_timestamps=untimed)
    window = Window(0, 0, 3000, None)
    assert initial_tokens(TOKENIZER, window, "de", options) == opening
    prompt = tuple(range(300))
    wanted = (theirs.sot_prev, *prompt[-223:], *opening)
    assert initial_tokens(TOKENIZER, replace(window, prompt=prompt), "de", options) == wanted


@pytest.mark.oracle
@pytest.mark.parametrize("text", ["", "Hello.", " na" * 90, "犬が" * 9])
def test_the_compression_ratio_is_the_reference_s(text) -> None:
    from whisper.utils import compression_ratio as theirs

    assert compression_ratio(text) == theirs(text)
