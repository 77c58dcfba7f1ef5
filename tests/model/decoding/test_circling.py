"""Whether a sentence was heard as often as it is written: by where the decoder looks, in real speech."""

import numpy as np
import pytest
import torch

from model.audio import decode_audio
from model.decoding.batch import DecodingBatch
from model.decoding.row import Decoding
from model.dims import N_FRAMES
from model.mel import MelSpan
from model.options import TranscribeOptions
from model.window import DecodingResult, Window
from tests.conftest import AUDIO

PAUSE = np.zeros(16_000, np.float32)


@pytest.fixture(scope="module")
def sentence(base) -> tuple[np.ndarray, tuple[int, ...]]:
    """Eight seconds of speech, and the tokens of what the model hears in them."""
    heard = base.transcribe(AUDIO / "pt-corrida.ogg", language="pt", temperature=(0.0,))
    tokens = tuple(token for segment in heard.segments for token in segment.tokens if token < base.tokenizer.eot)
    return decode_audio(AUDIO / "pt-corrida.ogg").samples, tokens


def _told(base, pieces: list[np.ndarray], tokens: tuple[int, ...], **fields) -> DecodingResult:
    """What becomes of a text that says a sentence twice in this audio."""
    samples = torch.from_numpy(np.concatenate(pieces))
    batch = DecodingBatch(base.model, base.tokenizer, max_windows=1)
    mel = base.log_mel.windows([MelSpan(samples, 0, N_FRAMES, base.log_mel.maximum(samples))])
    (slot,) = batch.encode(mel)
    window = Window(0, 0, len(samples) // 160, "pt")
    begin = base.tokenizer.timestamp_begin
    said = (begin, *tokens, begin + 200, begin + 250, *tokens, begin + 450)
    text = base.tokenizer.decode(said)
    values = {"avg_logprob": -0.2, "compression_ratio": 2.5, "logprobs": (-0.2,) * len(said)} | fields
    result = DecodingResult("pt", said, text, no_speech_prob=0.0, temperature=0.0, **values)
    return batch._told_apart(Decoding(slot, window, TranscribeOptions(language="pt"), "pt", ()), result)


@pytest.mark.weights
def test_a_sentence_that_is_there_twice_was_heard_twice_and_one_that_is_there_once_goes_round(base, sentence) -> None:
    samples, tokens = sentence
    assert len(tokens) > 7
    assert not _told(base, [samples, PAUSE, samples], tokens).circling
    assert _told(base, [*[PAUSE] * 9, samples], tokens).circling


@pytest.mark.weights
def test_nothing_is_asked_of_a_text_that_nobody_doubts_or_that_is_a_loop_in_any_case(base, sentence) -> None:
    samples, tokens = sentence
    assert not _told(base, [*[PAUSE] * 9, samples], tokens, compression_ratio=2.0).circling
    assert not _told(base, [*[PAUSE] * 9, samples], tokens, logprobs=(-0.9,) * (2 * len(tokens) + 4)).circling


@pytest.mark.weights
def test_a_sentence_that_is_said_three_times_is_written_three_times(base) -> None:
    samples = np.concatenate([decode_audio(AUDIO / "nl-teleurstelling.webm").samples, PAUSE] * 3)
    unguarded = base.transcribe(samples, language="nl", guards=False)
    assert [segment.text for segment in unguarded.segments] == [" Maar er stond hen een teleurstelling te wachten."]
    guarded = base.transcribe(samples, language="nl")
    assert [segment.text for segment in guarded.segments] == [segment.text for segment in unguarded.segments] * 3
    assert [segment.start for segment in guarded.segments] == pytest.approx([0.0, 4.8, 9.5], abs=0.7)
