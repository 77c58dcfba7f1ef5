"""The kernels of `model.gpu` beside torch: on a GPU where there is one, else in Triton's interpreter.

Run by `tests.model.gpu.test_split_attention` in a process of its own, since Triton must know before it is imported.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import triton.language as tl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from model.decoding.batch import DecodingBatch
from model.decoding.inference import PyTorchInference
from model.decoding.step_check import choices_agree
from model.dims import ModelDimensions
from model.gpu import few_rows, greedy_choice
from model.gpu.shapes import AskedShape
from model.gpu.split_attention import Asked, Memory, attend, remember
from model.gpu.split_check import deviation
from model.gpu.split_step import audio_of
from model.network.audio_memory import AudioMemory
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.search.selection import Selection
from model.transcriber import Transcriber
from model.transfer import send
from model.window import DecodingResult, Window
from tests import tiny
from tests.graphs import choose_on_device

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
EXAMPLES = 5 if DEVICE.type == "cpu" else 60  # the interpreter takes a tenth of a second for one
DIMS = replace(tiny.DIMS, n_audio_ctx=150)
MODEL = Whisper.from_tensors(DIMS, tiny.tensors(DIMS), DEVICE)
KEPT = [
    (torch.float32, "int8", 1e-5),
    (torch.float16, "fp8", 4e-3),
    (torch.bfloat16, "auto", 3e-2),
]
if DEVICE.type == "cuda":  # the interpreter is slow, and cannot turn whole numbers into bfloat16
    KEPT += [
        (torch.float32, "auto", 1e-5),
        (torch.float16, "auto", 4e-3),
        (torch.float16, "int8", 4e-3),
        (torch.bfloat16, "int8", 3e-2),
    ]


@pytest.fixture(autouse=True)
def _products_of_bfloat16(monkeypatch) -> None:
    """The interpreter holds bfloat16 as whole numbers of 16 bits, and would multiply those."""
    original = InterpreterBuilder.create_dot

    def create_dot(self, a: TensorHandle, b: TensorHandle, *rest: object) -> TensorHandle:
        if a.dtype.scalar == tl.bfloat16:
            a, b = (TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32) for x in (a, b))
        return original(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def _inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _audio(kept: str, dtype: torch.dtype, slots: int, n_ctx: int, n_head: int, size: int) -> list[AudioMemory]:
    dims = ModelDimensions(80, n_ctx, 1, 1, 1, 1, 1, n_head * size, n_head, 1)
    generator = torch.Generator().manual_seed(n_ctx)
    both = [AudioMemory(dims, slots, device=DEVICE, dtype=dtype, cross_kv=kept) for _ in range(2)]
    for memory in both:
        heads = 3 * torch.randn(slots, n_head, n_ctx, size, generator=generator)
        memory.write(0, send(range(slots), DEVICE), heads.to(DEVICE, dtype))
    return both


def _asked(windows: list[int], filled: list[int], *, max_windows: int, max_rows: int) -> tuple[Asked, int]:
    """Who asks whom, in the fixed shape that a step has, and its rows."""
    shape = AskedShape.of(windows, max_windows=max_windows, max_rows=max_rows)
    table = torch.tensor(shape.table(windows, filled), device=DEVICE)
    sizes = [shape.groups, shape.groups, shape.groups * shape.width, shape.rows]
    slots, lengths, members, places = torch.split(table, sizes)
    return Asked(slots, lengths, members.view(shape.groups, shape.width), places), shape.rows


@pytest.mark.parametrize(("dtype", "kept", "atol"), KEPT)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_ctx=st.sampled_from([1, 31, 64, 100, 200]),
    size=st.sampled_from([16, 64]),
    windows=st.lists(st.integers(0, 4), min_size=1, max_size=7),
    processors=st.sampled_from([1, 5, 132]),
    data=st.data(),
)
def test_any_rows_of_any_windows_get_what_torch_gives_them(
    dtype, kept, atol, n_ctx, size, windows, processors, data
) -> None:
    filled = data.draw(st.lists(st.integers(1, n_ctx), min_size=5, max_size=5))
    keys, values = _audio(kept, dtype, 5, n_ctx, 2, size)
    asked, rows = _asked(windows, filled, max_windows=5, max_rows=12)
    query = torch.randn(rows, 2 * size, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    ours = attend(query, audio_of(keys, values, 0), asked, processors=processors)
    for row, window in enumerate(windows):
        n = filled[window]
        theirs = F.scaled_dot_product_attention(
            query[row].view(2, 1, size), keys.read(0, window, n), values.read(0, window, n)
        )
        torch.testing.assert_close(ours[row], theirs.flatten(), atol=4 * atol, rtol=atol)
    assert not ours[len(windows) :].any(), "padding asks nobody"


@pytest.mark.parametrize(("dtype", "kept", "atol"), KEPT)
def test_a_whole_window_in_any_number_of_parts(dtype, kept, atol) -> None:
    keys, values = _audio(kept, dtype, 2, 1500, 1, 64)
    asked, rows = _asked([1], [1500, 1500], max_windows=2, max_rows=4)
    query = torch.randn(rows, 64, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype)
    theirs = F.scaled_dot_product_attention(query.view(1, 1, 64), keys.read(0, 1), values.read(0, 1)).flatten(1)
    for processors in (1, 132):
        ours = attend(query, audio_of(keys, values, 0), asked, processors=processors)
        torch.testing.assert_close(ours, theirs, atol=4 * atol, rtol=atol)


def test_a_slot_beyond_what_32_bits_can_count_is_read_and_written_where_it_lies() -> None:
    """A pool of a large model has as many numbers a layer; on a CPU what nobody writes takes no memory."""
    slots, n_ctx, size = 22_500, 1500, 64
    assert (slots - 1) * n_ctx * size > 2**31
    dims = ModelDimensions(80, n_ctx, 1, 1, 1, 1, 1, size, 1, 1)
    keys, values = (AudioMemory(dims, slots, device=DEVICE, dtype=torch.float16, cross_kv="int8") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for memory in (keys, values):
        heads = torch.randn(1, 1, n_ctx, size, generator=generator).to(DEVICE, torch.float16)
        memory.write(0, send([slots - 1], DEVICE), heads)
    asked, _ = _asked([slots - 1], [n_ctx] * slots, max_windows=slots, max_rows=1)
    query = torch.randn(1, size, generator=generator).to(DEVICE, torch.float16)
    theirs = F.scaled_dot_product_attention(
        query.view(1, 1, size), keys.read(0, slots - 1), values.read(0, slots - 1)
    ).flatten(1)
    ours = attend(query, audio_of(keys, values, 0), asked, processors=132)
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=4e-3)
    assert ours.any()
    text = Memory(keys.data[0], values.data[0])
    row = torch.arange(size, device=DEVICE).to(torch.int8)[None]
    remember(row, row + 1, text, send([slots - 1], DEVICE), send([7], DEVICE))
    assert torch.equal(keys.data[0, slots - 1, 0, 7], row[0])
    assert torch.equal(values.data[0, slots - 1, 0, 7], row[0] + 1)


def test_nothing_that_is_not_asked_is_looked_at() -> None:
    keys = torch.full((3, 2, 70, 16), torch.nan, device=DEVICE)
    values = keys.clone()
    keys[1, :, :40], values[1, :, :40] = 0.5, 2.0
    asked, rows = _asked([1, 1], [70, 40, 70], max_windows=3, max_rows=4)
    ours = attend(torch.ones(rows, 32, device=DEVICE), Memory(keys, values), asked, processors=4)
    torch.testing.assert_close(ours[:2], torch.full_like(ours[:2], 2.0))
    assert not ours[2:].any()


def test_scores_far_apart_do_not_overflow() -> None:
    keys, values = torch.zeros(1, 1, 100, 16, device=DEVICE), torch.zeros(1, 1, 100, 16, device=DEVICE)
    keys[0, 0, 70], values[0, 0, 70] = 3e3, 1.0
    keys[0, 0, 3] = -3e3
    asked, _ = _asked([0], [100], max_windows=1, max_rows=1)
    ours = attend(torch.ones(1, 16, device=DEVICE), Memory(keys, values), asked, processors=9)
    torch.testing.assert_close(ours, torch.ones_like(ours))


@pytest.mark.parametrize(("dtype", "kept", "atol"), KEPT)
def test_the_question_asked_at_the_start_is_answered_right(dtype, kept, atol) -> None:
    assert deviation(DEVICE, dtype, kept, size=64) < max(2e-2, atol)


def _pair(monkeypatch: pytest.MonkeyPatch, kept: str = "auto") -> tuple[PyTorchInference, PyTorchInference]:
    """The same memory twice: read by torch, and by the kernel."""
    monkeypatch.setattr(MODEL, "cross_kv", kept)
    both = []
    for attention in ("torch", "triton"):
        monkeypatch.setattr(MODEL, "cross_attention", attention)
        both.append(PyTorchInference(MODEL, n_windows=6, n_rows=9))
    features = torch.randn(6, 150, DIMS.n_audio_state, generator=torch.Generator().manual_seed(3)).to(DEVICE)
    for inference in both:
        inference.fill_windows(features, range(6))
        inference.fill_windows(features[:1, :70], [2])  # a short one
    return both[0], both[1]


def test_steps_give_what_torchs_steps_give(monkeypatch) -> None:
    torchs, split = _pair(monkeypatch, "int8")
    draw = random.Random(0)
    for windows in ([5, 0, 2], [4, 4, 1, 4]):
        lengths = [draw.choice([0, 1, 31, 32, 50]) for _ in windows]
        for inference in (torchs, split):
            for row in range(9):
                for memory in (inference._cache.keys, inference._cache.values):
                    memory[:, row] = torch.randn(memory[:, row].shape, generator=torch.Generator().manual_seed(row))
                    memory[:, row, :, lengths[row] + 1 if row < len(windows) else 0 :] = 0.0
        step = {"lengths": lengths, "windows": windows}
        tokens = [draw.randrange(50_000) for _ in windows]
        torch.testing.assert_close(split.step(tokens, **step), torchs.step(tokens, **step), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize(
    ("size", "width", "normed", "gelu", "added"),
    [
        (32, 96, True, False, False),
        (48, 40, True, True, False),
        (320, 32, False, False, True),
        (512, 16, True, False, True),
    ],
)
def test_a_product_with_what_stands_around_it_gives_what_torch_gives(rows, size, width, normed, gelu, added) -> None:
    generator = torch.Generator().manual_seed(rows)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x = (5.0 + 3.0 * draw(rows, size + 16)).half()[:, :size]  # a part of something wider, far from 0
    linear, norm = torch.nn.Linear(size, width).half(), torch.nn.LayerNorm(size).half()
    linear.weight.data, linear.bias.data = (size**-0.5 * draw(width, size)).half(), draw(width).half()
    norm.weight.data, norm.bias.data = (1.0 + 0.3 * draw(size)).half(), draw(size).half()
    onto = draw(rows, width).half() if added else None
    wanted = x.float()
    if normed:
        wanted = F.layer_norm(wanted, (size,), norm.weight.float(), norm.bias.float())
    wanted = F.linear(wanted, linear.weight.float(), linear.bias.float())
    wanted = F.gelu(wanted) if gelu else wanted
    wanted = wanted if onto is None else wanted + onto.float()
    ours = few_rows.project(
        x.to(DEVICE), linear.to(DEVICE), norm=norm.to(DEVICE) if normed else None, gelu=gelu,
        onto=None if onto is None else onto.to(DEVICE),
    )  # fmt: skip
    torch.testing.assert_close(ours.cpu().float(), wanted, atol=2e-2, rtol=4e-3)


def test_steps_of_few_rows_give_what_torchs_operators_give(monkeypatch) -> None:
    taken = []
    hidden_states = few_rows.hidden_states
    monkeypatch.setattr(few_rows, "hidden_states", lambda *a: (taken.append(len(a[1])), hidden_states(*a))[1])
    rounded = {name: tensor.half() for name, tensor in tiny.tensors(DIMS).items()}
    features = torch.randn(3, 150, DIMS.n_audio_state, generator=torch.Generator().manual_seed(3)).half()
    answers = []
    for dtype, attention in ((torch.float32, "torch"), (torch.float16, "triton")):
        model = Whisper.from_tensors(DIMS, rounded, DEVICE, dtype)
        model.fuses_steps = True
        inference = PyTorchInference(model, n_windows=3, n_rows=20, cross_attention=attention)
        inference.fill_windows(features.to(DEVICE, dtype), range(3))
        prompts = [(50_258, 7, 9, 11), (50_258, 8, 9, 11)]
        said = [inference.prefill_many(prompts, row=0, windows=[2, 0], keep=[(0, 3)] * 2).flatten(0, 1)]
        said += [inference.step([13, 14], lengths=[length] * 2, windows=[2, 0]) for length in (4, 5)]
        said.append(inference.step([15] * 17, lengths=[6, 6, *[0] * 15], windows=[2, 0, *[1] * 15]))
        answers.append(torch.cat(said).cpu())
    assert taken == [8, 2, 2], "not the step of 24 rows"
    assert float((answers[1] - answers[0]).abs().max()) < 0.05 * float(answers[0].std())


def test_the_most_probable_token_is_the_one_that_torch_chooses(monkeypatch) -> None:
    """Rows of every kind, through all states of the grammar, padding among them."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(greedy_choice, "_BLOCK", 16384)  # as few programs as show how they are joined
    tokenizer, n_vocab = Transcriber(MODEL, "tiny-random").tokenizer, DIMS.n_vocab
    rules = Rules(DIMS, tokenizer, DEVICE)
    every = [
        TranscribeOptions(),
        TranscribeOptions(without_timestamps=True),
        TranscribeOptions(max_initial_timestamp=None, suppress_tokens=()),
        TranscribeOptions(),
    ]
    suppressed = [rules.suppressed(options) for options in every[:3]] + [tuple(range(n_vocab))]  # nothing is left
    both = [Selection(DIMS, tokenizer, rules, n_rows=8, device=DEVICE) for _ in range(2)]
    for home in range(8):
        kind = 0 if home > 3 else home
        for selection in both:
            first_to = rules.first_time_to(every[kind])
            selection.begin(home, suppressed[kind], temperature=0.0, seed=None, first_to=first_to)
    draw = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    homes, times = [5, 0, 1, 2, 3, 4, 8, 8], 0
    for count in range(12):
        logits = 3 * torch.randn(len(homes), n_vocab, generator=generator)
        for row in logits:  # now text, now timestamps, single ones or all together, now equal ones
            row[tokenizer.timestamp_begin :] += draw.choice([-9.0, 0.0, 3.0, 9.0])
            row[draw.sample(range(1000, 50_000), 2)] = draw.choice([0.0, 20.0])
            row[tokenizer.timestamp_begin + draw.randrange(1500)] += draw.choice([0.0, 20.0])
        counts = [count] * 6 + [0, 0]
        asked = both[0].rows(homes, counts)
        theirs = both[0].choose(logits.to(DEVICE), asked, drawing=False)[:, :6].cpu()
        ours = greedy_choice.choose(both[1], logits.to(DEVICE), asked)[:, :6].cpu()
        assert ours[0].tolist() == theirs[0].tolist()
        torch.testing.assert_close(ours[1], theirs[1], atol=1e-4, rtol=1e-5, equal_nan=True)
        for one, other in zip(*((x.tables.said[:8], x.tables.last_times[:8]) for x in both), strict=True):
            assert torch.equal(one, other)
        times += int((theirs[0] >= tokenizer.timestamp_begin).sum())
    assert 15 < times < 60
    assert choices_agree(DIMS, tokenizer, DEVICE, in_triton=True)
    monkeypatch.setattr(greedy_choice, "choose", lambda selection, x, p: selection.choose(-x, p, drawing=False))
    assert not choices_agree(DIMS, tokenizer, DEVICE, in_triton=True)


def test_short_prompts_are_steps_of_their_tokens_and_give_what_torchs_prompts_give(monkeypatch) -> None:
    torchs, split = _pair(monkeypatch)
    shapes = []
    replay = split._graphs._replay
    monkeypatch.setattr(split._graphs, "_replay", lambda key, run: (shapes.append(key[0]), replay(key, run))[1])
    for prompts, windows, row in (
        ([(50_258, 7, 9), (50_258, 8, 9)], [5, 2], 3),
        ([(50_258,), (50_258,)], [0, 2], 5),
        ([(1, 2, 3, 4)] * 3, [0, 1, 3], 0),  # more tokens than there are rows
    ):
        keep = [(0, len(prompts[0]) - 1)] * len(prompts)
        ours, theirs = (x.prefill_many(prompts, row=row, windows=windows, keep=keep) for x in (split, torchs))
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    assert shapes == [AskedShape(8, 2, 4), AskedShape(2, 2, 1)]
    torch.testing.assert_close(split._cache.keys[:, 3:5, :, :3], torchs._cache.keys[:, 3:5, :, :3], atol=1e-4, rtol=0)
    step = {"lengths": [4, 4, 4, 3, 3], "windows": [0, 1, 3, 5, 2]}
    torch.testing.assert_close(split.step([7] * 5, **step), torchs.step([7] * 5, **step), atol=2e-4, rtol=1e-4)


def test_a_batch_of_greedy_rows_and_beams_says_the_same(monkeypatch) -> None:
    options = [
        TranscribeOptions(language="en", temperature=(0.0,), sample_len=2),
        TranscribeOptions(language="fr", temperature=(0.0,), sample_len=3, beam_size=2),
    ]

    def decode_all() -> list[DecodingResult]:
        mel = torch.randn(len(options), 80, 300, generator=torch.Generator().manual_seed(7))
        tokenizer = Transcriber(MODEL, "tiny-random").tokenizer
        batch = DecodingBatch(MODEL, tokenizer, max_windows=2, max_rows=3)
        slots = batch.encode(mel)
        for i, (slot, one) in enumerate(zip(slots, options, strict=True)):
            batch.start(slot, Window(i, 0, 3000, one.language, ()), one)
        results = {}
        while len(results) < len(options):
            results |= dict(batch.step())
        return [results[slot] for slot in slots]

    wanted = decode_all()
    monkeypatch.setattr(MODEL, "cross_attention", "triton")
    assert [one.tokens for one in decode_all()] == [one.tokens for one in wanted]
    choose_on_device(monkeypatch, ahead=True)
    monkeypatch.setattr(MODEL, "fuses_steps", True)
    assert [one.tokens for one in decode_all()] == [one.tokens for one in wanted]
