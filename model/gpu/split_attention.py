"""Attention of single tokens to memory that lies in slots, cut along its positions: a kernel in Triton for a GPU.

Used by `model.gpu.split_step` for a decode step. A token asks one window of audio: 1500 positions that are read once,
so the time is that of reading, and one row's 20 heads would keep 20 of a large card's 132 processors busy. Here each
**group** (a window and the rows that ask it: beams, samples) is cut into parts, one program for each group, head and
part, and a second kernel joins what the parts found ("flash decoding").

- Memory is read where it lies, by slot: nothing is gathered, nothing that nobody asks is read, and once for all rows of
  a group.
- It may be 16 or 32 bits, int8 with a scale for each position and head, or fp8; it is made whole in registers.
- Only the first `lengths` positions of a slot are read: what lies behind them may be rubbish.
- All shapes are the caller's, none depends on data, so that it can be captured. A group without a window does nothing;
  a row without a place gets zeros.

Importable only where Triton is. Sources: "Online normalizer calculation for softmax" (Milakov and Gimelshein, 2018),
"Flash-Decoding for long-context inference" (Dao and others, 2023), which are the idea and not the code.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = 1.4426950408889634
_BLOCK_BYTES = 128
"""Bytes that a block of positions has in each of a head's numbers: 64 positions of 16 bits."""
_PROGRAMS_EACH = 4
"""Programs for each processor of the card that a step is cut into at least, where it can be."""
_LEAST_WIDTH = 16
"""Rows of the smallest product that the card's matrix units have."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows ask which slots; whole numbers on the device of the memory."""

    slots: Tensor
    """(groups,): the slot of each group, -1 where it is padding."""
    lengths: Tensor
    """(groups,): positions of the slot that count."""
    members: Tensor
    """(groups, width): the rows of each group, -1 where there are fewer."""
    places: Tensor
    """(rows,): where each row stands in `members`, flat; -1 for one that asks nobody."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Keys and values of a layer, (slots, n_head, positions, head), and of int8 their scales without the last one."""

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


def parts_of(programs: int, blocks: int, processors: int) -> int:
    """Parts, none empty, into which so many blocks of positions are cut where there are so many groups times heads."""
    wanted = -(-_PROGRAMS_EACH * processors // programs)
    blocks_each = -(-blocks // min(blocks, wanted))
    return -(-blocks // blocks_each)


def attend(query: Tensor, memory: Memory, asked: Asked, *, processors: int) -> Tensor:
    """Queries (rows, n_head * head) to the memory that each row asks -> the same shape.

    `processors`: of the card; how a step is cut follows from it.
    """
    # Triton launches on the current card, whose memory it takes this to be.
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        return _attend(query, memory, asked, processors)


def _attend(query: Tensor, memory: Memory, asked: Asked, processors: int) -> Tensor:
    rows, n_head, size = query.shape[0], memory.keys.shape[1], memory.keys.shape[3]
    groups, width = asked.members.shape
    block = _BLOCK_BYTES // memory.keys.element_size()
    blocks = triton.cdiv(memory.keys.shape[2], block)
    parts = parts_of(groups * n_head, blocks, processors)
    answer = torch.empty(rows, n_head * size, device=query.device, dtype=query.dtype)
    is_whole = parts == 1 and width == 1 and groups == rows
    found = answer if is_whole else query.new_empty(groups * width, n_head, parts, size, dtype=torch.float32)
    sums = query.new_empty(2, groups * width, n_head, parts, dtype=torch.float32)
    _attend_part[(groups, n_head, parts)](
        query, memory.keys, memory.values, memory.key_scales, memory.value_scales,
        asked.slots, asked.lengths, asked.members, found, sums[0], sums[1],
        size**-0.5 * _LOG2_E, triton.cdiv(blocks, parts) * block,
        query.stride(0), memory.keys.stride(0), memory.keys.stride(1), memory.keys.shape[2], width,
        WIDTH=max(_LEAST_WIDTH, triton.next_power_of_2(width)), SIZE=size, BLOCK=block,
        SCALED=memory.key_scales is not None, WHOLE=is_whole,
    )  # fmt: skip
    if is_whole:
        return answer
    most = triton.next_power_of_2(blocks)  # not of these parts: one kernel for any number of them
    _join_parts[(rows, n_head)](found, sums[0], sums[1], asked.places, answer, parts, PARTS=most, SIZE=size)
    return answer


@triton.jit(
    do_not_specialize=["width", "n_ctx"],  # one kernel for texts and for audio
    do_not_specialize_on_alignment=["slots", "lengths", "members", "tops", "sums"],
)
def _attend_part(
    query, keys, values, key_scales, value_scales, slots, lengths, members, found, tops, sums,
    scale, positions_each, query_stride, slot_stride, head_stride, n_ctx, width,
    WIDTH: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A part of one head of one group: its rows' answers, their largest score and the sum of their weights.

    `WHOLE`: each group is the row of its own number, and the part is all of it; `found` is then the answer itself.
    """
    group, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + group).to(tl.int64)
    within = tl.arange(0, SIZE)
    if slot < 0:
        if WHOLE:
            nothing = tl.zeros([SIZE], found.dtype.element_ty)
            tl.store(found + (group * tl.num_programs(1) + head) * SIZE + within, nothing)
        return
    place = tl.arange(0, WIDTH)
    row = tl.load(members + group * width + place, mask=place < width, other=-1)
    q = tl.load(
        query + row[:, None] * query_stride + (head * SIZE + within)[None, :], mask=row[:, None] >= 0, other=0.0
    )
    memory = slot * slot_stride + head * head_stride
    scales = (slot * tl.num_programs(1) + head) * n_ctx
    top = tl.full([WIDTH], float("-inf"), tl.float32)
    total = tl.zeros([WIDTH], tl.float32)
    answer = tl.zeros([WIDTH, SIZE], tl.float32)
    end = tl.minimum((part + 1) * positions_each, tl.load(lengths + group).to(tl.int32))
    for at in range(part * positions_each, end, BLOCK):
        top, total, answer = _look_at(
            q, keys + memory, values + memory, key_scales, value_scales, scales, at, end, scale, top, total, answer,
            SIZE=SIZE, BLOCK=BLOCK, SCALED=SCALED,
        )  # fmt: skip
    if WHOLE:
        answer = answer / tl.where(total > 0, total, 1.0)[:, None]
        target = (row * tl.num_programs(1) + head)[:, None] * SIZE + within[None, :]
        tl.store(found + target, answer.to(found.dtype.element_ty), mask=row[:, None] >= 0)
    else:
        target = ((group * width + place) * tl.num_programs(1) + head) * tl.num_programs(2) + part
        tl.store(found + target[:, None] * SIZE + within[None, :], answer, mask=row[:, None] >= 0)
        tl.store(tops + target, top, mask=row >= 0)
        tl.store(sums + target, total, mask=row >= 0)


@triton.jit
def _look_at(
    q, keys, values, key_scales, value_scales, scales, at, end, scale, top, total, answer,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """The largest score, the sum of weights and the answers with a block of positions more."""
    within = tl.arange(0, SIZE)
    position = at + tl.arange(0, BLOCK)
    counts = position < end
    k = tl.load(keys + position[None, :] * SIZE + within[:, None], mask=counts[None, :], other=0.0)
    scores = tl.dot(q, k.to(q.dtype), input_precision="ieee") * scale
    if SCALED:
        scores *= tl.load(key_scales + scales + position, mask=counts, other=0.0).to(tl.float32)[None, :]
    scores = tl.where(counts[None, :], scores, float("-inf"))
    larger = tl.maximum(top, tl.max(scores, 1))
    shrink = tl.exp2(top - larger)
    weights = tl.exp2(scores - larger[:, None])
    total = total * shrink + tl.sum(weights, 1)
    if SCALED:
        weights *= tl.load(value_scales + scales + position, mask=counts, other=0.0).to(tl.float32)[None, :]
    v = tl.load(values + position[:, None] * SIZE + within[None, :], mask=counts[:, None], other=0.0)
    product = tl.dot(weights.to(q.dtype), v.to(q.dtype), input_precision="ieee")
    return larger, total, answer * shrink[:, None] + product


def remember(key: Tensor, value: Tensor, memory: Memory, slots: Tensor, positions: Tensor) -> None:
    """Write keys and values (rows, n_head * head) into their slots (rows,), each at its position (rows,).

    They may be parts of a wider tensor, of one and the same.
    """
    n_head, size = memory.keys.shape[1], memory.keys.shape[3]
    with torch.cuda.device_of(key):  # type: ignore[no-untyped-call]
        _remember[(key.shape[0], n_head)](
            key, value, memory.keys, memory.values, slots, positions,
            key.stride(0), memory.keys.stride(0), memory.keys.stride(1), SIZE=size,
        )  # fmt: skip


@triton.jit(do_not_specialize_on_alignment=["slots", "positions"])
def _remember(
    key, value, keys, values, slots, positions, stride, slot_stride, head_stride, SIZE: tl.constexpr
):  # fmt: skip
    """One head of one row."""
    row, head = tl.program_id(0), tl.program_id(1)
    within = tl.arange(0, SIZE)
    source = row * stride + head * SIZE + within
    target = tl.load(slots + row).to(tl.int64) * slot_stride + head * head_stride
    target += tl.load(positions + row) * SIZE + within
    tl.store(keys + target, tl.load(key + source))
    tl.store(values + target, tl.load(value + source))


@triton.jit(do_not_specialize=["n_parts"], do_not_specialize_on_alignment=["places", "tops", "sums"])
def _join_parts(found, tops, sums, places, answer, n_parts, PARTS: tl.constexpr, SIZE: tl.constexpr):
    """One head of one row: its parts' answers, weighted by what each has seen; zeros where it asked nobody."""
    row, head = tl.program_id(0), tl.program_id(1)
    place = tl.load(places + row).to(tl.int32)
    within = tl.arange(0, SIZE)
    part = tl.arange(0, PARTS)
    there = (part < n_parts) & (place >= 0)
    source = (place * tl.num_programs(1) + head) * n_parts + part
    top = tl.load(tops + source, mask=there, other=float("-inf"))
    largest = tl.maximum(tl.max(top, 0), -1e30)  # nothing but -inf must not become no number
    weight = tl.exp2(top - largest)
    total = tl.sum(weight * tl.load(sums + source, mask=there, other=0.0), 0)
    parts = tl.load(found + source[:, None] * SIZE + within[None, :], mask=there[:, None], other=0.0)
    joined = tl.sum(parts * weight[:, None], 0) / tl.where(total > 0, total, 1.0)
    tl.store(answer + (row * tl.num_programs(1) + head) * SIZE + within, joined.to(answer.dtype.element_ty))
