"""Whether a GPU says what float32 on a CPU says, with real weights, where there is neither a codec nor a scorer.

    python -m benchmarks.texts take CORPUS CLIPS.npz [--seconds 900]
    python -m benchmarks.texts hear CLIPS.npz ANSWERS.json --model base.pt --device cuda [--cross-kv int8]
    python -m benchmarks.texts compare CLIPS.npz ONE.json OTHER.json

`take` makes one file of the corpus's clips of up to 30 s, evenly drawn: samples, languages, references. `hear` has the
service's engine transcribe all of them at once, greedily, the language named, without guards (a draw, or the voice
activity detector, would be another question), and writes texts. `compare` tells how many of them are the same, and the
word error rate of each. The middle one runs on the machine with the GPU, with what `benchmarks.saturation` needs.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy.corpus import SPEECH, Clip, read_corpus
from benchmarks.machine.device import device_name, wait
from model import load
from model.compute import CROSS_KVS
from model.dims import CHUNK_LENGTH, SAMPLE_RATE
from model.gpu.beside import SideStream
from model.native.quantize import cross_kv_name, decoder_name
from model.options import TranscribeOptions
from model.transcriber import Transcriber
from service.wire.messages import Failed, Finished, Transcribe
from service.worker.engine import Engine

_ABOUT = "about"
"""The array that holds, as JSON, file, language and reference of every clip."""


def take(clips: Sequence[Clip], seconds: float, file: Path) -> int:
    """Write evenly drawn clips, some `seconds` in all; how many."""
    from benchmarks.accuracy.waveform import read_waveform

    chosen = [clip for clip in clips if clip.text and clip.language and clip.seconds <= CHUNK_LENGTH]
    step = max(1.0, sum(clip.seconds for clip in chosen) / seconds)
    chosen = [chosen[int(i * step)] for i in range(int(len(chosen) / step))]
    arrays: dict[str, Any] = {
        str(i): (read_waveform(clip.path) * 32767).round().astype(np.int16) for i, clip in enumerate(chosen)
    }
    about = [{"file": clip.file, "language": clip.language, "text": clip.text} for clip in chosen]
    np.savez_compressed(file, **arrays | {_ABOUT: np.array(json.dumps(about))})
    return len(chosen)


def taken(file: Path) -> tuple[list[dict[str, str]], list[NDArray[np.int16]]]:
    """What `take` wrote: what is known of the clips, and their samples."""
    with np.load(file) as arrays:
        about: list[dict[str, str]] = json.loads(str(arrays[_ABOUT]))
        return about, [arrays[str(i)] for i in range(len(about))]


def hear(
    transcriber: Transcriber, languages: Sequence[str], sounds: Sequence[NDArray[np.int16]], *, rows: int
) -> list[str]:
    """The texts of clips that come all at once, by the service's engine with so many rows."""
    model = transcriber.model
    on_gpu = model.device.type == "cuda"
    beside = SideStream(model.device) if on_gpu and model.captures_steps else None
    engine = Engine(transcriber, max_rows=rows, windows_per_encode=8 if on_gpu else 1, beside=beside)
    for i, (language, sound) in enumerate(zip(languages, sounds, strict=True)):
        options = TranscribeOptions(language=language, temperature=(0.0,), guards=False)
        engine.submit(Transcribe(str(i), "int16", len(sound), options, None), torch.from_numpy(sound), 0.0)
    return [text for _, text in sorted(_answers(engine))]


def _answers(engine: Engine) -> Iterator[tuple[int, str]]:
    while engine.busy:
        for message in engine.iterate(0.0):
            if isinstance(message, Failed):
                raise RuntimeError(f"clip {message.request_id} failed: {message.message}")
            if isinstance(message, Finished):
                yield int(message.request_id), message.text


def compare(about: Sequence[dict[str, str]], one: Sequence[str], other: Sequence[str]) -> dict[str, float]:
    """Per cent of texts that are the same, and word error rates where words are counted."""
    from benchmarks.accuracy.scoring import CHARACTER_LANGUAGES, Errors, Scorer

    scorer, totals = Scorer(), [Errors(), Errors()]
    for clip, *texts in zip(about, one, other, strict=True):
        if clip["language"] not in CHARACTER_LANGUAGES:
            found = [scorer.errors(clip["text"], text, clip["language"]) for text in texts]
            totals = [total + errors for total, errors in zip(totals, found, strict=True)]
    same = sum(a == b for a, b in zip(one, other, strict=True))
    return {"same": 100 * same / len(about), "wer_one": totals[0].rate, "wer_other": totals[1].rate}


def main(arguments: list[str] | None = None) -> int:
    """Do one of the three; 2 where the device is not there."""
    options = _parser().parse_args(arguments)
    if options.what == "take":
        count = take(read_corpus(options.corpus, kinds=SPEECH), options.seconds, options.clips)
        sys.stdout.write(f"{count} clips\n")
        return 0
    about, sounds = taken(options.clips)
    if options.what == "compare":
        one, other = (json.loads(file.read_text(encoding="utf-8"))["texts"] for file in (options.one, options.other))
        sys.stdout.write(json.dumps({"bench": "texts", "clips": len(about)} | compare(about, one, other)) + "\n")
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here: nothing was heard\n")
        return 2
    settings = {"cross_attention": options.cross_attention, "cuda_graphs": options.cuda_graphs}
    transcriber = load(options.model, options.device, options.compute_type, cross_kv=options.cross_kv, **settings)
    begin = time.perf_counter()
    texts = hear(transcriber, [clip["language"] for clip in about], sounds, rows=options.rows)
    wait(transcriber.model.device)
    run = _run(transcriber, time.perf_counter() - begin, sum(map(len, sounds)) / SAMPLE_RATE)
    options.answers.write_text(json.dumps(run | {"texts": texts}), encoding="utf-8")
    sys.stdout.write(json.dumps(run | {"clips": len(texts)}) + "\n")
    return 0


def _run(transcriber: Transcriber, seconds: float, audio_seconds: float) -> dict[str, Any]:
    """What was heard by whom."""
    model = transcriber.model
    run: dict[str, Any] = {"bench": "texts", "model": transcriber.name, "device": device_name(model.device)}
    run |= {"torch": torch.__version__, "compute_type": model.compute_type, "decoder": decoder_name(model)}
    run |= {"cross_kv": cross_kv_name(model), "captured": model.captures_steps, "left_out": dict(transcriber.left_out)}
    return run | {"seconds": seconds, "audio_seconds": audio_seconds}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texts", description=__doc__)
    what = parser.add_subparsers(dest="what", required=True)
    taking, hearing, comparing = (what.add_parser(name) for name in ("take", "hear", "compare"))
    taking.add_argument("corpus", type=Path)
    for command in (taking, hearing, comparing):
        command.add_argument("clips", type=Path)
    taking.add_argument("--seconds", type=float, default=900.0)
    hearing.add_argument("answers", type=Path)
    hearing.add_argument("--model", default="base", help="a name, a .pt file or a folder")
    hearing.add_argument("--device", default="cuda")
    hearing.add_argument("--compute-type", default="auto")
    hearing.add_argument("--cross-kv", default="auto", choices=CROSS_KVS)
    hearing.add_argument("--cross-attention", default="auto")
    hearing.add_argument("--cuda-graphs", default="auto")
    hearing.add_argument("--rows", type=int, default=16)
    comparing.add_argument("one", type=Path)
    comparing.add_argument("other", type=Path)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
