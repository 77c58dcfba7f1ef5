"""Captured steps beside the steps that they stand for, without a GPU: what is replayed runs again (`tests.graphs`)."""

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.inference import PyTorchInference
from model.gpu.graphs import FixedStepView
from model.gpu.shapes import StepShape
from model.network.cache import KVCache
from model.network.whisper import TextDecoder
from model.options import TranscribeOptions
from model.window import DecodingResult, Window
from tests import tiny
from tests.graphs import Again, capture_steps

TINY = tiny.transcriber()
MODEL = TINY.model
WINDOWS, ROWS = 16, 17
FEATURES = torch.randn(WINDOWS, 1500, tiny.DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))
N_CTX = tiny.DIMS.n_text_ctx


@pytest.fixture(autouse=True)
def _inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _pair(windows: int = WINDOWS, rows: int = ROWS) -> tuple[PyTorchInference, PyTorchInference, Again]:
    """The same memory twice: with steps as they come, and with captured ones."""
    again = Again()
    eager = PyTorchInference(MODEL, n_windows=windows, n_rows=rows)
    graphed = PyTorchInference(MODEL, n_windows=windows, n_rows=rows, backend=again)
    for inference in (eager, graphed):
        inference.fill_windows(FEATURES[:windows], range(windows))
    return eager, graphed, again


def _remember(inference: PyTorchInference, lengths: list[int], seed: int = 0) -> None:
    """Let rows hold so many tokens, whichever: random keys and values, and those behind them."""
    cache, generator = inference._cache, torch.Generator().manual_seed(seed)
    for row in range(len(lengths)):
        for memory in (cache.keys, cache.values):
            memory[:, row] = torch.randn(memory[:, row].shape, generator=generator)


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("n", range(1, ROWS))
def test_every_number_of_rows_in_any_order_gives_what_a_step_without_padding_gives(n) -> None:
    eager, graphed, again = _pair()
    draw = random.Random(n)
    lengths = [draw.choice([0, 1, 5, 100, N_CTX - 1]) for _ in range(n)]
    windows = draw.sample(range(WINDOWS), n)
    tokens = [draw.randrange(50_000) for _ in range(n)]
    for inference in (eager, graphed):
        _remember(inference, lengths)
    for turn in range(2):
        at = [min(length + turn, N_CTX - 1) for length in lengths]
        assert _close(
            graphed.step(tokens, lengths=at, windows=windows), eager.step(tokens, lengths=at, windows=windows)
        )
        assert torch.allclose(graphed._cache.keys[:, :n], eager._cache.keys[:, :n], atol=1e-5)
    assert (again.captures, again.replays) == (1, 2)


def test_rows_of_one_window_are_heard_by_their_own_window() -> None:
    eager, graphed, _ = _pair()
    windows = [5, 5, 0, 5, 2, 2, 0]
    for inference in (eager, graphed):
        _remember(inference, [7] * 7)
    step = {"lengths": [7, 3, 7, 0, 9, 447, 1], "windows": windows}
    assert _close(graphed.step([3] * 7, **step), eager.step([3] * 7, **step))


@pytest.mark.parametrize("rubbish", [6e4, torch.nan])
def test_no_memory_but_a_rows_own_reaches_it(rubbish) -> None:
    eager, graphed, _ = _pair()
    windows, lengths = [9, 2, 6, 6, 6], [4, 30, 0, 8, 2]
    for inference in (eager, graphed):
        _remember(inference, lengths)
    wanted = eager.step([1, 2, 3, 4, 5], lengths=lengths, windows=windows)
    cache = graphed._cache
    cache.keys[:, 5:], cache.values[:, 5:] = rubbish, rubbish  # other rows, and the scratch row
    for window in set(range(WINDOWS)) - set(windows):
        cache.cross_keys.data[:, window], cache.cross_values.data[:, window] = rubbish, rubbish
    assert _close(graphed.step([1, 2, 3, 4, 5], lengths=lengths, windows=windows), wanted)
    assert _close(graphed.step([1, 2, 3, 4, 5], lengths=lengths, windows=windows), wanted)


@pytest.mark.parametrize("cross_kv", ["int8", "fp8"])
def test_8_bits_of_the_audio_are_read_alike(cross_kv, monkeypatch) -> None:
    monkeypatch.setattr(MODEL, "cross_kv", cross_kv)
    eager, graphed, _ = _pair()
    for inference in (eager, graphed):
        _remember(inference, [3] * 4)
    step = {"lengths": [3, 0, 1, 3], "windows": [4, 4, 1, 0]}
    assert _close(graphed.step([1, 2, 3, 4], **step), eager.step([1, 2, 3, 4], **step))


def test_padding_writes_into_the_scratch_row_only() -> None:
    _, graphed, _ = _pair()
    cache = graphed._cache
    _remember(graphed, [0] * (ROWS + 1))
    before = cache.keys.clone()
    graphed.step([1, 2, 3, 4, 5], lengths=[4, 30, 0, 8, 2], windows=[7, 2, 6, 3, 4])
    changed = (cache.keys != before).any(-1).any(2).any(0).nonzero().tolist()
    assert changed == [[0, 4], [1, 30], [2, 0], [3, 8], [4, 2], [ROWS, 0]]


ACTION = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 3)),
    st.tuples(st.just("join"), st.integers(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("take over"), st.integers(0, 5)),
)


@settings(max_examples=20, deadline=None)
@given(actions=st.lists(ACTION, min_size=4, max_size=14))
def test_any_course_of_rows_that_join_leave_and_take_over_others(actions) -> None:
    eager, graphed, _ = _pair(windows=6, rows=7)
    rows: list[tuple[int, int]] = []  # length and window
    with torch.inference_mode():
        for name, number in [("join", 3), *actions, ("step", 1)]:
            if name == "join" and len(rows) < 6:
                for inference in (eager, graphed):
                    inference.clear_row(len(rows))
                    inference.prefill((1, 2, 3 + number)[number % 2 :], row=len(rows), window=number, keep=(0,))
                rows.append((3 - number % 2, number))
            elif name == "leave" and len(rows) > 1:
                last, hole = len(rows) - 1, number % len(rows)
                for inference in (eager, graphed):
                    inference.copy_rows([last], [hole], N_CTX)
                rows[hole] = rows[last]
                rows.pop()
            elif name == "take over":
                source, target = number % len(rows), (number + 1) % len(rows)
                for inference in (eager, graphed):
                    inference.copy_rows([source, target], [target, source], rows[source][0])
                rows[target] = rows[source][0], rows[target][1]
                rows[source] = rows[source][0], rows[source][1]
            elif name == "step":
                for turn in range(number):
                    tokens = [100 * turn + row for row in range(len(rows))]
                    step = {"lengths": [length for length, _ in rows], "windows": [window for _, window in rows]}
                    assert _close(graphed.step(tokens, **step), eager.step(tokens, **step))
                    rows = [(length + 1, window) for length, window in rows]


def test_an_answer_stays_what_it_was() -> None:
    _, graphed, again = _pair()
    first = graphed.step([1, 2], lengths=[0, 0], windows=[0, 1])
    kept = first.clone()
    graphed.step([7, 8], lengths=[1, 1], windows=[0, 1])
    assert torch.equal(first, kept)
    assert (again.captures, again.replays) == (1, 2)


def test_a_short_window_is_stepped_without_a_capture() -> None:
    eager, graphed, again = _pair()
    for inference in (eager, graphed):
        inference.fill_windows(FEATURES[:1, :700], [1])
    step = {"lengths": [0, 0], "windows": [0, 1]}
    assert _close(graphed.step([1, 2], **step), eager.step([1, 2], **step))
    assert again.captures == 0
    graphed.step([1], lengths=[1], windows=[0])
    assert again.captures == 1


class _Operators(TorchDispatchMode):
    """Notes what is computed, on which shapes and in which memory of the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[torch.Size, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        self.seen.append((str(func), tuple(arg.shape for arg in args if isinstance(arg, Tensor))))
        return answer


def test_steps_of_one_shape_are_the_same_operators_whatever_they_hold() -> None:
    _, graphed, _ = _pair()
    assert graphed._graphs is not None
    seen = []
    for tokens, lengths, windows in [
        ([1, 2, 3], [4, 4, 4], [0, 1, 2]),
        ([9, 8], [447, 0], [3, 1]),
    ]:
        shape = StepShape.of(windows, max_windows=WINDOWS, max_rows=ROWS)
        graphed._graphs._write(shape, tokens, lengths, windows)
        with _Operators() as operators:
            graphed._graphs._run(shape)
        seen.append(operators.seen)
    assert len(seen[0]) > 40
    assert seen[0] == seen[1]


@pytest.mark.parametrize("shape", [StepShape(8, 8, 1), StepShape(12, 4, 8)])
def test_a_captured_step_reads_nothing_back_and_stays_on_its_device(shape) -> None:
    """A tensor without data refuses whatever would make the host wait, and whatever is on another device."""
    device = torch.device("meta")
    cache = KVCache(tiny.DIMS, n_windows=16, n_rows=18, device=device, dtype=torch.float16)
    with device:
        decoder = TextDecoder(tiny.DIMS).to(torch.float16)
        inputs = torch.zeros(4 * shape.rows, dtype=torch.long)
    view = FixedStepView(cache, shape, inputs)
    logits = decoder.logits(decoder(view.tokens, view.positions, view))
    assert (logits.shape, logits.dtype, logits.device.type) == ((shape.rows, 51_865), torch.float32, "meta")
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        inputs.max().item()


def _capture_error() -> RuntimeError:
    """What is left of an error inside a capture once the capture was ended: torch raises another one there."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        _capture_error(),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_memory_that_runs_out_in_a_capture_says_so_and_gives_all_graphs_back(failure) -> None:
    eager, graphed, again = _pair()
    graphed.step([1], lengths=[0], windows=[0])
    again.failures = [failure]
    with pytest.raises(torch.OutOfMemoryError):
        graphed.step([1, 2], lengths=[1, 0], windows=[0, 1])
    assert again.resets == 1
    eager.step([1], lengths=[0], windows=[0])
    assert _close(
        graphed.step([1], lengths=[1], windows=[0]),
        eager.step([1], lengths=[1], windows=[0]),
    )
    assert again.captures == 2


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_another_failure_stays_what_it_is_and_the_device_is_waited_for(kind) -> None:
    """What it had launched on the stream of captures may still be at work on memory that is freed now."""
    _, graphed, again = _pair()
    again.failures = [kind("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(kind, match="illegal") as raised:
        graphed.step([1], lengths=[0], windows=[0])
    assert not isinstance(raised.value, torch.OutOfMemoryError)
    assert again.resets == 1


OPTIONS = [
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=9),
    TranscribeOptions(language="de", temperature=(0.0,), sample_len=4, without_timestamps=True),
    TranscribeOptions(language="en", temperature=(0.0,), sample_len=8, beam_size=3, patience=2.0),
    TranscribeOptions(language="fr", temperature=(0.0, 0.8), sample_len=5, beam_size=2, best_of=3, seed=3),
    TranscribeOptions(temperature=(0.0, 0.4), sample_len=12),
]


def _decode_all() -> list[DecodingResult]:
    """All of them in one batch, as they find room."""
    mel = torch.randn(len(OPTIONS), 80, 3000, generator=torch.Generator().manual_seed(7))
    batch = DecodingBatch(MODEL, TINY.tokenizer, max_windows=4, max_rows=6)
    waiting, slots, results = list(range(len(OPTIONS))), {}, {}
    while waiting or batch.active_rows:
        while waiting and batch.free_windows and batch.free_rows >= OPTIONS[waiting[0]].width:
            i = waiting.pop(0)
            (slot,) = batch.encode(mel[i : i + 1])
            slots[slot] = i
            batch.start(slot, Window(i, 0, 3000, OPTIONS[i].language, ()), OPTIONS[i])
        for slot, result in batch.step():
            results[slots.pop(slot)] = result
    assert not list(run_to_end(batch))
    return [results[i] for i in range(len(OPTIONS))]


def test_a_batch_of_beams_samples_and_ladders_says_the_same(monkeypatch) -> None:
    wanted = _decode_all()
    again = Again()
    capture_steps(monkeypatch, again)
    ours = _decode_all()
    assert [(o.tokens, o.language, o.temperature) for o in ours] == [
        (w.tokens, w.language, w.temperature) for w in wanted
    ]
    assert again.captures >= 3
    assert again.replays > 2 * again.captures
