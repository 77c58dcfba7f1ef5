import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dims import DIMENSIONS
from model.options import TranscribeOptions
from model.search.rules import Rules
from model.tokenizer import get_tokenizer

DIMS = DIMENSIONS["base"]
TOKENIZER = get_tokenizer(DIMS)
BEGIN, EOT = TOKENIZER.timestamp_begin, TOKENIZER.eot

tokens = st.one_of(st.integers(0, EOT - 1), st.integers(BEGIN, BEGIN + 1500), st.just(EOT))
sequences = st.lists(tokens, max_size=6)


def _masked(sequence: list[int], options: TranscribeOptions, logits: torch.Tensor) -> torch.Tensor:
    rules = Rules(DIMS, TOKENIZER, torch.device("cpu"))
    grammar = rules.grammar(options)
    for token in sequence:
        grammar.push(token)
    logits = logits.clone()
    rules.suppress(logits, [rules.suppressed(options)])
    if not sequence and options.suppress_blank:
        rules.suppress_blank(logits[0])
    rules.constrain(logits, [grammar.limits()])
    return logits


def _reference(sequence: list[int], options: TranscribeOptions, logits: torch.Tensor) -> torch.Tensor:
    from whisper.decoding import ApplyTimestampRules, SuppressBlank, SuppressTokens
    from whisper.tokenizer import get_tokenizer as reference_tokenizer

    tokenizer = reference_tokenizer(True, num_languages=99, language="en", task="transcribe")
    suppress = [*tokenizer.non_speech_tokens, tokenizer.transcribe, tokenizer.translate, tokenizer.sot]
    suppress += [tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech]
    filters = [SuppressBlank(tokenizer, 3), SuppressTokens(suppress)]
    if not options.without_timestamps:
        bound = round(options.max_initial_timestamp / 0.02) if options.max_initial_timestamp else None
        filters.append(ApplyTimestampRules(tokenizer, 3, bound))
    logits = logits.clone()
    for filter_ in filters:
        filter_.apply(logits, torch.tensor([[*tokenizer.sot_sequence, *sequence]]))
    return logits


@pytest.mark.oracle
@pytest.mark.parametrize(
    "kinds", [kinds for n in range(4) for kinds in itertools.product("wt0", repeat=n)], ids="".join
)
def test_masks_after_any_words_and_times_equal_the_reference(kinds) -> None:
    random = torch.Generator().manual_seed(3)
    for lift, bound, untimed in itertools.product([-5.0, 0.0, 8.0], [None, 0.0, 0.304, 0.47, 1.0, 30.0], [False, True]):
        logits = torch.randn(1, DIMS.n_vocab, generator=random) * 3.0
        logits[:, BEGIN:] += lift
        numbers = torch.randint(0, 1500, (len(kinds),), generator=random).tolist()
        past = [{"w": n, "t": BEGIN + n, "0": BEGIN}[kind] for kind, n in zip(kinds, numbers, strict=True)]
        options = TranscribeOptions(without_timestamps=untimed, max_initial_timestamp=bound)
        assert torch.equal(_masked(past, options, logits), _reference(past, options, logits))


@pytest.mark.oracle
def test_a_timestamp_as_probable_as_a_word_is_not_due() -> None:
    past, logits = [400, BEGIN + 1499, 400], torch.zeros(1, DIMS.n_vocab)  # one is left
    ours, theirs = (mask(past, TranscribeOptions(), logits) for mask in (_masked, _reference))
    assert torch.equal(ours, theirs)
    assert ours.isfinite()[0, [400, BEGIN + 1500]].all()


@pytest.mark.oracle
@settings(max_examples=60, deadline=None)
@given(
    sequence=sequences,
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.1, 3.0]),
    untimed=st.booleans(),
    bound=st.sampled_from([None, 0.5, 30.0]),
    lift=st.sampled_from([-5.0, 0.0, 8.0]),
)
def test_masks_equal_the_reference(sequence, seed, scale, untimed, bound, lift) -> None:
    logits = torch.randn(1, DIMS.n_vocab, generator=torch.Generator().manual_seed(seed)) * scale
    logits[:, BEGIN:] += lift
    options = TranscribeOptions(without_timestamps=untimed, max_initial_timestamp=bound)
    ours, theirs = _masked(sequence, options, logits), _reference(sequence, options, logits)
    assert torch.equal(ours, theirs)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(sequences, st.booleans()), min_size=2, max_size=5), seed=st.integers(0, 1000))
def test_a_row_is_masked_among_others_as_alone(rows, seed) -> None:
    logits = torch.randn(len(rows), DIMS.n_vocab, generator=torch.Generator().manual_seed(seed))
    options = [TranscribeOptions(without_timestamps=untimed, suppress_blank=False) for _, untimed in rows]
    alone = [_masked(seq, opt, logits[i : i + 1]) for i, ((seq, _), opt) in enumerate(zip(rows, options, strict=True))]
    rules = Rules(DIMS, TOKENIZER, torch.device("cpu"))
    grammars = [rules.grammar(option) for option in options]
    for grammar, (sequence, _) in zip(grammars, rows, strict=True):
        for token in sequence:
            grammar.push(token)
    rules.suppress(logits, [rules.suppressed(option) for option in options])
    rules.constrain(logits, [grammar.limits() for grammar in grammars])
    assert torch.equal(logits, torch.cat(alone))


def test_an_empty_list_of_suppressed_tokens_suppresses_nothing_but_the_grammar() -> None:
    rules = Rules(DIMS, TOKENIZER, torch.device("cpu"))
    assert rules.suppressed(TranscribeOptions(suppress_tokens=())) == (TOKENIZER.no_timestamps,)
    assert rules.suppressed(TranscribeOptions(suppress_tokens=(), without_timestamps=True)) == ()
    assert 0 in rules.suppressed(TranscribeOptions(suppress_tokens=(0,)))


def test_lists_of_callers_do_not_pile_up() -> None:
    rules = Rules(DIMS, TOKENIZER, torch.device("cpu"))
    for token in range(500):
        assert rules.index((token, 7)).tolist() == [token, 7]
    assert len(rules._indices) <= 64
