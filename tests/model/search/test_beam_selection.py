"""Beams that survive on a device beside those that `BeamSearch` lets live: any logits, equal ones among them."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.options import TranscribeOptions
from model.search.beam import BeamSearch
from model.search.beam_selection import extend
from model.search.rules import Rules
from model.search.selection import Selection
from tests import tiny

TINY = tiny.transcriber()
CPU = torch.device("cpu")
RULES = Rules(TINY.dims, TINY.tokenizer, CPU)
BEGIN, EOT, END = TINY.tokenizer.timestamp_begin, TINY.tokenizer.eot, TINY.dims.n_vocab
OPTIONS = [TranscribeOptions(), TranscribeOptions(without_timestamps=True)]


class _Beams:
    """One window on the host: what each beam has said, and its sum."""

    def __init__(self, width: int, options: TranscribeOptions) -> None:
        self.search = BeamSearch(width, 100.0, EOT)
        self.grammars = [RULES.grammar(options) for _ in range(width)]
        self.texts: list[list[int]] = [[] for _ in range(width)]
        self.sums = [0.0] * width
        self.options = options

    def masked(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        RULES.suppress(logits, [RULES.suppressed(self.options)])
        RULES.constrain(logits, [grammar.limits() for grammar in self.grammars])
        return logits

    def extend(self, logits: torch.Tensor) -> None:
        """As `HostChoice` does."""
        best = self.masked(logits).log_softmax(-1).topk(len(self.sums) + 1)
        totals = torch.tensor(self.sums)[:, None] + best.values
        self.take(best.indices.tolist(), totals.tolist())

    def take(self, tokens: list[list[int]], totals: list[list[float]]) -> None:
        extensions = self.search.extend(self.texts, tokens, totals)
        self.texts = [[*self.texts[e.source], e.token] for e in extensions]
        self.sums = [e.sum_logprob for e in extensions]
        self.grammars = [RULES.grammar(self.options) for _ in extensions]
        for grammar, text in zip(self.grammars, self.texts, strict=True):
            for token in text:
                grammar.push(token)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 5),
    kinds=st.lists(st.integers(0, 1), min_size=1, max_size=3),
    ends=st.lists(st.floats(-5, 12), min_size=1, max_size=6),
    coarse=st.booleans(),
    early=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(width=3, kinds=[0, 1], ends=[9.0] * 5, coarse=True, early=False, seed=0)
def test_any_course_leads_to_the_beams_that_the_host_lets_live(width, kinds, ends, coarse, early, seed) -> None:
    windows = [_Beams(width, OPTIONS[kind]) for kind in kinds]
    later = [_Beams(width, OPTIONS[kind]) for kind in kinds]
    n = width * len(windows)
    selection = Selection(TINY.dims, TINY.tokenizer, RULES, n_rows=n, device=CPU)
    homes = list(reversed(range(n)))
    for i, home in enumerate(homes):
        options = OPTIONS[kinds[i // width]]
        first_to = RULES.first_time_to(options)
        selection.begin(home, RULES.suppressed(options), temperature=0.0, seed=None, first_to=first_to)
    generator = torch.Generator().manual_seed(seed)
    for step, end in enumerate(ends):
        logits = 3.0 * torch.randn(n, END, generator=generator)
        logits = logits.round() if coarse else logits  # many are equal then
        logits[:, BEGIN] += 20.0 * early  # <|0.00|> then
        logits[:, EOT] = logits.amax(-1) + end - 3.0
        if step == 0:
            logits = logits[::width].repeat_interleave(width, 0)  # one prompt for all beams
        before = [list(text) for window in windows for text in window.texts]
        candidates, sources = extend(selection, logits, selection.rows(homes, [step] * n), width)
        for number, (window, late) in enumerate(zip(windows, later, strict=True)):
            own = slice(number * width, (number + 1) * width)
            window.extend(logits[own])
            late.take(candidates[0, own].long().tolist(), candidates[1, own].tolist())
            assert (late.texts, late.sums) == (window.texts, window.sums), "the host comes to the same a step later"
            assert late.search.candidates([], []) == window.search.candidates([], [])
            for row, text in zip(range(own.start, own.stop), window.texts, strict=True):
                assert before[int(sources[row])] == text[:-1]
                assert own.start <= int(sources[row]) < own.stop
                assert selection.tables.said[homes[row], 2 : step + 3].tolist() == text
        sums = selection.tables.sums[torch.tensor(homes)].tolist()
        assert sums == [total for window in windows for total in window.sums]
    times = [[token for token in text if token >= BEGIN] for window in windows for text in window.texts]
    last = selection.tables.last_times[torch.tensor(homes), len(ends)].tolist()
    assert last == [text[-1] if text else -1 for text in times]


def test_a_home_is_used_again_without_a_trace() -> None:
    selection = Selection(TINY.dims, TINY.tokenizer, RULES, n_rows=2, device=CPU)
    said = []
    for _ in range(2):
        for home in range(2):
            selection.begin(home, (EOT,), temperature=0.0, seed=None, first_to=None)
        generator = torch.Generator().manual_seed(1)
        for step in range(3):
            logits = torch.randn(1 if step == 0 else 2, END, generator=generator).expand(2, -1)
            candidates, _ = extend(selection, logits, selection.rows(range(2), [step] * 2), 2)
        said.append((candidates.tolist(), selection.tables.said[:2, :5].tolist()))
    assert said[0] == said[1]


def test_it_reads_nothing_back_and_stays_on_its_device() -> None:
    """A tensor without data refuses whatever would make the host wait, and whatever is on another device."""
    meta = torch.device("meta")
    rules = Rules(TINY.dims, TINY.tokenizer, meta)
    selection = Selection(TINY.dims, TINY.tokenizer, rules, n_rows=6, device=meta)
    places = torch.zeros(2, 6, dtype=torch.long, device=meta)
    candidates, sources = extend(selection, torch.zeros(6, END, device=meta), places, 3)
    assert (candidates.shape, candidates.dtype, candidates.device) == ((2, 6, 4), torch.float32, meta)
    assert (sources.shape, sources.device) == ((6,), meta)
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        int(sources.sum())
