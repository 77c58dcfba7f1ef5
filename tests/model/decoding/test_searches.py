"""Unsure texts that are searched for again: a few windows at a time, the others in line, each as it would be alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from model.decoding import ladder
from model.decoding.batch import DecodingBatch
from model.decoding.budget import SEARCHES
from model.decoding.inference import make_inference
from model.decoding.ladder import SEARCH, Ladder
from model.decoding.row import Decoding
from model.decoding.searches import Searches
from model.native.inference import NativeInference
from model.native.library import load_library
from model.native.quantize import quantise
from model.network.whisper import Whisper
from model.options import TranscribeOptions
from model.window import SEARCH_BEAMS, DecodingResult, Window
from tests import tiny

N = SEARCHES + 3
MEL = torch.randn(N, 80, 3000, generator=torch.Generator().manual_seed(3))
PROMPT = (400, 500, 600)
OPTIONS = TranscribeOptions(language="en", sample_len=6, no_speech_threshold=None)


@pytest.fixture(scope="module", params=["float32", "int8"])
def whisper(request) -> Whisper:
    model = tiny.transcriber().model
    if request.param == "int8":
        if load_library() is None:
            pytest.skip("the decoder was not compiled (deploy/native.sh)")
        quantise(model)
    return model


class Run:
    """A batch, and what it was seen to do."""

    def __init__(self, whisper: Whisper, size: int) -> None:
        self.batch = DecodingBatch(whisper, tiny.transcriber().tokenizer, max_windows=size, max_rows=max(size, 2))
        self.results: dict[int, DecodingResult] = {}
        self.windows: dict[int, int] = {}
        self.searched = self.most = 0
        self.batch.on_attempt = lambda decoding, _: self._count(decoding.ladder.rung)

    def _count(self, rung: int) -> None:
        self.searched += rung == SEARCH

    def start(self, i: int, options: TranscribeOptions = OPTIONS) -> int:
        (slot,) = self.batch.encode(MEL[i : i + 1])
        self.windows[slot] = i
        self.batch.start(slot, Window(i, 0, 3000, "en", PROMPT), options)
        return slot

    def step(self) -> None:
        for slot, result in self.batch.step():
            self.results[self.windows.pop(slot)] = result
        searching = [d for d in self.batch._decodings.values() if d.ladder.rung == SEARCH]
        self.most = max(self.most, len(searching))
        assert all(len(d.rows) == SEARCH_BEAMS for d in searching)
        self.spoil()

    def spoil(self) -> None:
        """No number in the rows that nobody has: it would show in the words of whoever gets one and reads it."""
        inference, free = self.batch._inference, slice(len(self.batch._rows), None)
        memory = inference if isinstance(inference, NativeInference) else inference._cache
        for name in ("_keys", "_values") if memory is inference else ("keys", "values"):
            getattr(memory, name)[:, free] = torch.nan

    def to_end(self) -> None:
        while self.batch.active_rows:
            self.step()
        assert (self.batch.free_windows, self.batch.free_rows) == (self.batch.max_windows, self.batch.max_rows)


@pytest.fixture(params=[0, 2], ids=["from the first token", "behind two sure ones"])
def sure(request, monkeypatch) -> int:
    """How many tokens a search takes over; of a random model's nobody is sure."""
    monkeypatch.setattr(ladder, "sure_beginning", lambda text, options: min(request.param, len(text.tokens) - 1))
    return request.param


def _alike(ours: DecodingResult, wanted: DecodingResult) -> bool:
    same = replace(ours, avg_logprob=0.0, no_speech_prob=0.0) == replace(wanted, avg_logprob=0.0, no_speech_prob=0.0)
    return same and ours.avg_logprob == pytest.approx(wanted.avg_logprob, abs=1e-3)


def test_r32_whoever_waits_for_a_search_says_what_it_says_alone(whisper: Whisper, sure: int) -> None:
    together = Run(whisper, N)
    for i in range(N):
        together.start(i)
    assert together.batch.free_windows == 0
    together.to_end()
    assert (together.searched, together.most) == (N, SEARCHES)
    for i in range(N):
        alone = Run(whisper, 1)
        alone.start(i)
        alone.to_end()
        assert _alike(together.results[i], alone.results[i])


class Rows:
    """The rows of windows that are never decoded: numbered, and empty while nobody has read into them."""

    def __init__(self) -> None:
        self.read: list[tuple[int, ...] | None] = []

    def keep(self, window: "Unsure", count: int) -> None:
        del window.rows[count:]

    def add(self, window: "Unsure") -> None:
        window.rows.append(SimpleNamespace(index=len(self.read)))
        self.read.append(None)

    def clear_row(self, index: int) -> None:
        self.read[index] = ()

    def prefill(self, tokens: tuple[int, ...], *, row: int, window: int, keep: list[int]) -> None:
        assert self.read[row] == (), "cleared before"
        self.read[row] = (window, *tokens)


class Unsure:
    """A window in two rows, of which nothing is asked but what it has said."""

    def __init__(self, slot: int, rows: Rows) -> None:
        self.slot, self.rows = slot, []
        rows.add(self)
        rows.add(self)

    def read_before(self, rung: int) -> tuple[int, ...]:
        return (rung, self.slot)


@given(
    most=st.integers(1, 3),
    story=st.lists(st.tuples(st.sampled_from(["asks", "leaves", "next"]), st.integers(0, 5)), max_size=40),
)
@example(most=1, story=[("asks", 0), ("asks", 1), ("leaves", 0), ("asks", 2), ("next", 0), ("leaves", 1), ("next", 0)])
def test_windows_are_searched_in_the_order_in_which_they_asked_and_never_too_many(most: int, story) -> None:
    rows = Rows()
    searches = Searches(rows, rows, most=most)
    searched: dict[int, Unsure] = {}
    line: dict[int, Unsure] = {}
    for what, slot in story:
        if what == "asks" and slot not in searched and slot not in line:
            window = Unsure(slot, rows)
            at_once = len(searched) < most and not line
            assert searches.admits(window) is at_once
            assert len(window.rows) == (2 if at_once else 0)
            (searched if at_once else line)[slot] = window
        elif what == "leaves":
            searches.leave(searched.pop(slot, None) or line.pop(slot, None) or Unsure(slot, rows))
        elif what == "next":
            window = searches.next()
            assert window is (next(iter(line.values()), None) if len(searched) < most else None)
            if window is not None:
                searched[window.slot] = line.pop(window.slot)
                (row,) = window.rows
                assert rows.read[row.index] == (window.slot, SEARCH, window.slot)
        assert searches.waiting == len(line)


@pytest.mark.parametrize("dropped", ["one that is searched", "one that waits", "all that are searched", "all"])
def test_who_is_dropped_leaves_its_place_to_the_next(whisper: Whisper, dropped: str) -> None:
    run = Run(whisper, N)
    slots = [run.start(i) for i in range(N)]
    while not run.batch._searches.waiting:
        run.step()
    searched = [slot for slot in slots if run.batch._decodings[slot].ladder.rung == SEARCH]
    waiting = [slot for slot in slots if not run.batch._decodings[slot].rows]
    assert (len(searched), len(waiting)) == (SEARCHES, N - SEARCHES)
    gone = {
        "one that is searched": searched[:1],
        "one that waits": waiting[:1],
        "all that are searched": searched,
        "all": slots,
    }[dropped]
    for slot in gone:
        run.batch.drop(slot)
        del run.windows[slot]
    run.to_end()
    assert len(run.results) == N - len(gone)
    assert run.searched >= len(run.results)


@torch.inference_mode()
def test_what_a_search_says_of_its_tokens_is_what_a_reading_of_the_whole_text_says(whisper: Whisper, sure: int) -> None:
    """Whatever it took over, and wherever the rows of its beams have been."""
    run = Run(whisper, N)
    found: dict[int, tuple[DecodingResult, tuple[int, ...]]] = {}

    def note(decoding: Decoding, result: DecodingResult) -> None:
        if decoding.ladder.rung == SEARCH:
            found[decoding.window.index] = result, decoding.ladder.attempts[0].tokens

    run.batch.on_attempt = note
    for i in range(N):
        run.start(i, replace(OPTIONS, without_timestamps=True, suppress_tokens=(), suppress_blank=False))
    run.to_end()
    tokenizer, inference = run.batch.tokenizer, make_inference(whisper, n_windows=1, n_rows=1)
    start = (tokenizer.sot_prev, *PROMPT, *tokenizer.sot_sequence("en", "transcribe"), tokenizer.no_timestamps)
    assert len(found) == N
    for i, (result, greedy) in found.items():
        assert result.tokens[:sure] == greedy[:sure]
        inference.fill_windows(whisper.encode(MEL[i : i + 1]), [0])
        text = (*start, *result.tokens)
        keep = range(len(start) - 1, len(text) - 1)
        read = inference.prefill(text, row=0, window=0, keep=keep).log_softmax(-1)
        wanted = read[torch.arange(len(keep)), torch.tensor(result.tokens)]
        assert list(result.logprobs) == pytest.approx(wanted.tolist(), abs=2e-3)


def test_a_search_ends_at_once_where_one_token_is_all_that_may_be_said(whisper: Whisper) -> None:
    run = Run(whisper, N)
    for i in range(N):
        run.start(i, replace(OPTIONS, sample_len=1, without_timestamps=True))
    run.step()
    assert (len(run.results), run.searched, run.batch.active_rows) == (N, N, 0)


def test_nor_does_it_say_more_where_it_had_to_wait(whisper: Whisper) -> None:
    run, lengths = Run(whisper, N), []
    for i in range(SEARCHES):
        run.start(i)
    while run.most < SEARCHES:
        run.step()

    def note(decoding: Decoding, result: DecodingResult) -> None:
        if decoding.options.sample_len == 1 and decoding.ladder.rung == SEARCH:
            lengths.append(len(result.tokens))

    run.batch.on_attempt = note
    run.start(SEARCHES, replace(OPTIONS, sample_len=1, without_timestamps=True))
    assert run.batch._searches.waiting == 1
    run.to_end()
    assert lengths == [1]


@pytest.mark.parametrize(
    ("options", "searched"),
    [
        ({}, 1),
        ({"guards": False, "temperature": (0.0,)}, 0),
        ({"temperature": (0.0,)}, 0),
        ({"temperature": (0.2, 0.4)}, 0),
        ({"beam_size": 2}, 0),
        ({"task": "translate"}, 1),
        ({"logprob_threshold": None}, 0),
    ],
)
def test_a_window_is_searched_where_its_caller_leaves_that_to_us(whisper: Whisper, options, searched) -> None:
    run = Run(whisper, 1)
    run.start(0, replace(OPTIONS, **options))
    run.to_end()
    assert run.searched == searched


@pytest.mark.parametrize("voiced", [False, True])
def test_however_sure_a_search_is_of_what_was_taken_for_silence_witnesses_are_heard(voiced: bool) -> None:
    tokenizer = tiny.transcriber().tokenizer
    options = TranscribeOptions()
    ladder = Ladder(options, voiced=voiced)
    ladder.contrasts = True
    values = {"avg_logprob": -0.5, "no_speech_prob": 0.9, "temperature": 0.0, "compression_ratio": 1.0}
    ladder.attempts = [DecodingResult("en", (tokenizer.timestamp_begin, 400), "a", **values)]
    ladder.rung = SEARCH
    assert ladder.next_rung(tokenizer) == (len(options.temperature) if voiced else None)


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_what_a_search_finds_takes_the_place_of_the_text_unless_it_goes_round(whisper: Whisper, limit) -> None:
    run = Run(whisper, 1)
    heard: dict[int, DecodingResult] = {}
    decodings: list[Decoding] = []

    def note(decoding: Decoding, result: DecodingResult) -> None:
        decodings.append(decoding)
        heard[decoding.ladder.rung] = result

    run.batch.on_attempt = note
    run.start(0, replace(OPTIONS, compression_ratio_threshold=limit))
    run.to_end()
    assert heard[0].tokens != heard[SEARCH].tokens
    wanted = (heard[0], [heard[SEARCH]]) if limit is None else (None, [heard[0]])
    assert (decodings[0].ladder.first, decodings[0].ladder.attempts) == wanted
