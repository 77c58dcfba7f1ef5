"""The choice in C against the rules and the sampling in torch."""

import ctypes

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.native.inference import NativeInference
from model.native.weights import NativeDecoder
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.search.rules import Limits, Rules
from model.search.sampling import sample
from model.tokenizer import get_tokenizer
from tests import tiny

TOKENIZER = get_tokenizer(tiny.DIMS)
BEGIN, EOT, END = TOKENIZER.timestamp_begin, TOKENIZER.eot, TOKENIZER.n_vocab
RULES = Rules(tiny.DIMS, TOKENIZER, torch.device("cpu"))

tokens = st.one_of(st.integers(0, EOT - 1), st.integers(BEGIN, END - 1), st.just(EOT))
histories = st.lists(st.tuples(st.lists(tokens, max_size=6), st.booleans()), min_size=1, max_size=9)


@pytest.fixture(scope="module")
def inference(library: ctypes.CDLL) -> NativeInference:
    model = Whisper.from_tensors(tiny.DIMS, tiny.tensors())
    return NativeInference(NativeDecoder(model.decoder, tiny.DIMS, library), n_windows=1, n_rows=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=histories,
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 3.0, 60.0]),
    lift=st.sampled_from([-5.0, 0.0, 8.0]),
)
def test_the_token_and_its_probability_are_torchs(inference, histories, seed, scale, lift) -> None:
    limits = []
    for said, untimed in histories:
        grammar = RULES.grammar(TranscribeOptions(without_timestamps=untimed))
        for token in said:
            grammar.push(token)
        limits.append(grammar.limits())
    logits = torch.randn(len(limits), END, generator=torch.Generator().manual_seed(seed)) * scale
    logits[:, BEGIN:] += lift
    logits[:, 11:5000] = -torch.inf
    (ours, chances), (several, of_several) = (inference.choose(logits, limits, BEGIN, count) for count in (1, 6))
    RULES.constrain(logits, limits)
    wanted, logprobs = sample(logits, [0.0] * len(limits), [None] * len(limits))
    assert ours == [[token] for token in wanted]
    assert [chance for (chance,) in chances] == pytest.approx(logprobs, abs=1e-4, rel=1e-5)
    best = logits.log_softmax(-1).topk(6)
    assert torch.allclose(torch.tensor(of_several), best.values, atol=1e-4, rtol=1e-5)
    for tokens, values, row in zip(several, best.values, logits.log_softmax(-1), strict=True):
        assert torch.allclose(row[tokens], values, atol=1e-4, rtol=1e-5)  # which of equals is first torch leaves open
        assert len(set(tokens)) == 6


def test_of_equal_logits_the_first_is_chosen(inference: NativeInference) -> None:
    logits = torch.zeros(1, END)
    ((token,),), ((logprob,),) = inference.choose(logits, [Limits(0, END, END, timed=False)], BEGIN)
    assert token == logits.argmax() == 0
    assert logprob == pytest.approx(-torch.tensor(float(END)).log().item(), abs=1e-4)
    assert inference.choose(logits, [Limits(0, END, END, timed=False)], BEGIN, 3)[0] == [[0, 1, 2]]


def test_places_that_no_token_may_take_are_filled_with_impossible_ones(inference: NativeInference) -> None:
    logits = torch.full((1, END), -torch.inf)
    logits[0, [1, BEGIN + 3]] = torch.tensor([1.0, 2.0])
    (tokens,), (logprobs,) = inference.choose(logits, [Limits(0, END, END, timed=False)], BEGIN, 5)
    assert tokens == [BEGIN + 3, 1, 0, 2, 3]
    assert logprobs[:2] == pytest.approx(logits[0, [BEGIN + 3, 1]].log_softmax(0).tolist(), abs=1e-5)
    assert logprobs[2:] == [-float("inf")] * 3


@pytest.mark.parametrize("count", [0, END + 1])
def test_as_many_tokens_are_chosen_as_there_are(inference: NativeInference, count: int) -> None:
    with pytest.raises(ValueError, match="cannot be chosen"):
        inference.choose(torch.zeros(1, END), [Limits(0, END, END, timed=False)], BEGIN, count)


@pytest.mark.parametrize(
    "limits", [Limits(-1, END, END, True), Limits(0, BEGIN - 1, END, True), Limits(0, END, END + 1, True)]
)
def test_limits_beyond_the_vocabulary_are_refused(inference: NativeInference, limits: Limits) -> None:
    with pytest.raises(ValueError, match="beyond the vocabulary"):
        inference.choose(torch.zeros(1, END), [limits], BEGIN)


def test_logits_of_another_shape_are_refused(inference: NativeInference) -> None:
    with pytest.raises(ValueError, match="not those of 1 rows"):
        inference.choose(torch.zeros(2, END), [Limits(0, END, END, timed=False)], BEGIN)
