"""The start of a model worker: from its command line to a warm engine, and what it says of itself.

Used by `service.worker`. On a GPU the fast path is taken where it was seen to work: for a few rows when the model is
loaded (`model.decoding.step_check`), and here at its full size.
"""

import argparse
from typing import TYPE_CHECKING

from model.compute_options import ComputeOptions
from model.errors import OptionError, WeightsError, WhisperError
from service.settings import PREFIX
from service.wire.messages import Failed, ModelInfo, Transcribe
from service.worker.machine import anonymous_bytes, available_bytes
from service.worker.rows import check_loading, cpu_rows, gpu_rows

if TYPE_CHECKING:
    import torch

    from model.transcriber import Transcriber
    from model.weights import Weights
    from service.worker.engine import Engine

_WARM_UP_STEPS = 8
_SETTINGS = {"device": "devices"}
"""Settings by the option that they become in a worker, where the two are not called alike."""


def start(args: argparse.Namespace) -> tuple["Engine", ModelInfo]:
    """Load and warm the model. Raises `WhisperError` for weights or options, `MemoryError` or the like for the rest."""
    import torch

    from model.capabilities import can_translate
    from model.compute import choose_device
    from model.native.quantize import cross_kv_name, decoder_name

    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # or pinned memory, streams and kernels would go by the first card as well
    transcriber, sha256 = _load(args, device)
    model = transcriber.model
    transcriber.detector.scan(torch.zeros(1)).finish()  # whoever lacks it must not start
    max_rows = _rows(args, transcriber)
    engine = make_engine(transcriber, max_rows, args.cuda_graphs)
    info = ModelInfo(
        name=transcriber.name,
        languages=transcriber.tokenizer.language_codes or ("en",),
        can_translate=can_translate(model.dims),
        device=str(device),
        compute_type=model.compute_type,
        encoder_context=model.encoder_context,
        cross_kv=cross_kv_name(model),
        decoder=decoder_name(model),
        max_rows=max_rows,
        steps="captured" if model.captures_steps else "plain",
        plain_because=transcriber.left_out.get("cuda_graphs"),
        torch_because=transcriber.left_out.get("cross_attention"),
        unfused_because=transcriber.left_out.get("fused_steps"),
        native_because=transcriber.left_out.get("native"),
        sha256=sha256,
    )
    return engine, info


def _load(args: argparse.Namespace, device: "torch.device") -> tuple["Transcriber", str | None]:
    """The model, laid out for the device as the command line asks, and the hash of its weights."""
    from model.compute import choose
    from model.network.padding_store import learned_folder
    from model.transcriber import Transcriber
    from model.weights import load_weights

    options = choose(ComputeOptions.of(args), device)
    before = anonymous_bytes()
    try:
        weights = load_weights(args.model, download_dir=args.download_dir)
    except WeightsError as error:
        raise OptionError("model", str(error)) from error
    if device.type == "cpu" and not args.rows_before:
        read = max(0, anonymous_bytes() - before)  # and not mapped from a file
        _check_memory(weights, options, read, asked=args.max_rows)
    return Transcriber.from_weights(weights, device, options, learned_folder(args.download_dir)), weights.sha256


def _check_memory(weights: "Weights", options: ComputeOptions, read: int, *, asked: int) -> None:
    """Refuse at once what cannot end well on this machine's processor, before the weights are laid out.

    They are laid out as floats first, and keep a byte a number at least. The `read` bytes are given back then.
    """
    from model.compute import COMPUTE_TYPES

    free = available_bytes()
    if free is not None:
        free += read
    itemsize = COMPUTE_TYPES[options.compute_type].itemsize
    numbers = sum(tensor.numel() for tensor in weights.tensors.values())
    check_loading(free, numbers * itemsize)
    is_int8 = options.compute_type == "int8"
    kept, unloaded = ("int8", numbers) if is_int8 else (options.cross_kv, numbers * itemsize)
    cpu_rows(weights.dims, itemsize, kept, free, asked=asked, unloaded=unloaded)


def _rows(args: argparse.Namespace, transcriber: "Transcriber") -> int:
    """Rows of the batch, now that the weights are loaded. `OptionError` where there is no memory for them."""
    from model.decoding.budget import NATIVE
    from model.native.weights import NativeDecoder

    dims, model = transcriber.dims, transcriber.model
    if model.device.type == "cuda":
        return gpu_rows(
            dims, model.device, model.dtype, args.memory_share, model.cross_kv,
            asked=args.max_rows, workers=args.workers,
        )  # fmt: skip
    if args.rows_before:  # whatever the machine is busy with by now: it was enough when the service started
        return int(args.rows_before)
    kept = NATIVE if isinstance(model.decoder, NativeDecoder) else model.cross_kv
    return cpu_rows(dims, model.dtype.itemsize, kept, available_bytes(), asked=args.max_rows)


def make_engine(transcriber: "Transcriber", max_rows: int, cuda_graphs: str) -> "Engine":
    """A warm engine. Where steps fail in so large a batch they do with less: without what is fused, then plain.

    The latter only if `auto` leaves the choice.
    """
    model = transcriber.model
    while True:
        try:
            return _warm_engine(transcriber, max_rows)
        except Exception as error:
            if not model.fuses_steps and not (model.captures_steps and cuda_graphs == "auto"):
                raise
            reason = describe(error)
        # Here and not above, where the error's frames hold the memory.
        if model.fuses_steps:
            setting, model.fuses_steps = "fused_steps", False
        else:
            setting, model.captures_steps = "cuda_graphs", False
        transcriber.left_out = {**transcriber.left_out, setting: reason}


def _warm_engine(transcriber: "Transcriber", max_rows: int) -> "Engine":
    from model.gpu.beside import SideStream
    from service.worker.engine import Engine

    device = transcriber.model.device
    windows_per_encode = 8 if device.type == "cuda" else 1
    engine = Engine(
        transcriber,
        max_rows=max_rows,
        windows_per_encode=windows_per_encode,
        beside=SideStream(device) if transcriber.model.captures_steps else None,
    )
    warm_up(engine, windows_per_encode)
    return engine


def warm_up(engine: "Engine", windows: int) -> None:
    """Run faint noise through every stage, so that the first request finds all memory in place.

    Whole windows, or clips where the encoder has heard whole windows already, to learn their padding: one, then two at
    once, up to so many `windows`, for what a GPU's libraries plan anew for every number of them. `RuntimeError` where
    one of them fails: so would every request.
    """
    import torch

    from model.dims import N_SAMPLES
    from model.options import TranscribeOptions

    n_samples = N_SAMPLES // 10 if engine.batch.model.encoder_context == "short" else N_SAMPLES
    noise = torch.randn(n_samples, generator=torch.Generator().manual_seed(0)) * 1e-3
    options = TranscribeOptions(temperature=(0.0,), sample_len=_WARM_UP_STEPS)
    for together in range(1, windows + 1):
        for number in range(together):
            engine.submit(Transcribe(f"warm-up {number}", "float32", n_samples, options, None), noise, 0.0)
        while engine.busy:
            for message in engine.iterate(0.0):
                if isinstance(message, Failed):
                    raise RuntimeError(f"in the warm-up: {message.message}")
    engine.reset_stats()


def describe(error: Exception) -> str:
    """One line for the operator: a refused option with its variable, other refusals as they are, the rest with type."""
    text = " ".join(str(error).split())
    if isinstance(error, OptionError):
        return f"{PREFIX}{_SETTINGS.get(error.param, error.param).upper()}: {text}"
    return text if isinstance(error, WhisperError) else f"{type(error).__name__}: {text}"
