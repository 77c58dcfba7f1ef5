from pathlib import Path

import pytest
import torch

from model.decoding.batch import DecodingBatch
from model.decoding.budget import NATIVE, batch_bytes, slots_beside
from model.errors import OptionError
from model.gpu import beside
from model.native.inference import NativeInference
from model.native.quantize import quantise
from model.native.weights import NativeDecoder
from model.transcriber import Transcriber
from service.worker.__main__ import parse
from service.worker.engine import Engine
from service.worker.start import describe, make_engine, start, warm_up
from tests import tiny

LEFT = "service.worker.start.available_bytes"
WORDS = ["--fd", "3", "--parent", "1", "--device", "cpu", "--compute-type", "float32", "--encoder-context", "full"]


@pytest.mark.parametrize(
    ("variable", "option", "value"),
    [
        ("WHISPER_MODEL", "model", "nosuch"),
        ("WHISPER_DEVICES", "device", "cuda:99"),
        ("WHISPER_COMPUTE_TYPE", "compute-type", "float16"),
        ("WHISPER_CROSS_KV", "cross-kv", "fp8"),
        ("WHISPER_CROSS_ATTENTION", "cross-attention", "triton"),
        ("WHISPER_CUDA_GRAPHS", "cuda-graphs", "true"),
    ],
)
def test_what_only_a_worker_finds_wrong_names_the_variable_too(tmp_path, variable, option, value) -> None:
    path = tiny.write_checkpoint(tmp_path / "tiny.pt")
    options = {"model": str(path), "device": "cpu", "compute-type": "int8", "encoder-context": "full", option: value}
    words = [word for name, text in options.items() for word in (f"--{name}", text)]
    with pytest.raises(OptionError) as raised:
        start(parse(["--fd", "3", "--parent", "1", *words]))
    assert describe(raised.value).startswith(f"{variable}: ")


def _needed(rows: int) -> int:
    return batch_bytes(tiny.DIMS, rows, itemsize=4, has_shadows=True)


def _start(tmp_path: Path, *options: str) -> int:
    """Rows of the batch of a worker that has started."""
    path = tiny.write_checkpoint(tmp_path / "tiny.pt")
    engine, info = start(parse([*WORDS, "--model", str(path), *options]))
    assert engine.batch.max_rows == info.max_rows
    return info.max_rows


def test_more_rows_than_the_machine_has_memory_for_end_the_start_with_the_setting(tmp_path, monkeypatch) -> None:
    sizes = iter([1000, 1000 + sum(tensor.nbytes for tensor in tiny.tensors().values())])  # read, and given back
    monkeypatch.setattr("service.worker.start.anonymous_bytes", lambda: next(sizes))
    monkeypatch.setattr(LEFT, lambda: _needed(7))
    monkeypatch.setattr(Transcriber, "from_weights", None)  # it takes long for a large model, and is not reached
    with pytest.raises(OptionError) as raised:
        _start(tmp_path, "--max-rows", "400")
    said = describe(raised.value)
    assert said.startswith("WHISPER_MAX_BATCH_ROWS: 400 rows take ")
    assert said.endswith(f"the machine has {_needed(7) // 1024**2} MiB left beside the weights; 7 fit")


def test_as_many_rows_as_fit_are_started_and_nobody_asks_again_for_a_worker_that_replaces_one(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(LEFT, lambda: 2**40)
    assert _start(tmp_path) == 16
    assert _start(tmp_path, "--max-rows", "20") == 20
    monkeypatch.setattr(LEFT, lambda: None)
    assert _start(tmp_path, "--max-rows", "20") == 20
    monkeypatch.setattr(LEFT, lambda: 0)
    assert _start(tmp_path, "--max-rows", "20", "--rows-before", "20") == 20
    assert _start(tmp_path, "--rows-before", "3") == 3


def test_a_batch_that_nobody_sized_is_made_smaller_once_the_weights_are_loaded(tmp_path, monkeypatch) -> None:
    left = iter([2**40, _needed(3)] * 2)  # another program takes the rest meanwhile
    monkeypatch.setattr(LEFT, lambda: next(left))
    assert _start(tmp_path) == 3
    with pytest.raises(OptionError, match=r"4 rows take .*; 3 fit"):
        _start(tmp_path, "--max-rows", "4")


def test_weights_that_do_not_fit_are_refused_before_they_are_laid_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(LEFT, lambda: 2**20)
    monkeypatch.setattr("service.worker.start.anonymous_bytes", lambda: 0)
    monkeypatch.setattr(Transcriber, "from_weights", None)
    with pytest.raises(OptionError) as raised:
        _start(tmp_path)
    assert describe(raised.value).startswith("WHISPER_MODEL: its weights take ")


def test_the_c_decoders_slots_are_as_large_as_is_said_of_them() -> None:
    model = tiny.transcriber().model
    quantise(model)
    if not isinstance(model.decoder, NativeDecoder):
        pytest.skip("the decoder is not compiled here")
    rows = 40
    memory = NativeInference(model.decoder, n_windows=rows + 1, n_rows=rows + 1 + slots_beside(rows))
    taken = sum(tensor.nbytes for tensor in vars(memory).values() if isinstance(tensor, torch.Tensor))
    said = batch_bytes(tiny.DIMS, rows, itemsize=4, cross_kv=NATIVE, has_shadows=True)
    assert said <= taken <= 1.02 * said


def test_a_warm_up_encodes_every_number_of_windows_that_may_share_a_pass(monkeypatch) -> None:
    engine = Engine(tiny.transcriber(), max_rows=4, windows_per_encode=3)
    together: list[int] = []
    encode = engine.batch.encode

    def noted(mel: torch.Tensor, n_frames: list[int]) -> list[int]:
        together.append(len(mel))
        return encode(mel, n_frames)

    monkeypatch.setattr(engine.batch, "encode", noted)
    warm_up(engine, 3)
    assert together == [1, 2, 3]
    assert (engine.stats.encodes, engine.batch.steps.total()) == (0, 0)


def _capturing(monkeypatch) -> Transcriber:
    """A model that says that it captures its steps; encoder passes are done at once, without a GPU's stream."""
    monkeypatch.setattr(beside, "SideStream", lambda device: beside.Inline())
    transcriber = tiny.transcriber()
    transcriber.model.captures_steps = True
    return transcriber


def test_a_service_starts_without_the_fast_path_where_its_first_steps_fail(monkeypatch) -> None:
    """What a step raises ends requests and not the engine: a warm-up whose requests fail is none."""
    step = DecodingBatch.step

    def failing(batch: DecodingBatch) -> object:
        if batch.model.captures_steps and batch.active_rows:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return step(batch)

    monkeypatch.setattr(DecodingBatch, "step", failing)
    transcriber = _capturing(monkeypatch)
    engine = make_engine(transcriber, 2, "auto")
    assert not engine.busy
    assert not transcriber.model.captures_steps
    assert "in the warm-up" in transcriber.left_out["cuda_graphs"]
    assert "RuntimeError" in transcriber.left_out["cuda_graphs"]


@pytest.mark.parametrize("cuda_graphs", ["auto", "true"])
def test_a_service_starts_without_what_is_fused_where_that_alone_fails_at_its_size(monkeypatch, cuda_graphs) -> None:
    def prepare(batch: DecodingBatch, together: int) -> None:
        if batch.model.fuses_steps:
            raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(DecodingBatch, "prepare", prepare)
    transcriber = _capturing(monkeypatch)
    transcriber.model.fuses_steps = True
    make_engine(transcriber, 2, cuda_graphs)
    assert (transcriber.model.captures_steps, transcriber.model.fuses_steps) == (True, False)
    assert transcriber.left_out == {"fused_steps": "RuntimeError: out of resource: shared memory"}


@pytest.mark.parametrize(("cuda_graphs", "survives"), [("auto", True), ("true", False)])
def test_a_service_starts_without_the_fast_path_where_that_fails_at_its_size(
    monkeypatch, cuda_graphs, survives
) -> None:
    """A model that says that it captures, and a batch that cannot."""

    def prepare(batch: DecodingBatch, together: int) -> None:
        if batch.model.captures_steps:
            raise RuntimeError("CUDA error:\n too many resources requested")

    monkeypatch.setattr(DecodingBatch, "prepare", prepare)
    transcriber = _capturing(monkeypatch)
    if not survives:
        with pytest.raises(RuntimeError, match="too many resources"):
            make_engine(transcriber, 2, cuda_graphs)
        return
    engine = make_engine(transcriber, 2, cuda_graphs)
    assert not engine.busy
    assert not transcriber.model.captures_steps
    assert transcriber.left_out == {"cuda_graphs": "RuntimeError: CUDA error: too many resources requested"}
