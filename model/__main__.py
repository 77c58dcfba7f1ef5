"""The command line: `python -m model FILE...` writes what was said, as text, JSON or subtitles, or in which language.

A file that fails is named on standard error and the others are still done; the exit status is then 1. It is 2 where
nothing can be done at all: an option, the model or the output folder. Each text is written out when it is there.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from model.arguments import DETECT, options_of, parse
from model.capabilities import check_detection
from model.compute_options import ComputeOptions
from model.dims import FRAMES_PER_SECOND, N_FRAMES
from model.errors import WhisperError
from model.loading import load
from model.output import formats
from model.output.languages import LANGUAGE_WRITERS
from model.segments import SKIP_REASONS, Skipped, Transcription
from model.transcriber import Transcriber


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    try:
        args = parse(arguments)
    except SystemExit:  # --help is told, or what is wrong
        _print("")
        raise
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a locale may lack the characters of a language
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if args.output_dir is not None:
            _make_writable(args.output_dir)
        transcriber = _load(args)
        if args.task == DETECT:
            check_detection(transcriber.dims, transcriber.name)
        else:
            transcriber.options(**options_of(args))
        return _hear_all(transcriber, args)
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
        **asdict(ComputeOptions.of(args)),
        download_dir=args.download_dir,
        show_progress=not args.quiet,
    )


def _hear_all(transcriber: Transcriber, args: argparse.Namespace) -> int:
    """Every file in turn; the exit status."""
    failed = 0
    for file in args.files:
        try:
            texts, skipped = _hear(transcriber, args, file)
            if args.output_dir is not None:
                _write(texts, args.output_dir, file.stem)
        except (WhisperError, OSError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed += 1
            continue
        for one in skipped:
            print(f"{file}: {one.start:.1f} to {one.end:.1f} s: {SKIP_REASONS[one.reason]}", file=sys.stderr)
        if args.output_dir is None and not all(_print(text) for text in texts.values()):
            return 1
    return 1 if failed else 0


def _hear(transcriber: Transcriber, args: argparse.Namespace, file: Path) -> tuple[dict[str, str], Sequence[Skipped]]:
    """What is written of a file, by format, and what that does not say of what was skipped."""
    if args.task == DETECT:
        heard = transcriber.detect_language(file)
        return {name: LANGUAGE_WRITERS[name](heard) for name in args.formats}, ()
    result = _transcribe(transcriber, args, file)
    texts = {name: formats.WRITERS[name](result, args.layout) for name in args.formats}
    return texts, () if "json" in texts else result.warnings


def _write(texts: Mapping[str, str], folder: Path, name: str) -> None:
    for form, text in texts.items():
        (folder / f"{name}.{'txt' if form == 'text' else form}").write_text(text, encoding="utf-8")


def _transcribe(transcriber: Transcriber, args: argparse.Namespace, file: Path) -> Transcription:
    """One file, with a progress bar where it is longer than a window."""
    bar: tqdm[NoReturn] | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if total > N_FRAMES and not args.quiet:
            bar = bar or tqdm(total=total // FRAMES_PER_SECOND, unit="s", desc=file.name, file=sys.stderr)
            bar.update(done // FRAMES_PER_SECOND - bar.n)

    try:
        return transcriber.transcribe(file, progress=show, **options_of(args))
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


if __name__ == "__main__":
    sys.exit(main())
