"""The most probable token that the rules admit, for every row of a step: `Selection.choose` without draws, in Triton.

Used by `model.gpu.split_step`. In torch's operators the choice is some fifty kernels, which a small model's step feels
more than all of its layers, and a dozen passes over the logits. Here it is one pass in blocks, whose largest numbers
and sums of shares a second kernel joins: of text and of timestamps apart, for which of them is due depends on both.

Importable only where Triton is. **Never run on a GPU so far.**
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.search.selection import Selection

_BLOCK = 2048
"""Tokens that a program looks at."""
_LEAST = tl.constexpr(1e-37)
"""Of a sum whose logarithm is taken."""


def choose(selection: Selection, logits: Tensor, rows: Tensor) -> Tensor:
    """See `Selection.choose`; no row draws."""
    tables = selection.tables
    n_rows, n_vocab = logits.shape
    blocks = triton.cdiv(n_vocab, _BLOCK)
    found = logits.new_empty(4, n_rows, blocks)
    places = torch.empty(2, n_rows, blocks, dtype=torch.int32, device=logits.device)
    chosen = logits.new_empty(2, n_rows)
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _survey[(n_rows, blocks)](
            logits, rows, tables.said, tables.last_times, tables.settings, tables.suppressed, found, places, n_rows,
            tables.said.stride(0), tables.last_times.stride(0), tables.settings.stride(0), n_vocab,
            tables.timestamp_begin, tables.eot, BLOCK=_BLOCK,
        )  # fmt: skip
        _settle[(n_rows,)](
            rows, tables.said, tables.last_times, tables.settings, found, places, chosen, n_rows, blocks,
            tables.said.stride(0), tables.last_times.stride(0), tables.settings.stride(0),
            tables.timestamp_begin, BLOCKS=triton.next_power_of_2(blocks),
        )  # fmt: skip
    return chosen


@triton.jit(do_not_specialize=["n_rows", "begin", "eot"])
def _survey(
    logits, rows, said, last_times, settings, suppressed, found, places, n_rows,
    said_stride, times_stride, settings_stride, n_vocab, begin, eot, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of a row's tokens: of text and of timestamps the largest number, its token, and the sum of shares."""
    row, block, blocks = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    home, count = tl.load(rows + row), tl.load(rows + n_rows + row)
    before = tl.load(said + home * said_stride + count)
    last = tl.load(said + home * said_stride + count + 1)
    last_time = tl.load(last_times + home * times_stride + count)
    timed = tl.load(settings + home * settings_stride + 1) > 0
    first_to = tl.load(settings + home * settings_stride + 2).to(tl.int64)
    nothing, is_time = last < 0, last >= begin
    closed = is_time & ((before < 0) | (before >= begin))
    opens_pair = is_time & (closed == 0)
    text_from = tl.where(nothing, begin, tl.where(opens_pair, eot, 0))
    time_from = tl.where(last_time < 0, begin, tl.where(opens_pair, last_time, last_time + 1))
    time_from = tl.where(closed, n_vocab, time_from)
    time_to = tl.where(nothing, first_to, n_vocab)
    text_from, time_from = tl.where(timed, text_from, 0), tl.where(timed, time_from, begin)
    time_to = tl.where(timed, time_to, n_vocab)

    token = block * BLOCK + tl.arange(0, BLOCK)
    there = token < n_vocab
    number = tl.load(logits + row * n_vocab + token, mask=there, other=float("-inf"))
    number = tl.where(tl.load(suppressed + home * n_vocab + token, mask=there, other=0) != 0, float("-inf"), number)
    is_text = token < begin
    is_out = tl.where(is_text, token < text_from, (token < time_from) | (token >= time_to))
    number = tl.where(is_out, float("-inf"), number)
    text = tl.where(is_text, number, float("-inf"))
    times = tl.where(is_text, float("-inf"), number)
    text_top, times_top = tl.max(text, 0), tl.max(times, 0)
    at, plane = row * blocks + block, n_rows * blocks
    tl.store(found + at, text_top)
    tl.store(found + plane + at, times_top)
    # Where nothing is admitted the largest is -inf, and must not become no number.
    tl.store(found + 2 * plane + at, tl.sum(tl.exp(text - tl.maximum(text_top, -1e30)), 0))
    tl.store(found + 3 * plane + at, tl.sum(tl.exp(times - tl.maximum(times_top, -1e30)), 0))
    tl.store(places + at, block * BLOCK + tl.argmax(text, 0))
    tl.store(places + plane + at, block * BLOCK + tl.argmax(times, 0))


@triton.jit(do_not_specialize=["n_rows", "begin", "n_blocks"])
def _settle(
    rows, said, last_times, settings, found, places, chosen, n_rows, n_blocks,
    said_stride, times_stride, settings_stride, begin, BLOCKS: tl.constexpr,
):  # fmt: skip
    """What a row says, from all of its blocks; it is noted."""
    row = tl.program_id(0)
    home, count = tl.load(rows + row), tl.load(rows + n_rows + row)
    block, plane = tl.arange(0, BLOCKS), n_rows * n_blocks
    there = block < n_blocks
    at = row * n_blocks + block
    text = tl.load(found + at, mask=there, other=float("-inf"))
    times = tl.load(found + plane + at, mask=there, other=float("-inf"))
    text_top, times_top = tl.max(text, 0), tl.max(times, 0)
    text_shares = tl.load(found + 2 * plane + at, mask=there, other=0.0)
    times_shares = tl.load(found + 3 * plane + at, mask=there, other=0.0)
    text_sum = tl.sum(text_shares * tl.exp(text - tl.maximum(text_top, -1e30)), 0)
    times_sum = tl.sum(times_shares * tl.exp(times - tl.maximum(times_top, -1e30)), 0)
    text_token = tl.load(places + row * n_blocks + tl.argmax(text, 0))
    times_token = tl.load(places + plane + row * n_blocks + tl.argmax(times, 0))
    timed = tl.load(settings + home * settings_stride + 1) > 0
    # A timestamp is due when all of them together outweigh every single text token.
    is_due = timed & (times_top + tl.log(tl.maximum(times_sum, _LEAST)) > text_top)
    is_text = (is_due == 0) & (text_top >= times_top)
    token = tl.where(is_text, text_token, times_token).to(tl.int64)
    top = tl.where(is_text, text_top, times_top)
    largest = tl.maximum(top, -1e30)
    shares = tl.where(is_due, 0.0, text_sum * tl.exp(text_top - largest)) + times_sum * tl.exp(times_top - largest)
    last_time = tl.load(last_times + home * times_stride + count)
    tl.store(said + home * said_stride + count + 2, token)
    tl.store(last_times + home * times_stride + count + 1, tl.where(token >= begin, token, last_time))
    tl.store(chosen + row, token.to(tl.float32))
    logprob = top - largest - tl.log(tl.maximum(shares, _LEAST))
    tl.store(chosen + n_rows + row, tl.where(shares > 0, logprob, float("nan")))
