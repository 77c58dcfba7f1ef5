"""Captures on a GPU: the order of the calls without one, and the numbers on one."""

import inspect
import itertools
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from model.decoding.batch import DecodingBatch, run_to_end
from model.decoding.inference import PyTorchInference
from model.decoding.opening import Start
from model.decoding.step_check import settle_steps
from model.gpu.cuda import CudaBackend
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.search.selection import Selection
from model.tokenizer import get_tokenizer
from model.window import Window
from tests import tiny
from tests.graphs import no_waits

WINDOWS, ROWS = 16, 17


class _Cuda:
    """The parts of `torch.cuda` that a capture uses, noting in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._failure, self._pools = failure, itertools.count()
        signature = inspect.signature(torch.cuda.graph)  # the real one
        for name in ("Stream", "CUDAGraph", "current_stream", "synchronize", "graph_pool_handle", "device", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "graph", lambda *a, **k: self.graph(**signature.bind(*a, **k).arguments))

    def Stream(self, device: torch.device, priority: int = 0) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda other: self.calls.append(f"{device} waits for {other.name}"))

    def CUDAGraph(self) -> SimpleNamespace:
        return SimpleNamespace(replay=lambda: self.calls.append("replay"))

    def current_stream(self) -> SimpleNamespace:
        return SimpleNamespace(name="main", wait_stream=lambda other: self.calls.append("main waits"))

    def synchronize(self, device: torch.device) -> None:
        self.calls.append(f"synchronize {device}")

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, next(self._pools))

    def device(self, device: torch.device) -> AbstractContextManager[None]:
        return self._inside(str(device))

    def stream(self, stream: SimpleNamespace) -> AbstractContextManager[None]:
        return self._inside("side")

    @contextmanager
    def graph(
        self, cuda_graph: object, pool: tuple[int, int], stream: object, capture_error_mode: str
    ) -> Iterator[None]:
        assert cuda_graph is not None
        assert stream is not None
        self.calls.append(f"begin {capture_error_mode} in pool {pool[1]}")
        if self._failure is not None:
            raise self._failure
        yield
        self.calls.append("end")

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        self.calls.append(name)
        try:
            yield
        finally:
            self.calls.append(f"/{name}")


def test_a_capture_warms_up_on_the_stream_on_which_it_records(monkeypatch) -> None:
    cuda = _Cuda(monkeypatch)
    backend = CudaBackend(torch.device("cuda", 1))
    answer = torch.ones(1)

    def run() -> Tensor:
        cuda.calls.append("run")
        return answer

    replay = backend.capture(run)
    side = ["cuda:1", "cuda:1 waits for main", "side", "run", "run"]
    recording = ["begin thread_local in pool 0", "run", "end"]
    assert cuda.calls == [*side, *recording, "/side", "main waits", "/cuda:1"]
    cuda.calls.clear()
    assert replay() is answer
    assert cuda.calls == ["replay"]
    backend.reset()
    backend.capture(run)
    assert "synchronize cuda:1" in cuda.calls
    assert "begin thread_local in pool 1" in cuda.calls


def test_a_capture_that_fails_leaves_no_stream_behind(monkeypatch) -> None:
    cuda = _Cuda(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        CudaBackend(torch.device("cuda", 0)).capture(lambda: torch.ones(1))
    assert cuda.calls[-2:] == ["/side", "/cuda:0"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.float16, 5e-2), (torch.bfloat16, 0.4)])
def test_graphs_of_a_device_give_what_its_steps_give_and_wait_for_nothing(dtype, atol) -> None:
    device = torch.device("cuda", 0)
    features = torch.randn(WINDOWS, 1500, tiny.DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))
    model = Whisper.from_tensors(tiny.DIMS, tiny.tensors(), device, dtype)
    eager = PyTorchInference(model, n_windows=WINDOWS, n_rows=ROWS)
    graphed = PyTorchInference(model, n_windows=WINDOWS, n_rows=ROWS, backend=CudaBackend(device))
    for inference in (eager, graphed):
        inference.fill_windows(features.to(device, dtype), range(WINDOWS))
    for n in (1, 3, 5, 9, 16, 2):
        windows = random.Random(n).sample(range(WINDOWS), n)
        for length in range(4):
            step = {"lengths": [length] * n, "windows": windows}
            with no_waits() if length else nullcontext():  # the first one may capture
                ours = graphed.step([length] * n, **step)
            assert torch.allclose(ours, eager.step([length] * n, **step), atol=atol)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_tokens_chosen_on_a_device_are_those_chosen_on_the_host_and_nobody_waits(temperature) -> None:
    """The same logits on both sides, and steps that feed each other their tokens, captured."""
    tokenizer, cpu, device = get_tokenizer(tiny.DIMS), torch.device("cpu"), torch.device("cuda", 0)
    # Far apart: sums of shares round otherwise on a device, and no draw shall lie on a border.
    logits = 10 * torch.randn(5, tiny.DIMS.n_vocab, generator=torch.Generator().manual_seed(1))
    options = TranscribeOptions()
    selections = []
    for place in (cpu, device):
        rules = Rules(tiny.DIMS, tokenizer, place)
        selection = Selection(tiny.DIMS, tokenizer, rules, n_rows=ROWS, device=place)
        for home in range(5):
            selection.begin(
                home,
                rules.suppressed(options),
                temperature=temperature,
                seed=home if temperature else None,
                first_to=rules.first_time_to(options),
            )
        selections.append(selection)
    for count in range(6):
        chosen = [
            selection.choose(logits.to(place), selection.rows(range(5), [count] * 5), drawing=temperature > 0)
            for selection, place in zip(selections, (cpu, device), strict=True)
        ]
        assert chosen[0][0].tolist() == chosen[1][0].tolist()
        assert torch.allclose(chosen[0][1], chosen[1][1].cpu(), atol=1e-4)
    model = Whisper.from_tensors(tiny.DIMS, tiny.tensors(), device, torch.float32)
    said = []
    for backend in (None, CudaBackend(device)):
        inference = PyTorchInference(model, n_windows=5, n_rows=ROWS, backend=backend)
        features = torch.randn(5, 1500, tiny.DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))
        inference.fill_windows(features.to(device), range(5))
        for count in range(6, 12):
            with no_waits() if count > 6 and backend else nullcontext():
                chosen_now = inference.advance(
                    selections[1],
                    homes=range(5),
                    counts=[count] * 5,
                    lengths=[count] * 5,
                    windows=range(5),
                    drawing=temperature > 0,
                ).clone()
            said.append(chosen_now[0].tolist())
    assert said[:6] == said[6:]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("cross_attention", "beams"), [("torch", None), ("auto", None), ("torch", 2), ("auto", 2)])
def test_windows_come_and_go_and_nobody_waits_but_for_tokens(cross_attention, beams) -> None:
    tokenizer, device = get_tokenizer(tiny.DIMS), torch.device("cuda", 0)
    model = Whisper.from_tensors(tiny.DIMS, tiny.tensors(), device, torch.float16)
    settle_steps(model, tokenizer, cross_attention=cross_attention, cuda_graphs="true")
    batch = DecodingBatch(model, tokenizer, max_windows=12)
    batch.prepare(3)
    mel = torch.randn(6, 80, 3000, generator=torch.Generator().manual_seed(7)).to(device, torch.float16)

    def decode() -> list[tuple[int, ...]]:
        texts = {}
        for first in (0, 3):
            slots = batch.encode(mel[first : first + 3])
            lengths = [3 + 2 * (first + i) for i in range(3)]
            alike = TranscribeOptions(language="en", temperature=(0.0,), guards=False)
            options = [replace(alike, sample_len=n, beam_size=beams if n % 4 == 3 else None) for n in lengths]
            starts = [Start(s, Window(0, 0, 3000, "en"), o) for s, o in zip(slots, options, strict=True)]
            batch.start_all(starts)
            for _ in range(2):
                texts |= {len(result.tokens): result.tokens for _, result in batch.step()}
        texts |= {len(result.tokens): result.tokens for _, result in [*run_to_end(batch), *batch.step()]}
        return [texts[length] for length in sorted(texts)]

    first = decode()
    with no_waits():
        second = decode()
    assert len(first) >= 1
    assert second == first
