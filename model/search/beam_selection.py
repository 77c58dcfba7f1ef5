"""The survivors of beam searches, chosen where the logits are: what `model.search.beam` decides, in tensors.

Used by `model.decoding.device_choice`. Each beam brings its `width + 1` best tokens. Of all those of a window, best
first and equals in their order, the first `width` that do not end the text live on, as in `BeamSearch.extend`; each
row of the window takes over the past of its survivor. Which texts are finished, and when a window has enough of them,
that function says on the host, which gets the same numbers later and comes to the same survivors.

Beams that have said nothing are one and the same: the first speaks for all.
"""

import torch
from torch import Tensor

from model.search.selection import Selection


def extend(selection: Selection, logits: Tensor, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Let the beams of some windows go on, from logits (rows, n_vocab): those of a window are `width` rows on end.

    `rows`: see `Selection.choose`. (2, rows, width + 1) float32: the best tokens of each beam, and the log-probability
    of its whole text with each; and (rows,): the row, among these, whose past each row takes over. That is noted in
    the tables; the memory of the decoder is the caller's.
    """
    tables = selection.tables
    homes, counts = rows
    best = selection.masked(logits, rows).log_softmax(-1).topk(width + 1)
    sums = tables.sums[homes][:, None] + best.values
    beam = torch.arange(len(homes), device=logits.device) % width
    silent = ((counts == 0) & (beam > 0))[:, None]
    # From here on a window's candidates are one line: those of its first beam, then of its second.
    candidates = sums.masked_fill(silent, -torch.inf).view(-1, width * (width + 1))
    tokens = best.indices.view_as(candidates)
    order = candidates.sort(descending=True, stable=True).indices
    living = _first(tokens.gather(1, order) != tables.eot, width)
    chosen = order.gather(1, living)
    first_row = torch.arange(len(candidates), device=logits.device)[:, None] * width
    sources = (first_row + chosen // (width + 1)).flatten()
    _note(selection, rows, sources, tokens.gather(1, chosen).flatten(), candidates.gather(1, chosen).flatten())
    return torch.stack((best.indices.float(), sums)), sources


def _first(true: Tensor, count: int) -> Tensor:
    """Places (lines, count) of the first true ones of each line, of which there are as many."""
    size = true.shape[1]
    places = torch.arange(size, device=true.device).expand_as(true).masked_fill(~true, size)
    return places.sort().values[:, :count]


def _note(selection: Selection, rows: Tensor, sources: Tensor, tokens: Tensor, sums: Tensor) -> None:
    """Rows take over what their sources have said, and say one more; all are read before any is written."""
    tables = selection.tables
    homes, counts = rows
    said, times = tables.said[homes[sources]], tables.last_times[homes[sources]]
    said.scatter_(1, counts[:, None] + 2, tokens[:, None])
    last = times.gather(1, counts[:, None])[:, 0]
    times.scatter_(1, counts[:, None] + 1, torch.where(tokens >= tables.timestamp_begin, tokens, last)[:, None])
    tables.said[homes], tables.last_times[homes], tables.sums[homes] = said, times, sums
