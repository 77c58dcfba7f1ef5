"""The command line: `python -m model FILE...` writes what was said, as text, JSON or subtitles.

A file that fails is named on standard error and the others are still done; the exit status is then 1. It is 2 where
nothing can be done at all: an option, the model or the output folder. Each text is written out when it is there.
"""

import argparse
import errno
import io
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from model.dims import DIMENSIONS, FRAMES_PER_SECOND, N_FRAMES
from model.errors import OptionError, WhisperError
from model.options import TEMPERATURES
from model.output import formats
from model.output.subtitles import Layout, check_format
from model.segments import Transcription
from model.transcriber import Transcriber, load


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The arguments, checked as far as argparse can."""
    parser = argparse.ArgumentParser(prog="python -m model", description="Transcribe recordings with Whisper.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audio, or video with a sound track")
    parser.add_argument("--model", default="base", help=f"{', '.join(DIMENSIONS)}, a .pt file or a folder")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--compute-type", default="auto", help="auto, int8, float32, float16 or bfloat16")
    parser.add_argument("--encoder-context", default="auto", help="auto, full or short")
    parser.add_argument(
        "--cross-kv", default="auto", help="auto, int8 or fp8: how the audio's keys and values are kept"
    )
    parser.add_argument("--cross-attention", default="auto", help="on a GPU: auto, torch or triton")
    parser.add_argument("--cuda-graphs", default="auto", help="on a GPU, replay captured steps: auto, true or false")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is torch's choice")
    parser.add_argument("--task", default="transcribe", choices=("transcribe", "translate"))
    parser.add_argument("--language", type=_language, help="code or English name; left out or auto, it is detected")
    parser.add_argument("--prompt", help="text put before the first window: names, spelling, style")
    parser.add_argument("--temperature", type=_temperatures, default=TEMPERATURES, help="a number or a comma list")
    parser.add_argument("--beam-size", type=int, help="beams at temperature 0")
    parser.add_argument("--patience", type=float, help="finished texts to wait for, as a multiple of the beams")
    parser.add_argument("--best-of", type=int, help="samples above temperature 0, of which the most probable is kept")
    parser.add_argument("--length-penalty", type=float, help="exponent of the length penalty, 0 to 1")
    parser.add_argument("--hotwords", help="names and words to expect, put before every window")
    parser.add_argument("--carry-prompt", action="store_true", help="put the prompt before every window")
    parser.add_argument("--vad", action="store_true", help="hear only where somebody speaks")
    parser.add_argument("--no-guards", action="store_true", help="keep what looks invented, as the reference does")
    parser.add_argument(
        "--long-form", choices=("sequential", "batched"), default="sequential", help="batched: parts side by side"
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds sampling above temperature 0")
    parser.add_argument("--no-timestamps", action="store_true", help="decode without timestamps")
    parser.add_argument("--no-previous-text", action="store_true", help="do not condition a window on the text before")
    _add_word_options(parser)
    parser.add_argument("--format", default="text", choices=tuple(formats.WRITERS), help="what to write")
    parser.add_argument("--output-dir", type=Path, help="write one file per recording here, not to standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
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
        check_format(args.layout, args.format)
    except OptionError as error:
        parser.error(str(error))
    if args.threads < 0:
        parser.error("--threads must be 0 or more")
    names = Counter(file.stem for file in args.files) if args.output_dir else Counter()
    if twice := [str(file) for file in args.files if names[file.stem] > 1]:
        parser.error(f"--output-dir would have several files of one name, of {', '.join(twice)}")


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
    words.add_argument("--max-line-width", type=int, metavar="N", help="characters in a line of srt and vtt")
    words.add_argument("--max-line-count", type=int, metavar="N", help="lines of a cue")
    words.add_argument("--max-words-per-line", type=int, metavar="N", help="words in a line")
    words.add_argument("--highlight-words", action="store_true", help="underline each word as it is spoken")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    args = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a locale may lack the characters of a language
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if args.output_dir is not None:
            _make_writable(args.output_dir)
        transcriber = _load(args)
        transcriber.options(**_options(args))
        return _transcribe_all(transcriber, args)
    except (WhisperError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # what a shell says of a command that an interrupt ended


def _make_writable(folder: Path) -> None:
    """The folder that texts will go to; `OSError` now, and not after the hours that the first of them may take."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _load(args: argparse.Namespace) -> Transcriber:
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    return load(
        args.model,
        args.device,
        args.compute_type,
        args.encoder_context,
        args.cross_kv,
        cross_attention=args.cross_attention,
        cuda_graphs=args.cuda_graphs,
        show_progress=not args.quiet,
    )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What is asked of each recording, as `TranscribeOptions` names it."""
    marks = {name: getattr(args, name) for name in ("prepend_punctuations", "append_punctuations")}
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
        **{name: value for name, value in marks.items() if value is not None},
    }


def _transcribe_all(transcriber: Transcriber, args: argparse.Namespace) -> int:
    """Every file in turn; the exit status."""
    failed = 0
    for file in args.files:
        try:
            content = formats.WRITERS[args.format](_transcribe(transcriber, args, file), args.layout)
            if args.output_dir is not None:
                extension = "txt" if args.format == "text" else args.format
                (args.output_dir / f"{file.stem}.{extension}").write_text(content, encoding="utf-8")
        except (WhisperError, OSError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed += 1
            continue
        if args.output_dir is None and not _print(content):
            return 1
    return 1 if failed else 0


def _transcribe(transcriber: Transcriber, args: argparse.Namespace, file: Path) -> Transcription:
    """One file, with a progress bar where it is longer than a window."""
    bar: tqdm[NoReturn] | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if total > N_FRAMES and not args.quiet:
            bar = bar or tqdm(total=total // FRAMES_PER_SECOND, unit="s", desc=file.name, file=sys.stderr)
            bar.update(done // FRAMES_PER_SECOND - bar.n)

    try:
        return transcriber.transcribe(file, progress=show, **_options(args))
    finally:
        if bar is not None:
            bar.close()


def _print(content: str) -> bool:
    """Whether standard output took it; if not, nobody is left to write for."""
    try:
        sys.stdout.write(content)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough, such as `head`, is no fault
            print(f"standard output: {error}", file=sys.stderr)
        # What is still in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _language(text: str) -> str | None:
    return None if text.strip().lower() == "auto" else text


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("must be a number, or numbers with commas between them") from None


if __name__ == "__main__":
    sys.exit(main())
