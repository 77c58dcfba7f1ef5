import base64
import gzip
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding.alignment import Aligner, attention_map, first_frames, median_filter
from model.decoding.batch import DecodingBatch, run_to_end
from model.dims import DIMENSIONS
from model.network.alignment_heads import ALIGNMENT_HEADS, alignment_heads
from model.options import TranscribeOptions
from model.window import DecodingResult, Window
from tests import tiny

TINY = tiny.transcriber()
MEL = torch.randn(4, 80, 3000, generator=torch.Generator().manual_seed(7))


def test_every_published_size_has_its_heads_and_others_their_upper_half() -> None:
    assert ALIGNMENT_HEADS.keys() == DIMENSIONS.keys()
    for name, dims in DIMENSIONS.items():
        heads = alignment_heads(dims, name)
        assert list(heads) == sorted(set(heads))
        assert all(layer < dims.n_text_layer and head < dims.n_text_head for layer, head in heads)
    assert alignment_heads(DIMENSIONS["large-v1"], "large-v1") != alignment_heads(DIMENSIONS["large-v2"], "large-v2")
    assert alignment_heads(DIMENSIONS["base"], "my-own-base") == ALIGNMENT_HEADS["base"]
    assert alignment_heads(tiny.DIMS) == ((1, 0), (1, 1))


@pytest.mark.oracle
def test_the_heads_are_the_reference_s() -> None:
    import whisper

    for name, dims in DIMENSIONS.items():
        dump = gzip.decompress(base64.b85decode(whisper._ALIGNMENT_HEADS[name]))
        mask = np.frombuffer(dump, dtype=bool).reshape(dims.n_text_layer, dims.n_text_head)
        assert ALIGNMENT_HEADS[name] == tuple((int(layer), int(head)) for layer, head in np.argwhere(mask))


def test_the_exchanges_find_the_median_of_any_seven() -> None:
    # By the 0-1 principle, a network that is right for zeros and ones is right for everything.
    bits = torch.tensor(list(product((0.0, 1.0), repeat=7)))
    assert torch.equal(median_filter(bits[None])[0, :, 3], bits.sort()[0][:, 3])


@pytest.mark.parametrize("length", [1, 3, 4, 7, 40])
def test_the_median_is_that_of_mirrored_neighbours(length: int) -> None:
    x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(length))
    mirrored = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3)), mode="reflect") if length > 3 else x.numpy()
    wanted = [np.median(mirrored[..., i : i + 7], axis=-1) for i in range(length)] if length > 3 else None
    assert np.array_equal(median_filter(x), x if wanted is None else np.stack(wanted, -1))


def test_a_frame_at_which_all_tokens_look_alike_spreads_nothing() -> None:
    weights = torch.rand(2, 5, 20, generator=torch.Generator().manual_seed(0))
    weights[:, :, 7] = 0.25
    assert attention_map(weights).isfinite().all()


def _warp(cost: np.ndarray) -> list[int]:
    """The same path, cell by cell: the first frame of each token."""
    n, m = cost.shape
    sums = np.full((n + 1, m + 1), np.inf)
    sums[0, 0] = 0.0
    steps = {}
    for j in range(1, m + 1):
        for i in range(1, n + 1):
            both, token, frame = sums[i - 1, j - 1], sums[i - 1, j], sums[i, j - 1]
            step = (0, 1)
            if both < token and both < frame:
                step = (1, 1)
            elif token < both and token < frame:
                step = (1, 0)
            steps[i, j] = step
            sums[i, j] = cost[i - 1, j - 1] + sums[i - step[0], j - step[1]]
    first, at = {}, (n, m)
    while at[0] > 0:
        first[at[0]] = at[1] - 1
        at = (at[0] - steps[at][0], at[1] - steps[at][1])
    return [first[i] for i in range(1, n + 1)]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 25)),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 4, None]),
)
def test_the_path_is_that_of_the_plain_algorithm_ties_included(shape, seed, levels) -> None:
    random = np.random.default_rng(seed)
    cost = random.standard_normal(shape) if levels is None else random.integers(-levels, levels, shape).astype(float)
    assert first_frames(cost).tolist() == _warp(cost)


def _decode(batch: DecodingBatch, chosen: list[int], options: list[TranscribeOptions]) -> dict[int, DecodingResult]:
    slots = {}
    for i in chosen:
        (slot,) = batch.encode(MEL[i : i + 1])
        slots[slot] = i
        batch.start(slot, Window(i, 0, 2400 + 200 * i, options[i].language, (7, 8)[:i]), options[i])
    return {slots[slot]: result for slot, result in run_to_end(batch)}


def test_words_are_the_same_alone_and_among_others_which_they_leave_as_they_are() -> None:
    common = {"temperature": (0.0,), "no_speech_threshold": None, "guards": False}
    options = [
        TranscribeOptions(language="en", sample_len=9, word_timestamps=True, **common),
        TranscribeOptions(language="de", sample_len=14, **common),
        TranscribeOptions(language="fr", task="translate", sample_len=5, word_timestamps=True, **common),
        TranscribeOptions(language="ja", sample_len=12, hallucination_silence_threshold=2.0, **common),
    ]
    together = _decode(DecodingBatch(TINY.model, TINY.tokenizer, max_windows=4), [2, 0, 3, 1], options)
    for i in range(4):
        alone = _decode(DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1), [i], options)[i]
        assert together[i].tokens == alone.tokens
        if i == 1:
            assert together[i].token_times is alone.token_times is None
            continue
        ours, wanted = together[i].token_times, alone.token_times
        assert ours.boundaries == wanted.boundaries
        assert ours.probabilities == pytest.approx(wanted.probabilities, rel=1e-4)
        n_text = sum(token < TINY.tokenizer.eot for token in alone.tokens)
        assert len(ours.boundaries) == n_text + 1
        assert 0.0 == ours.boundaries[0] <= ours.boundaries[-1] < (2400 + 200 * i) / 100
        assert list(ours.boundaries) == sorted(ours.boundaries)


def test_nothing_is_aligned_where_nobody_asks(monkeypatch) -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1)
    monkeypatch.setattr(batch._inference, "attention", None)
    plain = TranscribeOptions(language="en", temperature=(0.0,), sample_len=4)
    assert _decode(batch, [0], [plain])[0].token_times is None


def test_a_silent_window_is_not_aligned(monkeypatch) -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1)
    monkeypatch.setattr(batch._inference, "attention", None)
    silent = TranscribeOptions(
        language="en", temperature=(0.0,), sample_len=4, word_timestamps=True, no_speech_threshold=0.0
    )
    assert _decode(batch, [0], [silent])[0].token_times is None


class _Unasked:
    """An inference that says when it is asked."""

    def attention(self, *_: object, **__: object) -> None:
        raise LookupError


@pytest.mark.parametrize(
    ("seconds", "logprob", "options", "asked"),
    [
        (20, -0.3, {}, True),
        (3, -0.3, {}, False),
        (20, -0.8, {}, False),
        (20, -0.3, {"guards": False}, False),
        (20, -1.3, {"task": "translate"}, True),
        (3, -0.3, {"task": "translate"}, False),
        (None, -1.3, {"without_timestamps": True}, True),
        (None, -0.3, {"without_timestamps": True, "sample_len": 2}, False),
    ],
)
def test_where_a_text_was_heard_is_asked_of_a_long_segment(seconds, logprob, options, asked) -> None:
    begin = TINY.tokenizer.timestamp_begin
    text = tuple(TINY.tokenizer.encode(" Hello."))
    tokens = text if seconds is None else (begin, *text, begin + 50 * seconds)
    result = DecodingResult("en", tokens, "Hello.", logprob, 0.0, 0.0, 1.0, endless=options.get("sample_len") == 2)
    aligner = Aligner(_Unasked(), TINY.tokenizer, tiny.DIMS, ((1, 0),))
    wanted = TranscribeOptions(language="en", **options)
    if asked:
        with pytest.raises(LookupError):
            aligner.add_looks(result, 0, Window(0, 0, 3000, "en"), wanted)
    else:
        assert aligner.add_looks(result, 0, Window(0, 0, 3000, "en"), wanted) is result


@pytest.mark.parametrize(("task", "looked"), [("transcribe", (3.0, 1.0, 2.0)), ("translate", (1.0, 2.0, 3.0))])
def test_where_a_translation_was_heard_is_put_in_order_of_time(monkeypatch, task, looked) -> None:
    monkeypatch.setattr(Aligner, "looked_at", lambda *_: [3.0, 1.0, 2.0])
    tokens = tuple(TINY.tokenizer.encode(" Hello there."))
    result = DecodingResult("en", tokens, "Hello there.", -0.3, 0.0, 0.0, 1.0)
    aligner = Aligner(_Unasked(), TINY.tokenizer, tiny.DIMS, ((1, 0),))
    options = TranscribeOptions(language="en", task=task, without_timestamps=True)
    assert aligner.add_looks(result, 0, Window(0, 0, 3000, "en"), options).looked == looked
