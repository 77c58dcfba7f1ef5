"""A model worker: the process that holds one model on one device and runs the engine for all requests sent to it.

Gets `Transcribe`, `DetectLanguage` and `Cancel` with waveforms over the channel from `service.pool`, gives back
segments as they are final, results and statistics. Started as `python -m service.worker`; it ends when the channel
does, and the kernel kills it with its parent.
"""

import argparse
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import OptionError
from service.channel import Channel, ChannelClosed
from service.memory import read_all
from service.messages import (
    Cancel,
    DetectLanguage,
    Failed,
    Message,
    ModelInfo,
    SampleFormat,
    StartFailed,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.process import die_with_parent, leave_signals_to_parent, resident_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from model.dims import ModelDimensions
    from service.engine import Engine

_STATS_SECONDS = 0.5
_WARM_UP_STEPS = 8
_CPU_ROWS = 16


class Worker:
    """The engine between the two ends of the channel."""

    def __init__(self, channel: Channel, engine: "Engine") -> None:
        self._channel, self._engine = channel, engine
        self._next_stats = 0.0

    def run(self) -> None:
        """Serve until `Stop` or the end of the channel."""
        self._channel.send(self._stats())
        while True:
            timeout = 0.0 if self._engine.busy else _STATS_SECONDS
            while (message := self._channel.receive(timeout)) is not None:
                if isinstance(message, Stop):
                    return
                self._take(message)
                timeout = 0.0
            now = time.monotonic()
            if self._engine.busy:
                for answer in self._engine.iterate(now):
                    self._channel.send(answer)
            if now >= self._next_stats:
                self._next_stats = now + _STATS_SECONDS
                self._channel.send(self._stats())

    def _take(self, message: Message) -> None:
        if isinstance(message, Cancel):
            self._engine.cancel(message.request_id)
        elif isinstance(message, Transcribe | DetectLanguage):
            fd = self._channel.take_fd()
            try:
                samples = to_tensor(read_all(fd), message.sample_format)
            finally:
                os.close(fd)
            if len(samples) != message.n_samples or len(samples) == 0:
                self._channel.send(Failed(message.request_id, "internal_error", "the waveform came incomplete"))
                return
            for answer in self._engine.submit(message, samples, time.monotonic()):
                self._channel.send(answer)

    def _stats(self) -> WorkerStats:
        engine, batch = self._engine, self._engine.batch
        return WorkerStats(
            progress=engine.stats.heard + engine.stats.encodes + batch.steps.total(),
            steps=batch.steps.total(),
            rows=batch.active_rows,
            tokens=engine.stats.tokens,
            waiting_windows=engine.waiting_windows,
            audio_seconds=engine.stats.audio_seconds,
            fallbacks=dict(batch.fallbacks),
            guards=dict(engine.stats.guards),
            batch_rows={str(rows): count for rows, count in batch.steps.items()},
            out_of_memory=engine.out_of_memory,
            memory_bytes=memory_bytes(batch.model.device),
        )


def memory_bytes(device: "torch.device") -> dict[str, int]:
    """Memory by kind, as `WorkerStats` says it."""
    import torch

    memory = {"resident": resident_bytes()}
    if device.type == "cuda":
        memory |= {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "total": torch.cuda.get_device_properties(device).total_memory,
        }
    return memory


def to_tensor(data: bytearray, sample_format: SampleFormat) -> "Tensor":
    """Samples (n,) of raw PCM, without a copy."""
    import torch

    dtype = torch.int16 if sample_format == "int16" else torch.float32
    data = data[: len(data) - len(data) % dtype.itemsize]
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def start(args: argparse.Namespace) -> tuple["Engine", ModelInfo]:
    """Load and warm the model. Raises `WhisperError` for weights or options, `MemoryError` or the like for the rest."""
    import torch

    from model.beside import SideStream
    from model.compute import choose_compute_type, choose_cross_kv, choose_device, choose_encoder_context
    from model.padding_store import learned_folder
    from model.quantize import cross_kv_name, decoder_name
    from model.transcriber import Transcriber, can_translate
    from model.weights import load_weights
    from service.engine import Engine

    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # or pinned memory, streams and kernels would go by the first card as well
    compute_type = choose_compute_type(args.compute_type, device)
    cross_kv = choose_cross_kv(args.cross_kv, compute_type)
    weights = load_weights(args.model, download_dir=args.download_dir)
    context = choose_encoder_context(args.encoder_context, device, compute_type)
    folder = learned_folder(args.download_dir)
    transcriber = Transcriber.from_weights(
        weights, device, compute_type, context, cross_kv, args.cross_attention, args.cuda_graphs, folder
    )
    model = transcriber.model
    transcriber.detector.scan(torch.zeros(1)).finish()  # whoever lacks it must not start
    max_rows = args.max_rows or choose_rows(transcriber.dims, device, model.dtype, args.memory_share, cross_kv)
    windows_per_encode = 8 if device.type == "cuda" else 1
    engine = Engine(
        transcriber,
        max_rows=max_rows,
        windows_per_encode=windows_per_encode,
        beside=SideStream(device) if model.captures_steps else None,
    )
    warm_up(engine, windows_per_encode)
    info = ModelInfo(
        name=weights.name,
        languages=transcriber.tokenizer.language_codes or ("en",),
        can_translate=can_translate(weights.name, model),
        device=str(device),
        compute_type=compute_type,
        encoder_context=context,
        cross_kv=cross_kv_name(model),
        decoder=decoder_name(model),
        max_rows=max_rows,
        steps="captured" if model.captures_steps else "plain",
        plain_because=transcriber.left_out.get("cuda_graphs"),
        torch_because=transcriber.left_out.get("cross_attention"),
        sha256=weights.sha256,
    )
    return engine, info


def choose_rows(
    dims: "ModelDimensions", device: "torch.device", dtype: "torch.dtype", share: float, cross_kv: str = "auto"
) -> int:
    """Rows for a batch that nobody sized: what a GPU has memory for, with its weights loaded.

    `OptionError` where that is none.
    """
    import torch

    from model.budget import DeviceMemory, fitting_rows

    if device.type != "cuda":
        return _CPU_ROWS
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    memory = DeviceMemory(total=total, free=free, held=torch.cuda.memory_reserved(device))
    rows = fitting_rows(dims, itemsize=dtype.itemsize, memory=memory, share=share, cross_kv=cross_kv)
    if rows == 0:
        usable = memory.usable(share) // 1024**2
        raise OptionError("max_batch_rows", f"{device} has memory left for no row: {usable} MiB beside the weights")
    return rows


def warm_up(engine: "Engine", windows: int) -> None:
    """Run faint noise through every stage, so that the first request finds all memory in place.

    So many whole windows at once, or clips where the encoder has heard whole windows already, to learn their padding.
    """
    import torch

    from model.dims import N_SAMPLES
    from model.options import TranscribeOptions

    n_samples = N_SAMPLES // 10 if engine.batch.model.encoder_context == "short" else N_SAMPLES
    noise = torch.randn(n_samples, generator=torch.Generator().manual_seed(0)) * 1e-3
    options = TranscribeOptions(temperature=(0.0,), sample_len=_WARM_UP_STEPS)
    for number in range(windows):
        engine.submit(Transcribe(f"warm-up {number}", "float32", n_samples, options, None), noise, 0.0)
    while engine.busy:
        engine.iterate(0.0)
    engine.reset_stats()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line that `service.pool` writes."""
    parser = argparse.ArgumentParser(prog="service.worker", description="One model on one device.")
    parser.add_argument("--fd", type=int, required=True, help="socket to the HTTP process")
    parser.add_argument("--parent", type=int, required=True, help="process id of the HTTP process")
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--compute-type", required=True)
    parser.add_argument("--encoder-context", required=True)
    parser.add_argument("--cross-kv", default="auto")
    parser.add_argument("--cross-attention", default="auto")
    parser.add_argument("--download-dir", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-rows", type=int, default=0, help="0: what fits")
    parser.add_argument("--memory-share", type=float, default=0.9)
    parser.add_argument("--cuda-graphs", default="false")
    return parser.parse_args(arguments)


def main() -> None:
    """Load, say so, serve."""
    args = parse()
    # Threads that spin at a barrier starve whoever else needs the core (measured: 4 times slower beside one busy
    # neighbour); it must be said before torch starts its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    die_with_parent(args.parent)
    leave_signals_to_parent()
    channel = Channel(socket.socket(fileno=args.fd))
    try:
        try:
            engine, info = start(args)
        except Exception as error:
            channel.send(StartFailed(describe(error)))
            return
        channel.send(info)
        Worker(channel, engine).run()
    except ChannelClosed:
        return


def describe(error: Exception) -> str:
    """One line for the operator: our own refusals as they are, anything else with its type."""
    from model.errors import WhisperError

    text = " ".join(str(error).split())
    return text if isinstance(error, WhisperError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
