"""The choice in tensors beside the choice on the host: any logits, any past."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.options import TranscribeOptions
from model.search.rules import Rules
from model.search.sampling import sample
from model.search.selection import Selection, draw
from tests import tiny

TINY = tiny.transcriber()
CPU = torch.device("cpu")
RULES = Rules(TINY.dims, TINY.tokenizer, CPU)
BEGIN, EOT, END = TINY.tokenizer.timestamp_begin, TINY.tokenizer.eot, TINY.dims.n_vocab
OPTIONS = [
    TranscribeOptions(),
    TranscribeOptions(without_timestamps=True),
    TranscribeOptions(max_initial_timestamp=None, suppress_tokens=()),
    TranscribeOptions(max_initial_timestamp=10.0, suppress_tokens=(-1, EOT, 7)),
]


def _selection(rows: int = 4) -> Selection:
    return Selection(TINY.dims, TINY.tokenizer, RULES, n_rows=rows, device=CPU)


def _begin(selection: Selection, home: int, options: TranscribeOptions, seed: int | None = None) -> None:
    selection.begin(
        home,
        RULES.suppressed(options),
        temperature=0.0 if seed is None else 0.7,
        seed=seed,
        first_to=RULES.first_time_to(options),
    )


def _tilted(bias: float, seed: int, rows: int = 1) -> torch.Tensor:
    """Random logits in which timestamps are favoured by so much."""
    logits = torch.randn(rows, END, generator=torch.Generator().manual_seed(seed)) * 3.0
    logits[:, BEGIN:] += bias
    return logits


ROW = st.tuples(st.integers(0, len(OPTIONS) - 1), st.lists(st.floats(-12, 12), min_size=1, max_size=10))


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_any_past_leads_to_what_the_host_chooses(rows, seed) -> None:
    """Each row's text arises from its own choices, towards or away from timestamps as its numbers say."""
    selection, grammars = _selection(), [RULES.grammar(OPTIONS[option]) for option, _ in rows]
    homes = [3 - i for i in range(len(rows))]
    for home, (option, _) in zip(homes, rows, strict=True):
        _begin(selection, home, OPTIONS[option])
    for step in range(min(len(biases) for _, biases in rows)):
        logits = torch.cat([_tilted(biases[step], seed + 100 * step + i) for i, (_, biases) in enumerate(rows)])
        places = selection.rows(homes, [step] * len(rows))
        tokens, logprobs = selection.choose(logits, places, drawing=False)
        RULES.suppress(logits, [RULES.suppressed(OPTIONS[option]) for option, _ in rows])
        RULES.constrain(logits, [grammar.limits() for grammar in grammars])
        wanted, wanted_logprobs = sample(logits, [0.0] * len(rows), [None] * len(rows))
        assert tokens.long().tolist() == wanted
        assert logprobs.tolist() == pytest.approx(wanted_logprobs, abs=1e-6)
        for grammar, token in zip(grammars, wanted, strict=True):
            grammar.push(token)
        assert selection.last(selection.rows(homes, [step + 1] * len(rows))).tolist() == wanted


PAST = st.lists(st.sampled_from([5, 700, BEGIN, BEGIN + 4, BEGIN + 9]), max_size=6)


@settings(max_examples=40, deadline=None)
@given(past=PAST, option=st.integers(0, len(OPTIONS) - 1), bias=st.floats(-9, 9), seed=st.integers(0, 99))
def test_pasts_that_no_grammar_would_allow_are_read_alike(past, option, bias, seed) -> None:
    selection, grammar = _selection(1), RULES.grammar(OPTIONS[option])
    _begin(selection, 0, OPTIONS[option])
    last_time = -1
    for i, token in enumerate(past):
        grammar.push(token)
        last_time = token if token >= BEGIN else last_time
        selection._said[0, i + 2], selection._last_times[0, i + 1] = token, last_time
    logits = _tilted(bias, seed)
    chosen = selection.choose(logits, selection.rows([0], [len(past)]), drawing=False)
    RULES.suppress(logits, [RULES.suppressed(OPTIONS[option])])
    RULES.constrain(logits, [grammar.limits()])
    assert chosen[0].long().tolist() == sample(logits, [0.0], [None])[0]


def test_a_step_that_is_repeated_says_the_same_again() -> None:
    selection = _selection()
    _begin(selection, 0, OPTIONS[0], seed=5)
    logits, places = _tilted(0.0, 1), selection.rows([0], [0])
    first = selection.choose(logits, places, drawing=True)
    said = selection._said.clone()
    for _ in range(3):
        assert torch.equal(selection.choose(logits, places, drawing=True), first)
    assert torch.equal(selection._said, said)


def test_padding_writes_nowhere_but_into_the_scratch_home() -> None:
    selection = _selection(2)
    for home in (0, 1):
        _begin(selection, home, OPTIONS[0])
    places = selection.rows([1, selection.scratch, selection.scratch], [0, 0, 0])
    selection.choose(_tilted(0.0, 1, rows=3), places, drawing=False)
    assert (selection._said[0] == -1).all()
    assert (selection._said[1, 2:] >= 0).sum() == 1


def test_draws_have_the_distribution_of_the_logits() -> None:
    logits = torch.tensor([2.0, -torch.inf, 0.5, 1.0, -torch.inf, -1.0])
    n = 20_000
    uniforms = torch.rand(n, 1, generator=torch.Generator().manual_seed(1))
    counts = torch.bincount(draw(logits.repeat(n, 1), uniforms), minlength=6)
    shares = logits.softmax(-1)
    assert (counts[shares == 0] == 0).all()
    deviations = (counts - n * shares)[shares > 0] / (n * shares)[shares > 0].sqrt()
    assert deviations.abs().max() < 4.0


@pytest.mark.parametrize("seed", range(3))
def test_no_mark_however_near_to_the_ends_draws_what_is_forbidden(seed) -> None:
    logits = torch.randn(1, END, generator=torch.Generator().manual_seed(seed)) * 4
    logits[:, seed::3] = -torch.inf
    logits[:, -600:] = -torch.inf
    logits[:, :400] = -torch.inf
    marks = torch.tensor([[0.0], [1e-9], [0.5], [1 - 2**-24], [1.0]])
    drawn = draw(logits.expand(len(marks), -1), marks)
    assert logits[0, drawn].isfinite().all()


def test_a_rows_draws_are_its_own_whoever_is_beside_it() -> None:
    def draws(others: int, home: int) -> list[int]:
        selection = _selection(4)
        for other in range(others):
            _begin(selection, 3 - other, OPTIONS[1], seed=100 + other)
        _begin(selection, home, OPTIONS[1], seed=7)
        homes = [3 - other for other in range(others)] + [home]
        tokens = []
        for step in range(12):
            logits = torch.cat([_tilted(0.0, 50 + step, rows=others), _tilted(0.0, step)])
            chosen = selection.choose(logits, selection.rows(homes, [step] * len(homes)), drawing=True)
            tokens.append(int(chosen[0, -1]))
        return tokens

    wanted = draws(0, 0)
    assert draws(3, 0) == draws(1, 2) == wanted
    assert len(set(wanted)) > 6


def test_a_home_is_used_again_without_a_trace() -> None:
    selection = _selection(1)
    _begin(selection, 0, OPTIONS[3], seed=3)
    for step in range(5):
        selection.choose(_tilted(6.0, step), selection.rows([0], [step]), drawing=True)
    again, fresh = selection, _selection(1)
    for one in (again, fresh):
        _begin(one, 0, OPTIONS[0])
    for step in range(5):
        places, logits = fresh.rows([0], [step]), _tilted(1.0, 10 + step)
        ours, wanted = (one.choose(logits, places, drawing=False) for one in (again, fresh))
        assert torch.equal(ours, wanted)


def test_a_choice_reads_nothing_back_and_stays_on_its_device() -> None:
    """A tensor without data refuses whatever would make the host wait, and whatever is on another device."""
    meta = torch.device("meta")
    rules = Rules(TINY.dims, TINY.tokenizer, meta)
    selection = Selection(TINY.dims, TINY.tokenizer, rules, n_rows=4, device=meta)
    places = torch.zeros(2, 3, dtype=torch.long, device=meta)
    for drawing in (False, True):
        chosen = selection.choose(torch.zeros(3, END, device=meta), places, drawing=drawing)
        assert (chosen.shape, chosen.dtype, chosen.device) == ((2, 3), torch.float32, meta)
