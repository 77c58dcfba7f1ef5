"""Tokens by what the audio adds: the scores, and the whole way through the batch beside a slow and obvious one."""

import pytest
import torch

from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.contrast import contrast
from model.decoding.inference import make_inference
from model.decoding.row import Decoding, Row
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.window import DecodingResult, Window, initial_tokens
from tests import tiny

TINY = tiny.transcriber()
MEL = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(7))
OPTIONS = TranscribeOptions(language="en", sample_len=9, no_speech_threshold=None)
INF = torch.inf


@pytest.mark.parametrize(
    ("heard", "silent", "wanted"),
    [
        ([2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [3.0, 1.5, 0.0]),
        ([2.0, 1.0, 0.0], [3.0, 0.0, 0.0], [1.5, 1.5, 0.0]),  # what silence makes probable loses
        ([2.0, -0.4, -INF], [3.0, -9.0, 0.0], [1.5, -INF, -INF]),  # less than a tenth as probable: implausible
        ([2.0, -INF], [3.0, -INF], [1.5, -INF]),  # masked in both: no number comes of it
    ],
)
def test_scores(heard: list[float], silent: list[float], wanted: list[float]) -> None:
    assert contrast(torch.tensor(heard), torch.tensor(silent)).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("prompt", [(), (400, 500, 600)])
@torch.inference_mode()
def test_the_first_witness_is_the_greedy_text_of_the_scores(prompt: tuple[int, ...]) -> None:
    window = Window(0, 0, 3000, "en", prompt)
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=2)
    results: list[DecodingResult] = []

    def note(decoding: Decoding, result: DecodingResult) -> None:
        if decoding.slot == slots[0] and decoding.ladder.is_witness:
            results.append(result)

    batch.on_attempt = note
    slots = batch.encode(MEL)
    for slot in slots:
        batch.start(slot, window, OPTIONS)
    list(run_to_end(batch))
    tokens, logprobs = _slowly(window)
    assert results[0].tokens == tokens
    assert results[0].logprobs == pytest.approx(logprobs, abs=1e-4)
    assert results[0].temperature == 0.0


def _slowly(window: Window) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Token by token, the whole text read anew for each, with the window and with a window of silence."""
    inference = make_inference(TINY.model, n_windows=2, n_rows=1)
    silence = torch.full((1, 80, 3000), -1.5)
    for slot, mel in enumerate((MEL[:1], silence)):
        inference.fill_windows(TINY.model.encode(mel), [slot])
    rules = Rules(TINY.dims, TINY.tokenizer, TINY.model.device)
    grammar = rules.grammar(OPTIONS)
    prompt = initial_tokens(TINY.tokenizer, window, "en", OPTIONS)
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < 9:
        text = [*prompt, *tokens]
        heard, silent = (inference.prefill(text, row=0, window=slot, keep=[len(text) - 1]) for slot in (0, 1))
        rules.suppress(heard, [rules.suppressed(OPTIONS)])
        heard[:, TINY.tokenizer.eot + 1 : TINY.tokenizer.timestamp_begin] = -INF
        if not tokens:
            rules.suppress_blank(heard[0])
        rules.constrain(heard, [grammar.limits()])
        token = int(contrast(heard[0], silent[0]).argmax())
        if token == TINY.tokenizer.eot:
            break
        tokens.append(token)
        logprobs.append(float(heard[0].log_softmax(-1)[token]))
        grammar.push(token)
    return tuple(tokens), tuple(logprobs)


def test_a_witness_says_no_names_of_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    names = range(TINY.tokenizer.eot + 1, TINY.tokenizer.timestamp_begin)
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1)
    heard: dict[bool, list[DecodingResult]] = {False: [], True: []}
    step = batch._inference.step

    def loud(tokens, *, lengths, windows):
        logits = step(tokens, lengths=lengths, windows=windows)
        logits[0, names] += 50.0  # what the window makes of them, and silence does not
        return logits

    batch.on_attempt = lambda decoding, result: heard[decoding.ladder.is_witness].append(result)
    monkeypatch.setattr(batch._inference, "step", loud)
    (slot,) = batch.encode(MEL[:1])
    batch.start(
        slot, Window(0, 0, 3000, "en"), TranscribeOptions(language="en", sample_len=4, no_speech_threshold=None)
    )
    list(run_to_end(batch))
    assert set(heard[False][0].tokens) & set(names)
    assert len(heard[True]) > 1
    for witness in heard[True]:
        assert not set(witness.tokens) & set(names)


def test_a_window_without_doubt_has_no_shadow() -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1)
    (slot,) = batch.encode(MEL[:1])
    batch.start(slot, Window(0, 0, 3000, "en"), TranscribeOptions(language="en", sample_len=4, logprob_threshold=None))
    list(run_to_end(batch))
    assert set(batch.steps) == {1}
    assert batch._shadows is not None
    assert not batch._shadows._is_filled


def test_a_window_keeps_its_shadow_through_all_its_witnesses() -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1)
    shadows: list[Row | None] = []
    batch.on_attempt = lambda decoding, _: shadows.append(decoding.shadow)
    (slot,) = batch.encode(MEL[:1])
    batch.start(slot, Window(0, 0, 3000, "en"), OPTIONS)
    list(run_to_end(batch))
    first, *others = [shadow for shadow in shadows if shadow is not None]
    assert others
    assert all(shadow is first for shadow in others)


def test_a_window_that_is_dropped_takes_its_shadow_along() -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=2)
    first, second = batch.encode(MEL)
    for slot in (first, second):
        batch.start(slot, Window(0, 0, 3000, "en"), OPTIONS)
    while not (batch._decodings[first].shadow and batch._decodings[second].shadow):
        assert not batch.step()
    batch.drop(first)
    assert batch.active_rows == 2
    ((slot, result),) = run_to_end(batch)
    assert (slot, result.language, batch.active_rows) == (second, "en", 0)
