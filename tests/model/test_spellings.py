"""openai-whisper's command line: its options mean here what they mean there, or are refused by name."""

import inspect
import re
from pathlib import Path

import pytest

from model.arguments import options_of, parse
from model.spellings import as_ours

_REFUSED = {"--verbose", "--temperature_increment_on_fallback"}
_VALUES = {
    "--device": "cpu",
    "--model": "tiny",
    "--output_format": "srt",
    "-f": "vtt",
    "--task": "translate",
    "--suppress_tokens": "-1",
    "--clip_timestamps": "0",
}


def test_options_of_openai_whisper_are_taken_as_they_are_written_there(capsys) -> None:
    reference = pytest.importorskip("whisper.transcribe")
    names = re.findall(r'"(--?[a-z]\w*)"(?=.*help=)', inspect.getsource(reference.cli))
    flags = re.findall(r'"(--\w+)", type=str2bool', inspect.getsource(reference.cli))
    assert {"--output_format", "-f", "--beam_size", "--initial_prompt", "--threads"} <= set(names)
    assert "--word_timestamps" in flags
    subtitles, refused = ["--format", "srt", "--max-line-width", "40"], set()
    for name in names:
        value = "True" if name in flags else _VALUES.get(name, "1")
        try:
            assert parse([*subtitles, name, value, "a.wav"]).files == [Path("a.wav")], name
        except SystemExit:
            assert f"unrecognized arguments: {name.replace('_', '-')}" in capsys.readouterr().err
            refused.add(name)
    assert refused == _REFUSED


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("--initial_prompt Names --carry_initial_prompt True", "--prompt Names --carry-prompt"),
        ("--beam_size=5 --best_of 3", "--beam-size 5 --best-of 3"),
        ("--word_timestamps True", "--word-timestamps"),
        ("--word_timestamps=True", "--word-timestamps"),
        ("--word-timestamps False", ""),
        ("--highlight_words True -f srt", "--highlight-words --format srt"),
        ("--condition_on_previous_text False", "--no-previous-text"),
        ("--condition_on_previous_text True", ""),
        ("--fp16 True", "--compute-type float16"),
        ("--fp16 False", "--compute-type float32"),
        ("--verbose False", ""),
        ("--model_dir weights -o texts --output_format all", "--download-dir weights --output-dir texts --format all"),
        ("--output_format txt", "--format text"),
        ("--threads 4", "--threads 4"),
    ],
)
def test_spellings_that_mean_the_same(theirs, ours) -> None:
    asked, meant = parse(["b.wav", *theirs.split()]), parse(["b.wav", *ours.split()])
    assert asked == meant
    assert options_of(asked) == options_of(meant)


def test_only_names_of_options_are_spelt_anew() -> None:
    kept = ["--prompt=__a_b", "_c_.wav", "True", "--", "--word_timestamps", "True"]
    assert as_ours(kept) == kept
    assert as_ours(["--word-timestamps", "a_b.wav"]) == ["--word-timestamps", "a_b.wav"]
