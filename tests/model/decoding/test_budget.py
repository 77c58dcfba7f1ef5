import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.compute import CROSS_KVS
from model.decoding.batch import DecodingBatch
from model.decoding.budget import MOST_ROWS, DeviceMemory, batch_bytes, fitting_rows, row_bytes, window_bytes
from model.dims import DIMENSIONS
from model.network.cache import KVCache
from tests import tiny

GIB = 1024**3
LARGE = DIMENSIONS["large-v3"]


@pytest.mark.parametrize("cross_kv", CROSS_KVS)
@pytest.mark.parametrize("dims", [tiny.DIMS, DIMENSIONS["large-v3-turbo"]])
def test_slots_are_as_large_as_the_memory_that_holds_them(dims, cross_kv) -> None:
    device = torch.device("meta")
    cache = KVCache(dims, n_windows=3, n_rows=5, device=device, dtype=torch.float16, cross_kv=cross_kv)
    assert cache.cross_keys.nbytes + cache.cross_values.nbytes == 3 * window_bytes(dims, 2, cross_kv)
    assert cache.keys.nbytes + cache.values.nbytes == 5 * row_bytes(dims, 2)


@pytest.mark.parametrize("cross_kv", CROSS_KVS)
def test_a_batch_is_as_large_as_its_slots(cross_kv) -> None:
    model = tiny.transcriber().model
    model.cross_kv = cross_kv
    batch = DecodingBatch(model, tiny.transcriber().tokenizer, max_windows=6)
    cache = batch._inference._cache
    taken = cache.cross_keys.nbytes + cache.cross_values.nbytes + cache.keys.nbytes + cache.values.nbytes
    assert taken == batch_bytes(tiny.DIMS, 6, itemsize=4, cross_kv=cross_kv, has_shadows=True)
    plain = batch_bytes(tiny.DIMS, 6, itemsize=4, cross_kv=cross_kv)
    assert plain == 6 * window_bytes(tiny.DIMS, 4, cross_kv) + 7 * row_bytes(tiny.DIMS, 4)


def _rows(total: int, *, free: int | None = None, held: int = 0, share: float = 1.0) -> int:
    memory = DeviceMemory(total=total, free=total - held if free is None else free, held=held)
    return fitting_rows(LARGE, itemsize=2, memory=memory, share=share)


def test_a_card_holds_what_its_bytes_say() -> None:
    window, row = 245_760_000, 73_400_320
    assert (window_bytes(LARGE, 2), row_bytes(LARGE, 2)) == (window, row)
    needed = (10 * (window + row) + 2 * row) * 5 // 4
    assert (_rows(needed + 2), _rows(needed - 2)) == (10, 9)
    assert _rows(80 * GIB) == MOST_ROWS
    assert _rows(0) == 0


def test_8_bits_let_more_windows_in() -> None:
    def rows(cross_kv: str) -> int:
        memory = DeviceMemory(total=12 * GIB, free=12 * GIB, held=0)
        return fitting_rows(LARGE, itemsize=2, memory=memory, share=1.0, cross_kv=cross_kv)

    assert window_bytes(LARGE, 2, "fp8") == window_bytes(LARGE, 2) // 2
    assert (rows("auto"), rows("int8"), rows("fp8")) == (31, 50, 51)


def test_two_workers_share_a_card_whoever_comes_first() -> None:
    total, weights = 24 * GIB, 3 * GIB
    first = _rows(total, held=weights, share=0.45)
    slots = first * (window_bytes(LARGE, 2) + row_bytes(LARGE, 2))
    second = _rows(total, held=weights, free=total - 2 * weights - slots, share=0.45)
    assert first == second > 8
    assert 2 * (weights + slots) < 0.9 * total


def test_memory_that_others_hold_is_not_there() -> None:
    assert _rows(24 * GIB, free=4 * GIB, held=3 * GIB) == _rows(4 * GIB) < _rows(24 * GIB, held=3 * GIB)
    assert _rows(24 * GIB, held=20 * GIB, share=0.5) == 0


@given(
    dims=st.sampled_from(list(DIMENSIONS.values())),
    itemsize=st.sampled_from([2, 4]),
    cross_kv=st.sampled_from(CROSS_KVS),
    total=st.integers(0, 200 * GIB),
    held=st.integers(0, 10 * GIB),
    free=st.integers(0, 200 * GIB),
    share=st.floats(0.01, 1.0),
)
def test_what_is_taken_is_never_more_than_there_is(dims, itemsize, cross_kv, total, held, free, share) -> None:
    memory = DeviceMemory(total=total, free=min(free, max(0, total - held)), held=held)
    rows = fitting_rows(dims, itemsize=itemsize, memory=memory, share=share, cross_kv=cross_kv)
    assert 0 <= rows <= MOST_ROWS
    if rows:
        taken = rows * window_bytes(dims, itemsize, cross_kv) + (rows + 2) * row_bytes(dims, itemsize)
        assert taken <= 0.8 * memory.free
        assert held + taken <= share * total
