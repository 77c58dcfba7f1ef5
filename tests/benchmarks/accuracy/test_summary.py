from dataclasses import replace
from typing import Any

import pytest

from benchmarks.accuracy.items import Item
from benchmarks.accuracy.scoring import Errors, Scorer
from benchmarks.accuracy.summary import Outcome, difference_interval, invention, languages, skipped, summarise
from model.segments import Segment, Skipped, Transcription


def answer(text: str, language: str = "en", tokens: tuple[int, ...] = ()) -> Transcription:
    segment = Segment(0, 0, 0.0, 1.0, text, tokens, 0.0, -0.1, 1.0, 0.0)
    return Transcription("transcribe", language, None, 5.0, text, (segment,))


def item(pass_name: str, name: str, text: str | None, spoken: str | None = "en", group: str = "read") -> Item:
    return Item(pass_name, name, group, spoken, pass_name != "auto", text, 30.0)


def outcome(asked: Item, ours: str, reference: str | None = None, **others: str) -> Outcome:
    answers = {"ours": answer(ours), "reference": answer(ours if reference is None else reference)}
    return Outcome(asked, answers | {name: answer(text) for name, text in others.items()})


CAT = item("given", "cat.wav", "the cat sat")
DOG = item("given", "dog.wav", "the dog ran off", group="spontaneous")
CHINESE = item("given", "zh.wav", "广州市", "zh")


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    german = item("auto", "katze.wav", "die Katze", "de")
    return summarise(
        [
            outcome(CAT, "the hat sat", "the cat sat"),
            outcome(DOG, "the dog ran off"),
            outcome(CHINESE, "廣州"),
            Outcome(german, {"ours": answer("x", "nl"), "reference": answer("die Katze", "de")}),
            outcome(item("translate", "katze.wav", "the cat sat", "de"), "the cat sat", "a cat"),
            outcome(item("longform", "l.wav", "one two three", group="pauses"), "one two three four"),
            outcome(item("nospeech", "hum", "", None, "synthetic"), " Thank you.", "", faster=""),
            outcome(item("noise", "n.wav", "one two three", group="white 5 dB"), "one", "one two three", faster=""),
        ]
    )


def rates(figures: dict[str, Any], grouping: str, group: str) -> dict[str, float]:
    (row,) = [row for row in figures["error_rates"] if (row["grouping"], row["group"]) == (grouping, group)]
    return {name: round(cell["rate"], 3) for name, cell in row["systems"].items()}


def test_error_rates_by_language_and_kind(figures: dict[str, Any]) -> None:
    assert rates(figures, "all", "WER") == {"ours": round(100 / 7, 3), "reference": 0.0}
    assert rates(figures, "all", "CER") == {"ours": round(100 / 3, 3), "reference": round(100 / 3, 3)}
    assert rates(figures, "language", "en") == {"ours": round(100 / 7, 3), "reference": 0.0}
    assert rates(figures, "kind", "spontaneous, WER") == {"ours": 0.0, "reference": 0.0}
    assert rates(figures, "language and kind", "en read") == {"ours": round(100 / 3, 3), "reference": 0.0}


def test_a_detected_language_has_error_rates_of_its_own(figures: dict[str, Any]) -> None:
    (row,) = [row for row in figures["error_rates_detected"] if row["grouping"] == "all"]
    assert {name: cell["rate"] for name, cell in row["systems"].items()} == {"ours": 100.0, "reference": 0.0}


def test_languages_count_what_was_confused(figures: dict[str, Any]) -> None:
    assert figures["languages"]["ours"] == {
        "clips": 1,
        "right": 0,
        "spoken": {"de": 1},
        "confusions": [{"true": "de", "found": "nl", "clips": 1}],
    }
    assert figures["languages"]["reference"]["right"] == 1


def test_a_language_counts_where_there_is_enough_speech() -> None:
    short = Item("auto", "a.wav", "read", "de", False, "ja", 1.0)
    digits = Item("auto", "b.wav", "digits", "de", False, "eins", 5.0)
    assert languages([Outcome(one, {"ours": answer("x", "nl")}) for one in (short, digits)], "ours")["clips"] == 0


def test_translation_is_scored_by_system(figures: dict[str, Any]) -> None:
    assert figures["translation"]["ours"]["chrf"] > figures["translation"]["reference"]["chrf"]


def test_invention_and_loss_by_system(figures: dict[str, Any]) -> None:
    counted = {
        row["group"]: {
            name: (cell["invented"], cell["invented_a_minute"], cell["lost"], cell["tokens"])
            for name, cell in row["systems"].items()
        }
        for row in figures["invention"]
    }
    assert counted == {
        "sounds without speech": {"ours": (2, 4.0, 0, 0), "reference": (0, 0.0, 0, 0), "faster": (0, 0.0, 0, 0)},
        "speech in white noise": {"ours": (0, 0.0, 2, 3), "reference": (0, 0.0, 0, 3), "faster": (0, 0.0, 3, 3)},
        "together": {"ours": (2, 2.0, 2, 3), "reference": (0, 0.0, 0, 3), "faster": (0, 0.0, 3, 3)},
    }
    (sounds, everything) = figures["nospeech"]
    assert sounds["systems"]["ours"]["clips_with_words"] == everything["systems"]["ours"]["clips_with_words"] == 1
    assert sounds["systems"]["reference"]["clips_with_words"] == 0


def test_undisturbed_speech_is_no_speech_in_noise() -> None:
    clean = outcome(item("noise", "n.wav", "one two", group="clean"), "one two three")
    noisy = outcome(item("noise", "n.wav", "one two", group="babble 0 dB"), "one two")
    rows = invention([], [clean, noisy], Scorer())
    assert [(row["group"], row["clips"]) for row in rows] == [("speech in babble", 1), ("together", 1)]
    assert rows[-1]["systems"]["ours"]["invented"] == 0


def test_long_recordings_by_group_and_together(figures: dict[str, Any]) -> None:
    assert [(row["group"], row["systems"]["ours"]["invented"]) for row in figures["longform"]] == [
        ("pauses", 1),
        ("all", 1),
    ]


def test_parity_counts_tokens_text_and_times() -> None:
    same, other = answer("a", tokens=(1, 2)), answer("a", tokens=(1, 3))
    outcomes = [Outcome(CAT, {"ours": same, "reference": same}), Outcome(DOG, {"ours": same, "reference": other})]
    assert summarise(outcomes)["parity"] == {
        "given": {"clips": 2, "equal": 1, "share": 50.0, "same_times": 1, "same_text": 2}
    }
    assert summarise([Outcome(CAT, {"ours": same})])["parity"] == {}


def test_an_interval_tells_a_difference_from_chance() -> None:
    worse = [(Errors(5, 10), Errors(3, 10))] * 20
    assert difference_interval(worse) == (20.0, 20.0)
    mixed = [(Errors(5, 10), Errors(3, 10)), (Errors(3, 10), Errors(5, 10))] * 20
    low, high = difference_interval(mixed) or (0.0, 0.0)
    assert low < 0 < high
    assert difference_interval(worse[:4]) is None


def test_an_outcome_is_looked_up_with_text_and_language() -> None:
    shown = outcome(CAT, "the hat").as_json()
    assert (shown["name"], shown["text"], shown["answers"]["ours"]["text"]) == ("cat.wav", "the cat sat", "the hat")


def test_a_recording_in_several_noises_is_one_for_the_interval() -> None:
    noisy = [item("noise", f"{i // 2}.wav", "one two", group=f"white {i % 2} dB") for i in range(10)]
    (*_, together) = summarise([outcome(one, "one", "one two") for one in noisy])["noise"]
    assert (together["clips"], together["difference"]) == (10, (50.0, 50.0))
    (*_, few) = summarise([outcome(one, "one", "one two") for one in noisy[:8]])["noise"]
    assert (few["clips"], few["difference"]) == (8, None)


def test_what_was_left_out_is_added_up_by_reason() -> None:
    skips = (Skipped("no_voice", 1.0, 2.5), Skipped("no_voice", 4.0, 5.0), Skipped("repetition", 6.0, 6.5))
    left = Transcription("transcribe", "en", None, 9.0, "", (), warnings=skips)
    rows = skipped([Outcome(one, {"ours": left}) for one in (CAT, DOG)])
    assert rows == [
        {"pass": "given", "reason": "no_voice", "recordings": 2, "seconds": 5.0},
        {"pass": "given", "reason": "repetition", "recordings": 2, "seconds": 1.0},
    ]


def test_texts_written_by_ear_are_counted_apart() -> None:
    by_ear = replace(DOG, origin="here")
    rows = summarise([outcome(CAT, "the cat"), outcome(by_ear, "the dog ran off")])["error_rates"]
    assert [row["group"] for row in rows if row["grouping"] == "origin"] == ["here, WER", "source, WER"]
