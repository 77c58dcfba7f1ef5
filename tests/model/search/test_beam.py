"""Beam search and best-of: the reference's choice, and that of the pieces by themselves."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import model.decoding.row
from model.decoding.batch import DecodingBatch, run_to_end
from model.options import TranscribeOptions
from model.search.beam import BeamSearch, Candidate, best_candidate
from model.search.sampling import row_seed
from model.weights import Weights
from model.window import DecodingResult, Window
from tests import tiny
from tests.graphs import choose_on_device

TINY = tiny.transcriber()
MEL = torch.randn(3, 80, 3000, generator=torch.Generator().manual_seed(11))
EOT = 9
SEARCHES: list[dict[str, Any]] = [
    {"beam_size": 5},
    {"beam_size": 1},
    {"beam_size": 2, "patience": 2.5},
    {"beam_size": 3, "patience": 0.4},
    {"beam_size": 4, "length_penalty": 0.6},
]


def _decode(mel: torch.Tensor, options: TranscribeOptions, prompt: tuple[int, ...] = ()) -> DecodingResult:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=1, max_rows=options.width)
    (slot,) = batch.encode(mel[None])
    batch.start(slot, Window(4, 0, 3000, options.language, prompt), options)
    ((_, result),) = run_to_end(batch)
    assert (batch.free_rows, batch.active_rows) == (options.width, 0)
    return result


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # numpy, of the reference's code
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("clip", "on_device"), [(0, False), (1, False), (0, True), (1, True)])
def test_beams_find_the_reference_s_text(search: dict[str, Any], clip: int, on_device: bool, monkeypatch) -> None:
    from whisper.decoding import DecodingOptions, decode

    from tests.oracle.reference import reference_model

    if on_device:
        choose_on_device(monkeypatch, ahead=True)
    reference = reference_model(Weights(tiny.DIMS, tiny.tensors(), "tiny-random", None))
    prompt = (400, 500) if clip else ()
    asked = DecodingOptions(language="en", sample_len=14, fp16=False, prompt=list(prompt), **search)
    wanted = decode(reference, MEL[clip], asked)
    options = TranscribeOptions(language="en", temperature=(0.0,), sample_len=14, guards=False, **search)
    ours = _decode(MEL[clip], options, prompt)
    assert ours.tokens == tuple(wanted.tokens)
    assert ours.avg_logprob == pytest.approx(wanted.avg_logprob, abs=1e-4)


def test_best_of_keeps_the_most_probable_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    common = {"language": "de", "temperature": (0.9,), "sample_len": 9, "seed": 5}
    together = _decode(MEL[2], TranscribeOptions(**common, best_of=4))
    alone = []
    for candidate in range(4):
        monkeypatch.setattr(model.decoding.row, "row_seed", lambda s, w, r, _, c=candidate: row_seed(s, w, r, c))
        alone.append(_decode(MEL[2], TranscribeOptions(**common)))
    assert len({result.tokens for result in alone}) == 4
    scores = [result.avg_logprob * (len(result.tokens) + 1) / len(result.tokens) for result in alone]
    best = alone[scores.index(max(scores))]
    assert together.tokens == best.tokens
    assert together.avg_logprob == pytest.approx(best.avg_logprob, abs=1e-5)


def test_a_window_too_wide_for_the_free_rows_is_refused_and_changes_nothing() -> None:
    batch = DecodingBatch(TINY.model, TINY.tokenizer, max_windows=2, max_rows=4)
    (slot,) = batch.encode(MEL[:1])
    wide = TranscribeOptions(language="en", temperature=(0.0,), beam_size=5)
    with pytest.raises(ValueError, match="5 rows are wanted and 4 are free"):
        batch.start(slot, Window(0, 0, 3000, "en"), wide)
    assert (batch.free_rows, batch.active_rows) == (4, 0)


@given(
    beam_size=st.integers(1, 4),
    patience=st.sampled_from([None, 0.5, 1.0, 2.0]),
    steps=st.lists(st.lists(st.floats(-9, 0), min_size=12, max_size=12), min_size=1, max_size=6),
)
def test_survivors_are_the_best_and_finished_texts_stay(beam_size, patience, steps) -> None:
    search = BeamSearch(beam_size, patience, EOT)
    beams: list[list[int]] = [[] for _ in range(beam_size)]
    sums = [0.0] * beam_size
    for logprobs in steps:
        ranked = sorted(range(len(logprobs)), key=lambda token: -logprobs[token])[: beam_size + 1]
        totals = [[total + logprobs[token] for token in ranked] for total in sums]
        grown = search.extend(beams, [ranked] * beam_size, totals)
        assert len(grown) == beam_size
        assert all(extension.token != EOT for extension in grown)
        assert [e.sum_logprob for e in grown] == sorted((e.sum_logprob for e in grown), reverse=True)
        beams = [[*beams[e.source], e.token] for e in grown]
        assert len({tuple(beam) for beam in beams}) == beam_size
        sums = [e.sum_logprob for e in grown]
    candidates = search.candidates(beams, sums)
    assert len(candidates) >= beam_size or search.is_complete
    for candidate in candidates:
        assert EOT not in candidate.tokens
        said = [logprobs[token] for logprobs, token in zip(steps, candidate.tokens, strict=False)]
        assert candidate.logprobs == pytest.approx(said, abs=1e-9)


@pytest.mark.parametrize(
    ("beam_size", "patience", "wanted"),
    [(2, None, 2), (2, 1.0, 2), (2, 2.5, 5), (4, 0.6, 2), (5, 0.5, 2), (3, 0.4, 1), (1, 0.1, 1), (1, 3.0, 3)],
)
def test_a_search_waits_for_as_many_texts_as_its_patience_says_and_takes_no_more(beam_size, patience, wanted) -> None:
    search = BeamSearch(beam_size, patience, EOT)
    beams, sums, following = [[]] * beam_size, [0.0] * beam_size, [EOT, *range(beam_size)]
    while not search.is_complete:
        totals = [[total - 0.1 * i for i in range(len(following))] for total in sums]
        grown = search.extend(beams, [following] * beam_size, totals)
        beams, sums = [[*beams[one.source], one.token] for one in grown], [one.sum_logprob for one in grown]
    assert len(search.candidates([], [])) == wanted


def _logprobs(text: tuple[int, ...]) -> torch.Tensor:
    """Of what may follow a text, (12,); the end of the text is often probable."""
    logits = torch.randn(12, generator=torch.Generator().manual_seed(hash(text) % 2**31))
    logits[EOT] += 1.0
    return logits.log_softmax(-1)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # numpy, of the reference's code
@settings(max_examples=60)
@given(st.integers(1, 4), st.sampled_from([None, 0.7, 1.0, 2.0]), st.integers(1, 6), st.integers(0, 999))
def test_where_texts_end_their_candidates_are_the_reference_s(beam_size, patience, n_steps, first) -> None:
    from whisper.decoding import BeamSearchDecoder

    inference: Any = SimpleNamespace(rearrange_kv_cache=lambda _: None)
    theirs = BeamSearchDecoder(beam_size, EOT, inference, patience)
    tokens, total = torch.tensor([[first]] * beam_size), torch.zeros(beam_size)
    search = BeamSearch(beam_size, patience, EOT)
    beams: list[list[int]] = [[]] * beam_size
    sums = [0.0] * beam_size
    for _ in range(n_steps):
        logits = torch.stack([_logprobs(tuple(row)) for row in tokens.tolist()])
        tokens, completed = theirs.update(tokens, logits, total)
        best = [_logprobs((first, *beam)).topk(beam_size + 1) for beam in beams]
        scores = [[so_far + one for one in top.values.tolist()] for so_far, top in zip(sums, best, strict=True)]
        grown = search.extend(beams, [top.indices.tolist() for top in best], scores)
        beams, sums = [[*beams[one.source], one.token] for one in grown], [one.sum_logprob for one in grown]
        assert search.is_complete == completed
        if completed:
            break
    texts, totals = theirs.finalize(tokens[None], total[None])
    ours = search.candidates(beams, sums)
    assert [(first, *one.tokens, EOT) for one in ours] == [tuple(text.tolist()) for text in texts[0]]
    assert [one.sum_logprob for one in ours] == pytest.approx(totals[0], abs=1e-4)


def test_the_length_penalty_weighs_long_texts() -> None:
    short, long = Candidate((1,), -1.0), Candidate((1, 2, 3, 4), -2.0)
    assert best_candidate([short, long], None) is long
    assert best_candidate([short, long], 0.0) is short
    assert best_candidate([short, Candidate((2,), -1.0)], 1.0) is short
    assert best_candidate([Candidate((), -3.0), Candidate((1,), -math.inf)], None).tokens == ()
