"""The decoder in C against torch on the same rounded weights, and against itself in other company."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.decoding.inference import PyTorchInference
from model.native.inference import NativeInference
from model.native.library import cpu_capability, load_library
from model.native.rowwise import quantise_weight
from model.native.weights import NativeDecoder, RoundedEmbedding
from model.network.whisper import Whisper
from tests import tiny

DIMS = tiny.DIMS
FEATURES = torch.randn(3, 1500, DIMS.n_audio_state, generator=torch.Generator().manual_seed(3))
PROMPT = (50258, 50259, 50359, 7, 51864)
Make = Callable[[], NativeInference]


def _rounded(weight: Tensor) -> Tensor:
    """What is left of a weight in int8."""
    quantised, scale = quantise_weight(weight)
    return quantised * scale[:, None]


def _tensors() -> dict[str, Tensor]:
    """The tiny model, its decoder's matrices rounded (neither the audio's keys and values are nor the embedding).

    What tokens have in common, and columns that reach far, are as in the published models.
    """
    tensors = tiny.tensors()
    for name, tensor in tensors.items():
        if name.startswith("decoder.blocks") and tensor.ndim == 2 and "cross_attn.key" not in name:
            tensors[name] = tensor if "cross_attn.value" in name else _rounded(tensor)
    generator = torch.Generator().manual_seed(4)
    embedding, common = tensors["decoder.token_embedding.weight"], torch.randn(DIMS.n_text_state, generator=generator)
    far = torch.where(torch.arange(DIMS.n_text_state) % 20 == 7, 4.0, 1.0)
    tensors["decoder.token_embedding.weight"] = (embedding + common) * far / 2
    tensors["decoder.ln.weight"] = 0.5 + torch.rand(DIMS.n_text_state, generator=generator)
    return tensors


def _with_rounded_embedding() -> Whisper:
    """The same network over what is left of its embedding in int8."""
    embedding = RoundedEmbedding.of(MODEL.decoder.token_embedding.weight, MODEL.decoder.ln)
    rounded = embedding.tokens * embedding.scale[:, None] / embedding.columns + embedding.mean
    return Whisper.from_tensors(DIMS, _tensors() | {"decoder.token_embedding.weight": rounded})


def _cross_keys(inference: NativeInference, layer: int, window: int) -> Tensor:
    """What is left of a window's keys (n_head, n_ctx, head), from panels of int8 and a scale for each position."""
    pairs = inference._cross_keys[layer, window].float()  # (n_head, panels, size / 2, 16, 2)
    keys = pairs.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
    return (keys * inference._scales[0, layer, window, :, :, None])[:, : inference._n_ctx[window]]


MODEL = Whisper.from_tensors(DIMS, _tensors())


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def make(library: ctypes.CDLL) -> Make:
    def make() -> NativeInference:
        inference = NativeInference(NativeDecoder(MODEL.decoder, DIMS, library), n_windows=3, n_rows=14)
        inference.fill_windows(FEATURES, [2, 0, 1])
        return inference

    return make


@pytest.fixture
def oracle() -> PyTorchInference:
    """torch, with the audio's keys and values rounded as the C code does: by position and head."""
    inference = PyTorchInference(_with_rounded_embedding(), n_windows=3, n_rows=14)
    inference.fill_windows(FEATURES, [2, 0, 1])
    for memory in (inference._cache.cross_keys, inference._cache.cross_values):
        memory.data.copy_(_rounded(memory.data.flatten(0, 3)).view_as(memory.data))
    return inference


def _assert_alike(logits: Tensor, wanted: Tensor) -> None:
    """The same but for what all tokens of a row have in common."""
    torch.testing.assert_close(logits.log_softmax(-1), wanted.log_softmax(-1), atol=2e-3, rtol=1e-3)


def test_a_prompt_and_steps_give_torchs_logits(make: Make, oracle: PyTorchInference) -> None:
    ours = make()
    for row, window in ((0, 1), (1, 2), (2, 2)):
        prompt = PROMPT[: 3 + row]
        keep = (0, len(prompt) - 1)
        wanted = oracle.prefill(prompt, row=row, window=window, keep=keep)
        _assert_alike(ours.prefill(prompt, row=row, window=window, keep=keep), wanted)
    for step in range(20):
        tokens, lengths = (11 + step, 500, 50_000), (3 + step, 4 + step, 5 + step)
        wanted = oracle.step(tokens, lengths=lengths, windows=(1, 2, 2))
        _assert_alike(ours.step(tokens, lengths=lengths, windows=(1, 2, 2)), wanted)


def test_a_long_prompt_gives_torchs_logits(make: Make, oracle: PyTorchInference) -> None:
    prompt, keep = tuple(range(1000, 1448)), (200, 3, 447)
    wanted = oracle.prefill(prompt, row=1, window=0, keep=keep)
    _assert_alike(make().prefill(prompt, row=1, window=0, keep=keep), wanted)


def test_a_prompt_in_one_piece_is_the_same_bits_as_token_by_token(make: Make) -> None:
    prompt = tuple(range(300, 371))
    whole = make().prefill(prompt, row=0, window=1, keep=range(71))
    inference = make()
    single = [inference.prefill(prompt[:1], row=0, window=1, keep=(0,))]
    single += [inference.step((token,), lengths=(at,), windows=(1,)) for at, token in enumerate(prompt) if at]
    assert torch.equal(whole, torch.cat(single))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_is_the_same_bits_alone_and_among_others(make: Make, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        among = make()
    finally:
        torch.set_num_threads(before)
    alone = make()
    windows = [row * 7 % 3 for row in range(14)]
    lengths = [1 + 29 * row for row in range(14)]
    for row in range(14):
        among.prefill(range(row, row + lengths[row]), row=row, window=windows[row], keep=())
    wanted = []
    for row in range(14):
        alone.prefill(range(row, row + lengths[row]), row=0, window=windows[row], keep=())
        wanted.append(alone.step((900 + row,), lengths=(lengths[row],), windows=(windows[row],)))
    for n in range(1, 15):
        got = among.step(range(900, 900 + n), lengths=lengths[:n], windows=windows[:n])
        assert torch.equal(got, torch.cat(wanted[:n]))


def test_a_short_window_is_heard_to_its_end_and_no_further(make: Make) -> None:
    ours, alone = make(), make()
    ours.fill_windows(FEATURES[1:2, :701], [1])
    alone.fill_windows(FEATURES[1:2, :701], [0])
    assert _cross_keys(ours, 1, 1).shape == (2, 701, 16)
    assert torch.equal(_cross_keys(ours, 0, 1), _cross_keys(alone, 0, 0))
    logits = ours.prefill(PROMPT, row=0, window=1, keep=(2,))
    assert torch.equal(logits, alone.prefill(PROMPT, row=0, window=0, keep=(2,)))
    assert not torch.allclose(logits, make().prefill(PROMPT, row=0, window=0, keep=(2,)))


def test_keys_of_the_audio_come_back_rounded(make: Make, oracle: PyTorchInference) -> None:
    for layer in range(DIMS.n_text_layer):
        torch.testing.assert_close(
            _cross_keys(make(), layer, 2), oracle._cache.cross(layer, 2)[0], atol=1e-6, rtol=1e-5
        )


def test_rows_exchange_their_past_as_if_all_were_read_first(make: Make) -> None:
    ours = make()
    for row, first in enumerate((10, 20, 30)):
        ours.prefill(range(first, first + 19), row=row, window=0, keep=())
    before = ours.step((5, 5, 5), lengths=(19,) * 3, windows=(0,) * 3)
    ours.copy_rows([1, 2, 0], [0, 1, 2], 19)
    assert torch.equal(ours.step((5, 5, 5), lengths=(19,) * 3, windows=(0,) * 3), before[[1, 2, 0]])


def test_rows_take_over_what_they_do_not_have_in_common(make: Make) -> None:
    ours = make()
    for row, last in enumerate((10, 20)):
        ours.prefill((*range(17), last), row=row, window=0, keep=())
    before = ours.step((5, 5), lengths=(18, 18), windows=(0, 0))
    ours._keys[:, 1, :, 0] = torch.nan
    ours._values[:, 1, :, :, :17] = torch.nan
    ours.copy_rows([1], [0], 18, start=17)
    assert torch.equal(ours.step((5,), lengths=(18,), windows=(0,)), before[1:])


def test_a_row_becomes_another_as_far_as_that_goes(make: Make) -> None:
    ours = make()
    for row, first in enumerate((10, 20, 30)):
        ours.prefill(range(first, first + 19), row=row, window=0, keep=())
    before = ours.step((5, 5, 5), lengths=(19,) * 3, windows=(0,) * 3)
    ours._keys[:, 1:].fill_(torch.nan)
    ours._values[:, 1:].fill_(torch.nan)
    ours.replace_rows(0, [2, 1], 19)
    assert torch.equal(ours.step((5, 5, 5), lengths=(19,) * 3, windows=(0,) * 3), before[[0, 0, 0]])


def test_a_row_that_held_nonsense_is_as_new(make: Make) -> None:
    ours = make()
    ours._keys.fill_(torch.nan)
    ours._values.fill_(torch.nan)
    ours.clear_row(0)
    assert torch.equal(
        ours.prefill(PROMPT, row=0, window=0, keep=(4,)), make().prefill(PROMPT, row=0, window=0, keep=(4,))
    )


def test_where_heads_look_is_what_torch_says(make: Make, oracle: PyTorchInference) -> None:
    tokens, heads = tuple(range(100, 180)), ((0, 1), (1, 0))
    wanted_logits, wanted = oracle.attention(tokens, window=2, heads=heads, keep=(5, 79))
    ours = make()
    ours.prefill(PROMPT, row=0, window=1, keep=())
    before = ours.step((3,), lengths=(5,), windows=(1,))
    logits, scores = ours.attention(tokens, window=2, heads=heads, keep=(5, 79))
    _assert_alike(logits, wanted_logits)
    torch.testing.assert_close(scores, wanted, atol=2e-3, rtol=1e-3)
    assert torch.equal(ours.step((3,), lengths=(5,), windows=(1,)), before)  # no row remembers it


@pytest.mark.parametrize(
    "call",
    [
        lambda ours: ours.step((51_865,), lengths=(0,), windows=(0,)),
        lambda ours: ours.step((-1,), lengths=(0,), windows=(0,)),
        lambda ours: ours.step((1,), lengths=(448,), windows=(0,)),
        lambda ours: ours.step((1,), lengths=(0,), windows=(3,)),
        lambda ours: ours.step((1, 2), lengths=(0,), windows=(0, 0)),
        lambda ours: ours.step(range(15), lengths=[0] * 15, windows=[0] * 15),
        lambda ours: ours.prefill(PROMPT, row=14, window=0, keep=(0,)),
        lambda ours: ours.prefill(PROMPT, row=0, window=0, keep=(5,)),
        lambda ours: ours.prefill([1] * 449, row=0, window=0, keep=(0,)),
        lambda ours: ours.attention(PROMPT, window=0, heads=((2, 0),), keep=()),
        lambda ours: ours.attention(PROMPT, window=3, heads=((0, 0),), keep=()),
        lambda ours: ours.fill_windows(torch.zeros(1, 1501, 32), [0]),
        lambda ours: ours.fill_windows(FEATURES[:1], [3]),
        lambda ours: ours.fill_windows(FEATURES[:2], [1]),
    ],
)
def test_what_lies_beyond_the_memory_is_refused(make: Make, call: Callable[[NativeInference], object]) -> None:
    with pytest.raises(ValueError, match=r"not below|differ|do not fit"):
        call(make())


def test_a_window_that_was_not_filled_is_refused(library: ctypes.CDLL) -> None:
    empty = NativeInference(NativeDecoder(MODEL.decoder, DIMS, library), n_windows=1, n_rows=1)
    with pytest.raises(ValueError, match="not filled"):
        empty.step((1,), lengths=(0,), windows=(0,))


def test_tiles_give_the_bits_that_vectors_give(compiled: Path) -> None:
    if cpu_capability() != "AVX512AMX":
        pytest.skip("this CPU has no AMX")
    logits = []
    for capability in ("AVX512AMX", "AVX512VNNI"):
        decoder = NativeDecoder(MODEL.decoder, DIMS, load_library(compiled, capability))
        inference = NativeInference(decoder, n_windows=3, n_rows=14)
        inference.fill_windows(FEATURES, [2, 0, 1])
        prompts = [inference.prefill(PROMPT * 4, row=row, window=row % 3, keep=range(20)) for row in range(14)]
        steps = inference.step(range(14), lengths=[20] * 14, windows=[row % 3 for row in range(14)])
        logits.append(torch.cat([*prompts, steps]))
    assert torch.equal(*logits)
