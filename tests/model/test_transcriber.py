"""The whole library on real weights and real speech, held against the reference on the same weights."""

import io
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import load
from model.audio import decode_audio
from model.dims import HOP_LENGTH
from model.errors import InvalidAudioError, OptionError, WeightsError
from model.search.sampling import row_seed
from model.segments import Segment, Transcription
from model.transcriber import Transcriber
from tests import tiny

CLIPS = json.loads((Path(__file__).parents[1] / "audio" / "manifest.json").read_text())
SPOKEN = [clip for clip in CLIPS if clip["text"]]


def _samples(path: Path) -> np.ndarray:
    samples = decode_audio(path).samples
    return samples.astype(np.float32) / 32768.0 if samples.dtype == np.int16 else samples


def _words(text: str) -> str:
    return "".join(c.lower() for c in text if c.isalnum())


@pytest.mark.oracle
@pytest.mark.weights
@pytest.mark.parametrize("clip", SPOKEN, ids=lambda clip: clip["file"])
def test_tokens_and_times_equal_the_reference(base, reference, clips, clip) -> None:
    import whisper

    samples = _samples(clips / clip["file"])
    ours = base.transcribe(samples, language=clip["language"], temperature=0.0)
    theirs = whisper.transcribe(reference, samples, language=clip["language"], temperature=0.0, fp16=False)
    wanted = [segment for segment in theirs["segments"] if segment["text"]]
    assert [list(segment.tokens) for segment in ours.segments] == [segment["tokens"] for segment in wanted]
    assert ours.text == theirs["text"]
    heard = len(samples) // HOP_LENGTH / 100  # the reference's last segment may end after it
    for segment, want in zip(ours.segments, wanted, strict=True):
        assert (segment.seek, segment.start, segment.end) == (want["seek"], want["start"], min(want["end"], heard))
        assert segment.avg_logprob == pytest.approx(want["avg_logprob"], abs=1e-3)
        assert segment.no_speech_prob == pytest.approx(want["no_speech_prob"], abs=1e-3)
        assert segment.compression_ratio == pytest.approx(want["compression_ratio"])


WORDED = [
    ("en-jfk.flac", {"language": "en", "clip_timestamps": (3.0,)}),
    ("zh-guangzhou.flac", {"language": "zh", "initial_prompt": "广州的房子。"}),
    ("de-mekka.ogg", {"language": "de", "task": "translate"}),
    ("noise.flac", {"language": "en", "hallucination_silence_threshold": 1.0}),
]


@pytest.mark.oracle
@pytest.mark.weights
@pytest.mark.filterwarnings("ignore:Word-level timestamps on translations")
@pytest.mark.parametrize(("clip", "options"), WORDED, ids=lambda value: value if isinstance(value, str) else "")
def test_words_and_their_times_equal_the_reference(base, reference, clips, clip, options) -> None:
    import whisper

    samples = _samples(clips / clip)
    options |= {"temperature": 0.0, "word_timestamps": True}
    theirs = {**options, "clip_timestamps": list(options.get("clip_timestamps", (0.0,))), "fp16": False}
    _check_words(base.transcribe(samples, guards=False, **options), whisper.transcribe(reference, samples, **theirs))


def _check_words(ours: Transcription, theirs: dict[str, Any]) -> None:
    """The same words, 95 % of them within 40 ms; a frame is 20 ms, and rounding may move a border by one."""
    words = [word for segment in ours.segments for word in segment.words]
    wanted = [word for segment in theirs["segments"] for word in segment["words"]]
    assert [word.word for word in words] == [word["word"] for word in wanted]
    pairs = list(zip(words, wanted, strict=True))
    close = [abs(a.start - b["start"]) <= 0.041 and abs(a.end - b["end"]) <= 0.041 for a, b in pairs]
    assert sum(close) >= 0.95 * len(close)
    assert [a.probability for a, _ in pairs] == pytest.approx([b["probability"] for _, b in pairs], abs=1e-2)
    for segment in ours.segments:
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end) or not segment.words


@pytest.mark.weights
def test_a_window_without_speech_gives_no_text_and_says_so(base, clips) -> None:
    samples = _samples(clips / "noise.flac")
    unguarded = base.transcribe(samples, language="en", guards=False, no_speech_threshold=None)
    assert unguarded.text
    guarded = base.transcribe(samples, language="en", no_speech_threshold=None)
    assert guarded.text == ""
    assert {one.reason for one in guarded.warnings} == {"no_voice"}


@pytest.mark.weights
def test_speech_that_the_model_takes_for_silence_is_heard_as_speech(base, clips) -> None:
    speech = clips / "de-leichenhalle.wav"
    strict = {"language": "de", "no_speech_threshold": 0.0, "logprob_threshold": 0.0}  # every window is silence
    unguarded = base.transcribe(speech, guards=False, **strict)
    assert (unguarded.text, unguarded.warnings[0].reason) == ("", "no_speech")
    guarded = base.transcribe(speech, **strict)
    assert guarded.text.startswith(" Der hinter diesem")
    assert {one.reason for one in guarded.warnings} <= {"unconfirmed"}  # its witnesses may miss a word of it


@pytest.mark.oracle
@pytest.mark.weights
def test_sampled_tokens_equal_the_reference_on_the_same_seeds(base, reference, clips, monkeypatch) -> None:
    import whisper

    # No text passes these thresholds, so the ladder goes to its end in every window.
    options = {"language": "en", "temperature": (0.0, 0.8), "logprob_threshold": -0.0001}
    options |= {"no_speech_threshold": None, "initial_prompt": "A lecture on printing."}
    calls = {"window": -1, "rung": 0}
    decode = reference.decode

    def seeded(mel, settings):
        first = settings.temperature == 0.0
        calls["window"], calls["rung"] = calls["window"] + first, 0 if first else calls["rung"] + 1
        torch.manual_seed(row_seed(0, calls["window"], calls["rung"]))
        return decode(mel, settings)

    monkeypatch.setattr(reference, "decode", seeded, raising=False)
    samples = _samples(clips / "en-printing.ogg")[: 32 * 16_000]
    options["word_timestamps"] = True
    theirs = whisper.transcribe(reference, samples, fp16=False, **options)
    ours = base.transcribe(samples, guards=False, **options)
    wanted = [segment for segment in theirs["segments"] if segment["text"]]
    assert {segment.temperature for segment in ours.segments} == {0.8}
    _check_words(ours, theirs)
    assert [list(segment.tokens) for segment in ours.segments] == [segment["tokens"] for segment in wanted]


@pytest.mark.weights
@pytest.mark.parametrize("clip", SPOKEN, ids=lambda clip: clip["file"])
def test_the_language_of_every_clip_is_detected(base, clips, clip) -> None:
    probabilities = base.detect_language(clips / clip["file"])
    assert next(iter(probabilities)) == clip["language"]
    assert math.isclose(sum(probabilities.values()), 1.0, abs_tol=1e-4)


@pytest.mark.weights
def test_silence_gives_no_segments(base, clips) -> None:
    result = base.transcribe(clips / "silence.flac")
    assert (result.segments, result.text) == ((), "")


@pytest.mark.weights
def test_german_is_translated_to_english(base, clips) -> None:
    result = base.transcribe(clips / "de-leichenhalle.wav", task="translate")
    assert (result.task, result.language) == ("translate", "de")
    assert {"room", "used"} & set(result.text.lower().split())


@pytest.mark.weights
def test_an_english_only_model_transcribes_and_refuses_the_rest(clips) -> None:
    tiny_en = load("tiny.en", "cpu")
    result = tiny_en.transcribe(clips / "en-jfk.flac")
    assert (result.language, result.language_probability) == ("en", None)
    assert "ask not what your country can do for you" in result.text.lower().replace(",", "")
    for options in ({"language": "de"}, {"task": "translate"}):
        with pytest.raises(OptionError):
            tiny_en.transcribe(clips / "en-jfk.flac", **options)
    with pytest.raises(OptionError):
        tiny_en.detect_language(clips / "en-jfk.flac")


@pytest.mark.weights
def test_integer_samples_and_the_file_give_the_same_text(base, clips) -> None:
    path = clips / "en-jfk.flac"
    samples = decode_audio(path).samples
    assert samples.dtype == np.int16
    texts = {base.transcribe(audio, language="en").text for audio in (path, path.read_bytes(), samples)}
    assert len(texts) == 1
    assert _words(texts.pop()) == _words(next(c["text"] for c in CLIPS if c["file"] == "en-jfk.flac"))


@pytest.fixture(scope="module")
def random_model() -> Transcriber:
    return tiny.transcriber()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"beams": 3}, "beams"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": (0.5,) * 40}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"task": "summarise"}, "task"),
        ({"language": "klingon"}, "language"),
        ({"language": "yue"}, "language"),
        ({"no_speech_threshold": 2.0}, "no_speech_threshold"),
        ({"logprob_threshold": math.inf}, "logprob_threshold"),
        ({"clip_timestamps": (3.0, 1.0)}, "clip_timestamps"),
        ({"sample_len": 0}, "sample_len"),
        ({"max_initial_timestamp": 31.0}, "max_initial_timestamp"),
    ],
)
def test_a_bad_option_is_refused_by_name(random_model, options, param) -> None:
    with pytest.raises(OptionError) as caught:
        random_model.transcribe(tiny.speech(1.0), **options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("param", "value", "words"),
    [
        ("temperature", "0", "a tuple, each item a number, not str"),
        ("temperature", None, "a tuple, each item a number, not NoneType"),
        ("beam_size", "5", "a whole number or None, not str"),
        ("beam_size", 2.5, "a whole number or None, not float"),
        ("beam_size", True, "a whole number or None, not bool"),
        ("language", 5, "text or None, not int"),
        ("initial_prompt", ["Kim"], "text or None, not list"),
        ("hotwords", ["Kim"], "text or None, not list"),
        ("append_punctuations", None, "text, not NoneType"),
        ("clip_timestamps", "0,1", "a tuple, each item a number, not str"),
        ("suppress_tokens", None, "a tuple, each item a whole number, not NoneType"),
        ("no_speech_threshold", "none", "a number or None, not str"),
        ("vad", "false", "True or False, not str"),
        ("seed", "a", "a whole number, not str"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(random_model, param, value, words) -> None:
    with pytest.raises(OptionError, match=f"^{param} must be {words}$") as caught:
        random_model.options(**{param: value})
    assert caught.value.param == param


def test_numbers_may_be_of_numpy(random_model) -> None:
    options = random_model.options(temperature=np.float32(0), beam_size=np.int64(2), clip_timestamps=[np.float32(1)])
    assert (options.temperature, options.beam_size, options.clip_timestamps) == ((0.0,), 2, [1.0])


@pytest.mark.parametrize(
    ("param", "value", "bounds"),
    [
        ("logprob_threshold", 1, "at most 0"),
        ("compression_ratio_threshold", -1, "at least 0"),
        ("no_speech_threshold", 2, "between 0 and 1"),
        ("patience", math.nan, "between 0.1 and 10"),
    ],
)
def test_a_number_out_of_bounds_is_told_the_bounds_that_there_are(random_model, param, value, bounds) -> None:
    with pytest.raises(OptionError, match=f"^{param} must be {bounds}$"):
        random_model.options(**{param: value})


@pytest.mark.parametrize(
    ("audio", "kind"),
    [(None, "NoneType"), ([0.0], "list"), (5, "int"), (io.StringIO("RIFF"), "a file that is open for text")],
)
def test_audio_of_another_type_is_refused_in_words(random_model, audio, kind) -> None:
    for method in (random_model.transcribe, random_model.detect_language, random_model.decode):
        with pytest.raises(InvalidAudioError, match=f"^audio must be .*, not {kind}$"):
            method(audio)


@pytest.mark.parametrize("audio", [torch.zeros(0), torch.zeros(2, 100), np.zeros((0,), np.float32)])
def test_samples_of_no_use_are_refused(random_model, audio) -> None:
    with pytest.raises(InvalidAudioError):
        random_model.transcribe(audio)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint16, np.bool_, np.complex64])
@pytest.mark.parametrize("convert", [np.asarray, lambda samples: torch.from_numpy(np.array(samples))])
def test_numbers_of_an_unknown_scale_are_refused_by_name(random_model, kind, convert) -> None:
    with pytest.raises(InvalidAudioError, match=f"not .*{np.dtype(kind).name}"):
        random_model.detect_language(convert(np.zeros(1600, kind)))


def _read_only(samples: np.ndarray) -> np.ndarray:
    return np.frombuffer(samples.tobytes(), samples.dtype)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize(
    "laid_out",
    [
        lambda samples: samples.astype(samples.dtype.newbyteorder(">")),
        lambda samples: samples[::-1].copy()[::-1],
        lambda samples: np.repeat(samples, 2)[::2],
        lambda samples: samples if samples.dtype == np.int16 else samples.astype(np.longdouble),
        _read_only,
    ],
)
def test_samples_may_lie_in_memory_in_any_way(random_model, laid_out, kind) -> None:
    samples = (tiny.speech(1.0).numpy() * (32_767 if kind is np.int16 else 1)).astype(kind)
    assert random_model.detect_language(laid_out(samples)) == random_model.detect_language(samples)


def test_samples_may_come_from_a_network_in_training(random_model) -> None:
    samples = tiny.speech(1.0)
    tracked = samples.clone().requires_grad_()
    assert random_model.detect_language(tracked) == random_model.detect_language(samples)


def test_progress_reaches_the_end_and_the_batch_is_free_again(random_model) -> None:
    seen, said = list[tuple[int, int]](), list[Any]()
    whole = random_model.transcribe(
        tiny.speech(61.0), language="en", temperature=0.0, sample_len=5, guards=False, no_speech_threshold=None,
        progress=lambda *at: seen.append(at), hear=said.append,
    )  # fmt: skip
    assert (len(said) > 1, sum(said, ())) == (True, whole.segments)
    assert seen[-1] == (6100, 6100)
    assert seen == sorted(seen)
    assert random_model.batch.free_windows == 1


def test_an_interrupted_transcription_frees_its_slot(random_model, monkeypatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(random_model.batch, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        random_model.transcribe(tiny.speech(1.0), language="en")
    monkeypatch.undo()
    assert random_model.batch.free_windows == 1
    assert random_model.transcribe(tiny.speech(1.0), language="en", sample_len=3).duration == 1.0


def test_parts_side_by_side_give_what_each_gives_alone(random_model) -> None:
    samples = tiny.speech(100.0)
    options = {"language": "en", "temperature": 0.0, "sample_len": 6, "no_speech_threshold": None, "guards": False}
    seen, heard = list[tuple[int, int]](), list[Segment]()
    calls = {"progress": lambda *at: seen.append(at), "hear": heard.extend, "long_form": "batched"}
    together = random_model.transcribe(samples, **calls, **options)
    assert tuple(heard) == together.segments
    assert max(random_model._side_by_side.steps) > 1
    batch = random_model._side_by_side
    assert (batch.free_windows, batch.free_rows) == (batch.max_windows, batch.max_rows)
    assert (seen[-1], seen) == ((10_000, 10_000), sorted(seen))
    parts = sorted({segment.seek for segment in together.segments} | {0})
    alone = []
    for start, end in zip(parts, [*parts[1:], 10_000], strict=True):
        clip = (start / 100, end / 100)
        alone += random_model.transcribe(samples, clip_timestamps=clip, long_form="sequential", **options).segments
    assert [segment.tokens for segment in together.segments] == [segment.tokens for segment in alone]


@pytest.mark.weights
def test_speech_between_silences_is_found_whole_and_the_silence_reported(base, clips) -> None:
    spoken = _samples(clips / "en-jfk.flac")
    silence = np.zeros(25 * 16_000, np.float32)
    samples = np.concatenate([silence, spoken, silence, spoken[: 3 * 16_000], silence])
    for long_form in ("sequential", "batched"):
        result = base.transcribe(samples, language="en", vad=True, long_form=long_form)
        assert "ask not what your country can do for you" in result.text.lower().replace(",", "")
        assert result.text.lower().count("fellow americans") == 2
        assert [skipped.reason for skipped in result.warnings] == ["vad"] * 3
        assert sum(skipped.end - skipped.start for skipped in result.warnings) > 65
        assert all(segment.start > 24 for segment in result.segments)
    silent = base.transcribe(silence, vad=True)
    assert (silent.text, silent.segments) == ("", ())
    assert [(skipped.start, skipped.end) for skipped in silent.warnings] == [(0.0, 25.0)]


@pytest.mark.parametrize("sample", [math.nan, math.inf, -math.inf, 1e30])
def test_samples_that_are_no_numbers_are_no_audio(sample) -> None:
    samples = np.zeros(16_000, np.float32)
    samples[8000] = sample
    with pytest.raises(InvalidAudioError, match="no numbers"):
        tiny.transcriber().transcribe(samples)
    assert tiny.transcriber().transcribe(np.full(16_000, 20_000.0, np.float32), language="en").duration == 1.0


def test_the_download_folder_may_be_text(tmp_path) -> None:
    (tmp_path / "tiny.pt").write_bytes(b"other")
    with pytest.raises(WeightsError, match="has SHA-256"):
        load("tiny", "cpu", download_dir=str(tmp_path))


def test_threads_that_share_a_model_take_turns() -> None:
    whisper, windows, begun = tiny.transcriber(), [], threading.Event()

    def hear(name: str, seconds: int) -> None:
        def progress(_done: int, _total: int) -> None:
            windows.append(name)
            begun.set()
            time.sleep(0.2)  # for the other one to come in between

        options = {"language": "en", "temperature": 0.0, "guards": False}
        whisper.transcribe(np.zeros(16_000 * seconds, np.float32), progress=progress, **options)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(hear, "first", 65)
        begun.wait(60)
        second = threads.submit(hear, "second", 1)
        first.result()
        second.result()
    assert len(windows) > 2
    assert windows == sorted(windows)
