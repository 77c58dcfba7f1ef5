"""Where the model runs and in which number format: the choice behind `device` and `ComputeOptions`."""

from dataclasses import replace

import torch

from model.compute_options import ComputeOptions
from model.errors import OptionError

COMPUTE_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.float32,
}
"""What can be asked for, and the format of all that is not a quantised weight."""

ENCODER_CONTEXTS = ("full", "short")
"""How much of a short clip's window the encoder computes."""

CROSS_KVS = ("auto", "int8", "fp8")
"""How the audio's keys and values are kept; `auto` is as the decoder has them."""


def choose_device(device: str | None) -> torch.device:
    """`auto` or None: the first CUDA device where there is one, else the CPU. `OptionError` for one that is absent.

    A GPU's name has its number: torch takes one without it for whichever is current, where it takes it at all.
    """
    if device is None or device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise OptionError("device", f"device {device!r} is not a device name; try 'cpu' or 'cuda:0'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise OptionError("device", f"device {device!r} is not supported; use 'cpu' or 'cuda:N'")
    if chosen.type == "cpu":
        return chosen
    number = chosen.index or 0
    if number >= torch.cuda.device_count():
        raise OptionError("device", f"device {device!r} is not there: {torch.cuda.device_count()} CUDA device(s) found")
    return torch.device("cuda", number)


def choose(options: ComputeOptions, device: torch.device) -> ComputeOptions:
    """The options without `auto` where it can be told before the model is there; `OptionError` for what is wrong."""
    compute_type = choose_compute_type(options.compute_type, device)
    return replace(
        options,
        compute_type=compute_type,
        encoder_context=choose_encoder_context(options.encoder_context, device, compute_type),
        cross_kv=choose_cross_kv(options.cross_kv, compute_type),
    )


def choose_compute_type(compute_type: str, device: torch.device) -> str:
    """One of `COMPUTE_TYPES`; `OptionError` for what a device does not do.

    `auto` is float16 on a GPU. On a CPU it is the fastest whose word error rate is within 0.2 point of float32's
    (benchmarks/LOG.md): int8 where torch has a fast product for it, else float32.
    """
    if compute_type == "auto" and device.type == "cpu":
        return "int8" if can_multiply_int8() else "float32"
    if compute_type == "auto":
        return "float16"
    if compute_type not in COMPUTE_TYPES:
        known = ", ".join(["auto", *COMPUTE_TYPES])
        raise OptionError("compute_type", f"compute type {compute_type!r} is not supported; use one of {known}")
    if compute_type == "float16" and device.type == "cpu":
        raise OptionError("compute_type", "float16 needs a GPU; on a CPU use int8, float32 or bfloat16")
    if compute_type == "int8" and device.type != "cpu":
        raise OptionError("compute_type", "int8 is for CPUs; on a GPU use float16 or bfloat16")
    return compute_type


def choose_encoder_context(context: str, device: torch.device, compute_type: str) -> str:
    """`full` or `short` (`model.network.padding`); `OptionError` for what a device does not do.

    `auto` is short in int8, whose word error rate it keeps (benchmarks/LOG.md); the other formats give what the
    reference gives, token by token.
    """
    if context == "auto":
        return "short" if compute_type == "int8" else "full"
    if context not in ENCODER_CONTEXTS:
        raise OptionError("encoder_context", f"encoder context {context!r} is not one of auto, full, short")
    if context == "short" and device.type != "cpu":
        raise OptionError("encoder_context", "a short encoder context is for CPUs; a GPU encodes windows side by side")
    return context


def choose_cross_kv(cross_kv: str, compute_type: str) -> str:
    """One of `CROSS_KVS` as it is; `OptionError` for another one, or one that a compute type does not have.

    `auto` is the compute type's own format: what 8 bits do to the word error rate is in docs/performance.md.
    """
    if cross_kv not in CROSS_KVS:
        raise OptionError("cross_kv", f"cross KV {cross_kv!r} is not supported; use one of {', '.join(CROSS_KVS)}")
    if cross_kv == "fp8" and compute_type == "int8":
        raise OptionError("cross_kv", "with compute type int8 the audio's keys and values are int8; use auto or int8")
    return cross_kv


def has_vnni() -> bool:
    """Whether this CPU adds products of 8-bit numbers in 32 bits (AVX-512 VNNI); others saturate at 16."""
    return bool(torch.cpu._is_vnni_supported())


def has_amx() -> bool:
    """Whether this CPU multiplies tiles, and the system lets this process do so: it is asked to."""
    return bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())


def can_multiply_int8() -> bool:
    """Whether torch's int8 product beats float32 here: on x86 from AVX2 on; elsewhere it is a plain loop."""
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # type: ignore[no-untyped-call]


def can_attend_in_int16() -> bool:
    """Whether `model.native.attention` beats float32 here: measured with AVX2 and AVX-512 (benchmarks/LOG.md).

    Arm multiplies as many float32 an instruction.
    """
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
