import pytest
import torch

from model.decoding.batch import DecodingBatch
from model.decoding.budget import row_bytes, window_bytes
from model.dims import DIMENSIONS
from model.errors import OptionError
from model.gpu import beside
from model.transcriber import Transcriber
from service.worker.__main__ import parse
from service.worker.start import choose_rows, describe, make_engine, start
from tests import tiny

DIMS = DIMENSIONS["small"]
ROW = window_bytes(DIMS, 2) + row_bytes(DIMS, 2)
CARD = torch.device("cuda", 1)


def _card(monkeypatch: pytest.MonkeyPatch, *, free: int, total: int, held: int) -> None:
    """A GPU that says so of its memory; it is never reached for."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total) if device == CARD else None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: held if device == CARD else None)


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


def test_a_cpu_decodes_16_rows() -> None:
    assert choose_rows(DIMS, torch.device("cpu"), torch.float32, 0.9) == 16


def test_a_gpu_decodes_as_many_rows_as_its_memory_holds(monkeypatch) -> None:
    _card(monkeypatch, free=30 * ROW, total=100 * ROW, held=8 * ROW)
    assert choose_rows(DIMS, CARD, torch.float16, 0.9) == 23  # 0.8 of 30, less two rows of text
    assert choose_rows(DIMS, CARD, torch.float16, 0.2) == 9  # 0.8 of 20 - 8, less two rows of text
    assert choose_rows(DIMS, CARD, torch.float32, 0.9) == 11
    assert choose_rows(DIMS, CARD, torch.float16, 0.9, "int8") == 37


def test_a_gpu_without_memory_says_so(monkeypatch) -> None:
    _card(monkeypatch, free=2**20, total=100 * ROW, held=0)
    with pytest.raises(OptionError, match=r"cuda:1 has memory left for no row: 1 MiB") as raised:
        choose_rows(DIMS, CARD, torch.float16, 0.9)
    assert raised.value.param == "max_batch_rows"


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
