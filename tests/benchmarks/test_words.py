from pathlib import Path

from benchmarks.accuracy.corpus import Clip
from benchmarks.words import choose, compare
from model.segments import Word


def clip(file: str, kind: str = "read", language: str | None = "en", seconds: float = 5.0) -> Clip:
    return Clip(file, Path(file), language, "text", None, kind, seconds)


def test_every_kind_and_language_takes_part_in_turn() -> None:
    clips = [clip("a"), clip("b"), clip("c", language="de"), clip("d", kind="nospeech", language=None)]
    clips.append(clip("long", language="fr", seconds=200.0))
    assert [one.file for one in choose(clips, 3)] == ["d", "c", "a"]
    assert [one.file for one in choose(clips, 9)] == ["d", "c", "a", "b"]


def test_words_are_matched_in_order_and_their_ends_compared() -> None:
    ours = [Word(" a", 0.0, 1.0, 0.9), Word(" x", 1.0, 1.5, 0.9), Word(" b", 2.0, 3.0, 0.9), Word(" c", 3.0, 4.0, 0.9)]
    theirs = [Word(" a", 0.0, 1.0, 0.8), Word(" b", 2.02, 3.04, 0.9), Word(" c", 3.0, 4.06, 0.9), Word(" d", 5, 6, 0.9)]
    outcome = compare(clip("a"), "en", ours, theirs)
    assert (outcome.words, outcome.same, outcome.close, outcome.equal, outcome.worst) == (4, 3, 2, 1, 0.06)
    assert compare(clip("a"), "en", [], []).worst == 0.0
