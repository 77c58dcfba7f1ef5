"""A model worker: the process that holds one model on one device and runs the engine for all requests sent to it.

Gets `Transcribe`, `DetectLanguage` and `Cancel` with waveforms over the channel from `service.children.worker_pool`,
gives back segments as they are final, results and statistics. Started as `python -m service.worker`; it ends when the
channel does, and the kernel kills it with its parent.
"""

from service.wire.process import die_with_parent, leave_signals_to_parent, resident_bytes

if __name__ == "__main__":
    leave_signals_to_parent()  # what is imported below takes a second, in which Ctrl-C would be a traceback

import argparse
import logging
import os
import socket
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from model.compute_options import ComputeOptions
from service import logs
from service.wire.audio_messages import SampleFormat
from service.wire.channel import Channel, ChannelClosed
from service.wire.memory import read_all
from service.wire.messages import (
    Cancel,
    Cancelled,
    DetectLanguage,
    Failed,
    Message,
    Received,
    StartFailed,
    Stop,
    Transcribe,
    WorkerStats,
)
from service.worker.start import describe, start

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from service.worker.engine import Engine

_STATS_SECONDS = 0.5


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
            self._channel.send(Cancelled(message.request_id))
        elif isinstance(message, Transcribe | DetectLanguage):
            self._channel.send(Received(message.request_id))
            fd = self._channel.take_fd()
            try:
                samples = to_tensor(read_all(fd), message.sample_format)
            except MemoryError as error:
                from service.worker.faults import failed, fault_of

                self._channel.send(failed(message.request_id, fault_of(error, self._engine.batch.model.device)))
                return
            finally:
                os.close(fd)
            if len(samples) != message.n_samples or len(samples) == 0:
                self._channel.send(Failed(message.request_id, "internal_error", "The waveform came incomplete."))
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
            out_of_memory=engine.recovery.out_of_memory,
            memory_bytes=memory_bytes(batch.model.device),
            busy_seconds=dict(engine.stats.clock.seconds),
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
    del data[len(data) - len(data) % dtype.itemsize :]
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line that `service.children.worker_pool` writes."""
    parser = argparse.ArgumentParser(prog="service.worker", description="One model on one device.")
    parser.add_argument("--fd", type=int, required=True, help="socket to the HTTP process")
    parser.add_argument("--parent", type=int, required=True, help="process id of the HTTP process")
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", required=True)
    for field in fields(ComputeOptions):
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default)
    parser.add_argument("--download-dir", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-rows", type=int, default=0, help="0: what fits")
    parser.add_argument("--rows-before", type=int, default=0, help="of the worker that this one replaces; 0: of none")
    parser.add_argument("--memory-share", type=float, default=0.9)
    parser.add_argument("--workers", type=int, default=1, help="workers of the service on the device")
    return parser.parse_args(arguments)


def main() -> None:
    """Load, say so, serve."""
    args = parse()
    # Threads that spin at a barrier starve whoever else needs the core (measured: 4 times slower beside one busy
    # neighbour); it must be said before torch starts its threads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    die_with_parent(args.parent)
    leave_signals_to_parent()
    logs.configure("info")
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
    except Exception as error:
        logs.event("worker_failed", level=logging.ERROR, error=error)
        raise SystemExit(1) from None
    finally:
        channel.close()


if __name__ == "__main__":
    main()
