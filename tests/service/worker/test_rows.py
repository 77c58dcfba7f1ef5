import pytest
import torch

from model.decoding.budget import NATIVE, batch_bytes, row_bytes, window_bytes
from model.dims import DIMENSIONS
from model.errors import OptionError
from service.worker.rows import check_loading, cpu_rows, gpu_rows

DIMS = DIMENSIONS["small"]
ROW = window_bytes(DIMS, 2) + row_bytes(DIMS, 2)
CARD = torch.device("cuda", 1)
LARGE = DIMENSIONS["large-v3"]
MIB = 1024**2


def _card(monkeypatch: pytest.MonkeyPatch, *, free: int, total: int, held: int) -> None:
    """A GPU that says so of its memory; it is never reached for."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total) if device == CARD else None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: held if device == CARD else None)


def test_a_gpu_decodes_as_many_rows_as_its_memory_holds(monkeypatch) -> None:
    _card(monkeypatch, free=30 * ROW, total=100 * ROW, held=8 * ROW)
    assert gpu_rows(DIMS, CARD, torch.float16, 0.9) == 23  # 0.8 of 30, less two rows of text
    assert gpu_rows(DIMS, CARD, torch.float16, 0.2) == 9  # 0.8 of 20 - 8, less two rows of text
    assert gpu_rows(DIMS, CARD, torch.float32, 0.9) == 11
    assert gpu_rows(DIMS, CARD, torch.float16, 0.9, "int8") == 37


def test_a_gpu_without_memory_says_so(monkeypatch) -> None:
    _card(monkeypatch, free=2**20, total=100 * ROW, held=0)
    with pytest.raises(OptionError, match=r"cuda:1 has memory left for no row: 1 MiB") as raised:
        gpu_rows(DIMS, CARD, torch.float16, 0.9)
    assert raised.value.param == "max_batch_rows"


def test_rows_that_are_asked_of_a_gpu_may_take_all_that_it_has_but_not_more(monkeypatch) -> None:
    _card(monkeypatch, free=30 * ROW, total=100 * ROW, held=8 * ROW)
    assert gpu_rows(DIMS, CARD, torch.float16, 0.1, asked=29) == 29
    with pytest.raises(OptionError, match=r"^30 rows take \d+ MiB, and cuda:1 has \d+ MiB left") as raised:
        gpu_rows(DIMS, CARD, torch.float16, 0.9, asked=30)
    assert raised.value.param == "max_batch_rows"
    assert gpu_rows(DIMS, CARD, torch.float16, 0.9, "int8", asked=40) == 40


def test_workers_of_one_card_have_an_equal_part_of_it_each(monkeypatch) -> None:
    """The first one must not take what the second one will need: its weights, and as many rows."""
    _card(monkeypatch, free=92 * ROW, total=100 * ROW, held=8 * ROW)
    assert gpu_rows(DIMS, CARD, torch.float16, 0.9, asked=41, workers=2) == 41
    with pytest.raises(OptionError):
        gpu_rows(DIMS, CARD, torch.float16, 0.9, asked=42, workers=2)
    assert gpu_rows(DIMS, CARD, torch.float16, 0.9, asked=42) == 42


@pytest.mark.parametrize(("itemsize", "cross_kv"), [(4, "auto"), (2, "auto"), (4, "int8"), (4, NATIVE)])
def test_a_cpu_decodes_as_many_rows_as_are_asked_for_and_fit(itemsize, cross_kv) -> None:
    needed = batch_bytes(LARGE, 5, itemsize=itemsize, cross_kv=cross_kv, has_shadows=True)
    assert cpu_rows(LARGE, itemsize, cross_kv, needed, asked=5) == 5
    assert cpu_rows(LARGE, itemsize, cross_kv, needed + 1000, asked=5, unloaded=1000) == 5
    assert cpu_rows(LARGE, itemsize, cross_kv, 2 * needed, asked=5) == 5
    for free, unloaded in ((needed - 1, 0), (needed, 1)):
        with pytest.raises(OptionError, match=r"^5 rows take \d+ MiB, and the machine has \d+ MiB left.*; 4 fit$") as e:
            cpu_rows(LARGE, itemsize, cross_kv, free, asked=5, unloaded=unloaded)
        assert e.value.param == "max_batch_rows"


def test_a_cpu_that_nobody_sized_decodes_16_rows_or_what_fits() -> None:
    def needed(rows: int) -> int:
        return batch_bytes(DIMS, rows, itemsize=4, cross_kv=NATIVE, has_shadows=True)

    assert cpu_rows(DIMS, 4, NATIVE, 2**40) == 16
    assert cpu_rows(DIMS, 4, NATIVE, needed(16)) == 16
    assert cpu_rows(DIMS, 4, NATIVE, needed(16) - 1) == 15
    assert cpu_rows(DIMS, 4, NATIVE, needed(1)) == 1
    with pytest.raises(OptionError, match=r"one row takes \d+ MiB, and the machine has \d+ MiB left") as raised:
        cpu_rows(DIMS, 4, NATIVE, needed(1) - 1)
    assert raised.value.param == "model"
    assert "WHISPER_COMPUTE_TYPE=int8" in str(raised.value)


def test_rows_that_are_asked_for_where_not_one_fits_are_told_that() -> None:
    with pytest.raises(OptionError, match=r"^16 rows take \d+ MiB.*, too little for one: take a smaller") as raised:
        cpu_rows(LARGE, 4, "auto", 100 * MIB, asked=16)
    assert raised.value.param == "max_batch_rows"


def test_a_machine_that_does_not_say_what_it_has_is_not_asked() -> None:
    assert cpu_rows(LARGE, 4, "auto", None) == 16
    assert cpu_rows(LARGE, 4, "auto", None, asked=512, unloaded=2**40) == 512
    check_loading(None, 2**50)


def test_weights_that_cannot_be_loaded_are_refused() -> None:
    check_loading(100, 100)
    with pytest.raises(OptionError, match=r"its weights take 6000 MiB.*the machine has 4000 MiB left") as raised:
        check_loading(4000 * MIB, 6000 * MIB)
    assert raised.value.param == "model"
