"""What is tried with a window, in which order, and what becomes of it; results are written here, nothing is decoded."""

from dataclasses import replace

import pytest

from model.decoding.ladder import SEARCH, Ladder
from model.dims import DIMENSIONS
from model.guards.doubt import WITNESS_TEMPERATURE
from model.guards.presence import reason_to_skip
from model.options import TranscribeOptions
from model.tokenizer import get_tokenizer
from model.window import SEARCH_BEAMS, DecodingResult, Window

TOKENIZER = get_tokenizer(DIMENSIONS["base"])
OPTIONS = TranscribeOptions(language="en")
BEHIND = len(OPTIONS.temperature)
"""The first number behind the rungs."""
WINDOW = Window(0, 0, 3000, "en")
SILENT, SPOKEN = (0.02,) * 900, (0.9,) * 900


def _said(text: str = " Hello.", *, logprob: float = -0.2, **fields) -> DecodingResult:
    tokens = (TOKENIZER.timestamp_begin, *TOKENIZER.encode(text), TOKENIZER.timestamp_begin + 100)
    values = {"no_speech_prob": 0.1, "temperature": 0.0, "compression_ratio": 1.0} | fields
    values.setdefault("logprobs", (logprob,) * len(tokens))
    return DecodingResult(language="en", tokens=tokens, text=text.strip(), avg_logprob=logprob, **values)


def _tried(ladder: Ladder, *results: DecodingResult) -> list[tuple[int, float, int | None, int]]:
    """Number, temperature, beams and rows of each attempt, where these are what the attempts gave, to the end."""
    tried = []
    rung: int | None = 0
    for result in results:
        assert rung is not None
        ladder.rung = rung
        tried.append((rung, ladder.temperature, ladder.beams, ladder.width_at(rung)))
        ladder.note(result)
        rung = ladder.next_rung(TOKENIZER)
    assert rung is None
    return tried


def _ladder(options: TranscribeOptions = OPTIONS, *, contrasts: bool = True, rounds: bool = True) -> Ladder:
    ladder = Ladder(options)
    ladder.contrasts, ladder.rounds = contrasts, rounds
    return ladder


def test_a_text_that_is_sure_is_all_that_is_tried() -> None:
    ladder = _ladder()
    text = _said()
    assert _tried(ladder, text) == [(0, 0.0, None, 1)]
    assert (ladder.kept(TOKENIZER), ladder.reason) == (replace(text, failed=False), None)


def test_an_unsure_one_is_searched_for_and_what_is_found_takes_its_place() -> None:
    ladder = _ladder()
    text, found = _said(" Who says hello to her?", logprob=-0.5), _said(" Hallo.", logprob=-0.4)
    assert _tried(ladder, text, found) == [(0, 0.0, None, 1), (SEARCH, 0.0, SEARCH_BEAMS, SEARCH_BEAMS)]
    assert (ladder.first, ladder.attempts) == (text, [found])
    assert ladder.kept(TOKENIZER).text == "Hallo."


def test_what_a_search_finds_is_nothing_where_it_goes_round() -> None:
    ladder = _ladder()
    text = _said(" Who says hello to her?", logprob=-0.5)
    _tried(ladder, text, _said(" no" * 60, logprob=-0.1, compression_ratio=9.0))
    assert (ladder.first, ladder.attempts) == (None, [text])


@pytest.mark.parametrize(
    ("beam_size", "first"),
    [(None, [(0, 0.0, None, 1), (SEARCH, 0.0, SEARCH_BEAMS, SEARCH_BEAMS)]), (2, [(0, 0.0, 2, 2)])],
)
def test_four_witnesses_are_heard_of_a_doubtful_one_the_first_of_them_greedily(beam_size, first) -> None:
    ladder = _ladder(replace(OPTIONS, beam_size=beam_size))  # nobody listens, though the model may hear silence
    words = ("you", "her", "him", "them", "us", "me")[2 - len(first) :]
    texts = [_said(f" Hello {word}.", logprob=-0.8, no_speech_prob=0.5) for word in words]
    draws = [(BEHIND + n, WITNESS_TEMPERATURE, None, 1) for n in (1, 2, 3)]
    assert _tried(ladder, *texts) == [*first, (BEHIND, 0.0, None, 1), *draws]
    assert ladder.witnesses == texts[len(first) :]
    assert ladder.kept(TOKENIZER).witnesses == 3 + len(first)  # the greedy text is one


def test_behind_a_search_the_second_rung_is_next() -> None:
    ladder = _ladder(replace(OPTIONS, task="translate"))
    poor = [_said(f" Hello {word}.", logprob=-1.5) for word in ("you", "her", "him", "them")]
    rungs = [(1, 0.2, None, 1), (2, 0.4, None, 1)]
    assert _tried(ladder, *poor) == [(0, 0.0, None, 1), (SEARCH, 0.0, SEARCH_BEAMS, SEARCH_BEAMS), *rungs]


@pytest.mark.parametrize("contrasts", [False, True])
@pytest.mark.parametrize("text", [_said(logprob=-0.8), _said(" no" * 60, compression_ratio=9.0)])
def test_where_nobody_speaks_nothing_is_tried_after_a_doubtful_text(text: DecodingResult, contrasts: bool) -> None:
    ladder = _ladder(contrasts=contrasts)
    ladder.listen = lambda result: replace(result, speech=SILENT)
    text = replace(text, no_speech_prob=0.5)
    assert _tried(ladder, text) == [(0, 0.0, None, 1)]
    assert reason_to_skip(ladder.kept(TOKENIZER), WINDOW, OPTIONS) == "no_voice"


@pytest.mark.parametrize(
    ("text", "guards", "asked"),
    [
        (_said(logprob=-0.8, no_speech_prob=0.31), True, 1),
        (_said(logprob=-0.8, no_speech_prob=0.31), False, 0),
        (_said(logprob=-0.8, no_speech_prob=0.3), True, 0),  # witnesses have a say, whatever it hears
        (_said(logprob=-0.69, no_speech_prob=0.5), True, 0),
        (_said(logprob=-0.69, no_speech_prob=0.7), True, 1),  # it would be dropped, however sure a search made it
        (_said(logprob=-1.1, no_speech_prob=0.7), True, 0),  # silence by itself
    ],
)
def test_the_detector_is_asked_once_and_of_a_doubtful_text_alone(text: DecodingResult, guards, asked) -> None:
    heard: list[DecodingResult] = []
    ladder = _ladder(replace(OPTIONS, guards=guards))
    ladder.listen = lambda result: (heard.append(result), replace(result, speech=SPOKEN))[1]
    for rung in (0, SEARCH, BEHIND):
        ladder.rung = rung
        ladder.note(text)
        ladder.next_rung(TOKENIZER)
    assert [result.text for result in heard] == ["Hello."] * asked
    assert ladder.kept(TOKENIZER).speech == ()  # what is kept may be another text: it is weighed by itself


def test_without_a_shadow_nothing_is_searched_and_every_witness_is_drawn() -> None:
    texts = [_said(f" Hello {word}.", logprob=-0.8) for word in ("you", "her", "him", "them", "us")]
    tried = _tried(_ladder(contrasts=False), *texts)
    assert tried == [(0, 0.0, None, 1), *((BEHIND + n, WITNESS_TEMPERATURE, None, 1) for n in range(4))]


@pytest.mark.parametrize(("guards", "kept"), [(True, " Ay."), (False, " Bee.")])
def test_who_fails_climbs_and_is_not_heated_for_nothing_with_guards(guards: bool, kept: str) -> None:
    options = replace(OPTIONS, guards=guards, best_of=3)
    ladder = _ladder(options, contrasts=False)
    same = [_said(" Ay.", logprob=-1.5)] * (4 if guards else 5)
    tried = _tried(ladder, *same, *([] if guards else [_said(" Bee.", logprob=-1.5)]))
    rungs = [(n, options.temperature[n], None, 3 if n else 1) for n in range(3 if guards else BEHIND)]
    assert tried == [*rungs, *([(BEHIND, WITNESS_TEMPERATURE, None, 1)] if guards else [])]
    assert ladder.kept(TOKENIZER).text == kept.strip()


def test_beams_that_were_asked_for_are_those_of_temperature_0() -> None:
    options = replace(OPTIONS, beam_size=2, guards=False)
    tried = _tried(_ladder(options), _said(logprob=-1.5), _said(logprob=-0.9))
    assert tried == [(0, 0.0, 2, 2), (1, 0.2, None, 1)]


def test_a_search_begins_with_what_was_sure() -> None:
    ladder = _ladder()
    text = _said(logprob=-0.5)
    text = replace(text, logprobs=(0.0, -0.1, -3.0, *[0.0] * (len(text.tokens) - 3)))
    ladder.note(text)
    assert ladder.beginning(0) == ((), ())
    assert ladder.beginning(SEARCH) == (text.tokens[:2], (0.0, -0.1))


@pytest.mark.parametrize(
    ("result", "guards", "doubted"),
    [
        (_said(logprob=-0.69), True, False),
        (_said(logprob=-0.71), True, True),
        (_said(compression_ratio=2.5), True, True),
        (_said(logprob=-0.71), False, False),
    ],
)
def test_what_is_not_simply_taken(result: DecodingResult, guards: bool, doubted: bool) -> None:
    ladder = _ladder(replace(OPTIONS, guards=guards))
    assert ladder.doubts(result) is doubted
    ladder.rung = BEHIND
    assert ladder.doubts(_said()) is guards
