"""Tokens chosen in C: the texts that the host chooses from the same logits, whoever else is in the batch."""

from dataclasses import replace

import pytest
import torch

from model.decoding import batch as decode
from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.choice import Choice, HostChoice
from model.decoding.inference import Inference
from model.decoding.native_choice import NativeChoice
from model.native.library import load_library
from model.native.quantize import quantise
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.tokenizer import Tokenizer
from model.window import DecodingResult, Window
from tests import tiny

OPTIONS = [
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=14),
    TranscribeOptions(language="de", temperature=(0.0,), sample_len=6, without_timestamps=True),
    TranscribeOptions(language="fr", task="translate", temperature=(0.7,), sample_len=12, seed=3),
    TranscribeOptions(language="es", temperature=(0.0, 0.4), sample_len=7, suppress_tokens=()),
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=8, beam_size=3),
    TranscribeOptions(language="it", temperature=(0.0, 0.6), sample_len=9, beam_size=2, patience=2.0),
]
MEL = torch.randn(len(OPTIONS), 80, 3000, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def int8() -> Whisper:
    if load_library() is None:
        pytest.skip("the decoder was not compiled (deploy/native.sh)")
    whisper = tiny.transcriber().model
    quantise(whisper)
    return whisper


def _decode(model: Whisper) -> dict[int, DecodingResult]:
    """All windows in one batch."""
    batch = DecodingBatch(model, tiny.transcriber().tokenizer, max_windows=len(OPTIONS), max_rows=10)
    slots = {}
    for i, options in enumerate(OPTIONS):
        (slot,) = batch.encode(MEL[i : i + 1])
        slots[slot] = i
        batch.start(slot, Window(i, 0, 3000, options.language), options)
    results = [*run_to_end(batch), *batch.step()]
    return {slots[slot]: result for slot, result in results}


def test_the_host_chooses_the_same(int8: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_the_host(model: Whisper, inference: Inference, rules: Rules, tokenizer: Tokenizer, *, n_rows: int) -> Choice:
        return HostChoice(inference, rules, model.device)

    ours = _decode(int8)
    monkeypatch.setattr(decode, "make_choice", on_the_host)
    wanted = _decode(int8)
    assert len(ours) == len(OPTIONS)
    for i, result in ours.items():
        assert replace(result, avg_logprob=0.0) == replace(wanted[i], avg_logprob=0.0)
        assert result.avg_logprob == pytest.approx(wanted[i].avg_logprob, abs=1e-4)


def test_it_is_what_int8_uses(int8: Whisper) -> None:
    batch = DecodingBatch(int8, tiny.transcriber().tokenizer, max_windows=1)
    assert isinstance(batch._choice, NativeChoice)
