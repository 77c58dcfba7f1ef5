"""What the command line asks: its arguments, checked, and as options of `Transcriber.transcribe`.

`parse` refuses what can be seen without a model; `model.__main__` does the work.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.dims import DIMENSIONS
from model.errors import OptionError
from model.options import TEMPERATURES, TranscribeOptions
from model.output import formats
from model.output.languages import LANGUAGE_WRITERS
from model.output.subtitles import Layout, check_format
from model.spellings import as_ours

DETECT = "detect-language"
"""The task that is no transcription: which language the first 30 s are in."""
_WHERE_GIVEN = (
    "prepend_punctuations",
    "append_punctuations",
    "suppress_tokens",
    "max_initial_timestamp",
    "no_speech_threshold",
    "logprob_threshold",
    "compression_ratio_threshold",
)
"""Options that keep their defaults where nothing is said of them."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments, checked as far as argparse can; openai-whisper's spellings are taken too."""
    parser = argparse.ArgumentParser(prog="python -m model", description="Transcribe recordings with Whisper.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audio, or video with a sound track")
    _add_model_options(parser)
    parser.add_argument(
        "--task", default="transcribe", choices=("transcribe", "translate", DETECT), help=f"{DETECT}: text or json"
    )
    parser.add_argument("--language", type=_language, help="code or English name; left out or auto, it is detected")
    parser.add_argument("--prompt", "--initial-prompt", help="text put before the first window: names, spelling, style")
    parser.add_argument("--temperature", type=_numbers, default=TEMPERATURES, help="a number or a comma list")
    parser.add_argument("--beam-size", type=int, help="beams at temperature 0")
    parser.add_argument("--patience", type=float, help="finished texts to wait for, as a multiple of the beams")
    parser.add_argument("--best-of", type=int, help="samples above temperature 0, of which the most probable is kept")
    parser.add_argument("--length-penalty", type=float, help="exponent of the length penalty, 0 to 1")
    parser.add_argument("--hotwords", help="names and words to expect, put before every window")
    carry = ("--carry-prompt", "--carry-initial-prompt")
    parser.add_argument(*carry, action="store_true", help="put the prompt before every window")
    parser.add_argument("--vad", action="store_true", help="hear only where somebody speaks")
    parser.add_argument(
        "--no-guards", action="store_true", help="openai-whisper's behaviour: nothing heard again or left out"
    )
    parser.add_argument(
        "--long-form", choices=("sequential", "batched"), default="sequential", help="batched: parts side by side"
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds sampling above temperature 0")
    parser.add_argument("--no-timestamps", action="store_true", help="decode without timestamps")
    parser.add_argument("--no-previous-text", action="store_true", help="do not condition a window on the text before")
    parser.add_argument("--clip-timestamps", type=_numbers, default=(), metavar="START,END,...", help="in seconds")
    _add_window_options(parser)
    _add_word_options(parser)
    _add_output_options(parser)
    args = parser.parse_args(as_ours(sys.argv[1:] if arguments is None else arguments))
    _check(args, parser)
    return args


def _check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what argparse cannot see by itself; `args.layout` is how subtitles are cut."""
    try:
        args.layout = Layout(
            max_line_width=args.max_line_width,
            max_line_count=args.max_line_count,
            max_words_per_line=args.max_words_per_line,
            highlight_words=args.highlight_words,
        )
        _check_formats(args.layout, args.formats)
    except OptionError as error:
        parser.error(str(error))
    if len(args.formats) > 1 and args.output_dir is None:
        parser.error("--format with several forms needs --output-dir")
    if args.task == DETECT:
        _check_detection(args, parser)
    if args.threads < 0:
        parser.error("--threads must be 0 or more")
    names = Counter(file.stem for file in args.files) if args.output_dir else Counter()
    if twice := [str(file) for file in args.files if names[file.stem] > 1]:
        parser.error(f"--output-dir would have several files of one name, of {', '.join(twice)}")


def _check_formats(layout: Layout, names: Sequence[str]) -> None:
    """`OptionError` for a layout that means nothing in any of these formats."""
    for number, name in enumerate(names, 1):
        try:
            check_format(layout, name)
        except OptionError:
            if number == len(names):
                raise
        else:
            return


def _check_detection(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuse what means nothing where nothing is transcribed."""
    for name in args.formats:
        if name not in LANGUAGE_WRITERS:
            parser.error(f"--task {DETECT} writes {' or '.join(LANGUAGE_WRITERS)}, not {name}")
    plain = TranscribeOptions()
    given = [name for name, value in options_of(args).items() if name != "task" and value != getattr(plain, name)]
    if given:
        parser.error(f"--task {DETECT} transcribes nothing, and takes no {', '.join(given)}")


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="base", help=f"{', '.join(DIMENSIONS)}, a .pt file or a folder")
    parser.add_argument(
        "--download-dir", "--model-dir", type=Path, help="folder for downloaded weights; left out, the user's cache"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--compute-type", default="auto", help="auto, int8, float32, float16 or bfloat16")
    parser.add_argument("--encoder-context", default="auto", help="auto, full or short")
    parser.add_argument(
        "--cross-kv", default="auto", help="auto, int8 or fp8: how the audio's keys and values are kept"
    )
    parser.add_argument("--cross-attention", default="auto", help="on a GPU: auto, torch or triton")
    parser.add_argument("--cuda-graphs", default="auto", help="on a GPU, replay captured steps: auto, true or false")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is torch's choice")


def _add_word_options(parser: argparse.ArgumentParser) -> None:
    words = parser.add_argument_group("words")
    words.add_argument("--word-timestamps", action="store_true", help="give json segments their words with times")
    words.add_argument("--prepend-punctuations", help="marks that belong to the word after them")
    words.add_argument("--append-punctuations", help="marks that belong to the word before them")
    words.add_argument(
        "--hallucination-silence-threshold",
        type=float,
        metavar="SECONDS",
        help="skip silence longer than this around text that looks invented",
    )
    words.add_argument(
        "--max-line-width",
        type=int,
        metavar="N",
        help="characters in a line of srt, vtt, and tsv with --max-line-count",
    )
    words.add_argument("--max-line-count", type=int, metavar="N", help="lines of a cue of srt, vtt and tsv")
    words.add_argument("--max-words-per-line", type=int, metavar="N", help="words in a line")
    words.add_argument("--highlight-words", action="store_true", help="underline each word as it is spoken")


def _add_window_options(parser: argparse.ArgumentParser) -> None:
    windows = parser.add_argument_group("windows", "What a window's text may be; `none` lifts a bound.")
    windows.add_argument(
        "--suppress-tokens", type=_token_ids, metavar="IDS", help="text never said; -1: signs nobody says (=-1,50,...)"
    )
    windows.add_argument("--no-suppress-blank", action="store_true", help="it may begin with a blank, or end at once")
    windows.add_argument("--max-tokens", type=int, metavar="N", help="tokens at most")
    bounds = {
        "--max-initial-timestamp": "seconds in which the first text must begin",
        "--no-speech-threshold": "no_speech_prob above which it may be silence",
        "--logprob-threshold": "mean log-probability below which the text fails",
        "--compression-ratio-threshold": "compression above which the text fails",
    }
    for name, meaning in bounds.items():
        windows.add_argument(name, type=_number, metavar="X", help=meaning)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(formats.WRITERS)
    parser.add_argument(
        "--format",
        "--output-format",
        "-f",
        dest="formats",
        type=_formats,
        default=("text",),
        help=f"what to write: {names}; several with commas, or all, go to --output-dir",
    )
    parser.add_argument(
        "--output-dir", "-o", type=Path, help="write files of the recordings' names here, not to standard output"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked of each recording, as `TranscribeOptions` names it."""
    given = {name: value for name in _WHERE_GIVEN if (value := getattr(args, name)) is not None}
    return {
        "task": args.task,
        "language": args.language,
        "temperature": args.temperature,
        "beam_size": args.beam_size,
        "patience": args.patience,
        "best_of": args.best_of,
        "length_penalty": args.length_penalty,
        "initial_prompt": args.prompt,
        "carry_initial_prompt": args.carry_prompt,
        "hotwords": args.hotwords,
        "condition_on_previous_text": not args.no_previous_text,
        "without_timestamps": args.no_timestamps,
        "word_timestamps": args.word_timestamps or args.layout.needs_words,
        "hallucination_silence_threshold": args.hallucination_silence_threshold,
        "vad": args.vad,
        "guards": not args.no_guards,
        "long_form": args.long_form,
        "seed": args.seed,
        "clip_timestamps": args.clip_timestamps,
        "sample_len": args.max_tokens,
        "suppress_blank": not args.no_suppress_blank,
        **{name: None if value == "none" else value for name, value in given.items()},
    }


def _formats(text: str) -> tuple[str, ...]:
    asked = ("text" if name == "txt" else name for name in text.split(","))
    names = tuple(formats.WRITERS) if text == "all" else tuple(dict.fromkeys(asked))
    if not set(names) <= formats.WRITERS.keys():
        raise argparse.ArgumentTypeError(f"must be of {', '.join(formats.WRITERS)} with commas between them, or all")
    return names


def _language(text: str) -> str | None:
    return None if text.strip().lower() == "auto" else text


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be a number, or numbers with commas between them") from None


def _number(text: str) -> float | str:
    """A number, or `none` as it is."""
    if text.strip().lower() == "none":
        return "none"
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a number or none") from None


def _token_ids(text: str) -> tuple[int, ...]:
    try:
        return () if text.strip().lower() == "none" else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be whole numbers with commas between them, or none") from None
