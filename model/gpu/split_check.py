"""Whether a step's attention may run in the kernel of `model.gpu.split_attention`: the choice behind `cross_attention`.

A kernel is compiled where it first runs, for the very card, and needs what may be missing there: Triton, a C compiler,
a new enough card. So it is asked a small question first, and has to agree with torch.
"""

from importlib.util import find_spec

import torch
import torch.nn.functional as F

from model.dims import ModelDimensions
from model.errors import OptionError
from model.network.audio_memory import AudioMemory
from model.network.whisper import Whisper
from model.transfer import send

CROSS_ATTENTIONS = ("auto", "torch", "triton")
_OLDEST = (8, 0)
_OLDEST_FP8 = (8, 9)
_POSITIONS = 150
_FARTHEST = 0.05
"""Difference to torch's answers, which are of the order of 1, from which the kernel is not trusted."""


def choose_cross_attention(name: str, model: Whisper) -> tuple[str, str | None]:
    """`torch` or `triton` for a model whose `cross_kv` is settled, and why not triton where `auto` would have had it.

    `auto` is triton on a GPU where it works. `OptionError` for what is not there.
    """
    if name not in CROSS_ATTENTIONS:
        known = ", ".join(CROSS_ATTENTIONS)
        raise OptionError("cross_attention", f"cross attention {name!r} is not supported; use one of {known}")
    if name == "torch" or (name == "auto" and model.device.type != "cuda"):
        return "torch", None
    reason = reason_against(model)
    if reason is None:
        return "triton", None
    if name == "triton":
        raise OptionError("cross_attention", f"cross attention in Triton cannot be used on {model.device}: {reason}")
    return "torch", reason


def reason_against(model: Whisper) -> str | None:
    """Why the kernel cannot be used for a model on its device; None where it can."""
    if model.device.type != "cuda":
        return "it is for GPUs"
    if find_spec("triton") is None:
        return "Triton is not installed"
    oldest = _OLDEST_FP8 if model.cross_kv == "fp8" else _OLDEST
    if torch.cuda.get_device_capability(model.device) < oldest:
        return f"the card's compute capability is below {oldest[0]}.{oldest[1]}"
    try:
        difference = deviation(model.device, model.dtype, model.cross_kv, size=_head_size(model.dims))
    except Exception as error:  # a compiler that is missing, a driver that is too old: there is always torch
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if difference < _FARTHEST else f"its answers are off by {difference:.2g}"


@torch.inference_mode()
def deviation(device: torch.device, dtype: torch.dtype, cross_kv: str, *, size: int) -> float:
    """The largest difference between the kernel's answers to a small question and torch's; needs Triton."""
    from model.gpu.split_attention import Asked, attend
    from model.gpu.split_step import audio_of, processors_of

    n_head, rows = 2, 3
    dims = ModelDimensions(80, _POSITIONS, 1, 1, 1, 1, 1, n_head * size, n_head, 1)
    generator = torch.Generator().manual_seed(0)
    keys, values = (AudioMemory(dims, 3, device=device, dtype=dtype, cross_kv=cross_kv) for _ in range(2))
    for memory in (keys, values):
        heads = torch.randn(3, n_head, _POSITIONS, size, generator=generator).to(device, dtype)
        memory.write(0, send((0, 1, 2), device), heads)
    query = torch.randn(rows, n_head * size, generator=generator).to(device, dtype)

    def numbers(*values: int) -> torch.Tensor:
        return torch.tensor(values, device=device)

    members = numbers(0, 2, 1, -1, -1, -1).view(3, 2)
    asked = Asked(numbers(2, 0, -1), numbers(_POSITIONS, _POSITIONS, 0), members, numbers(0, 2, 1))
    ours = attend(query, audio_of(keys, values, 0), asked, processors=processors_of(device))
    slots = [2, 0, 2]
    theirs = F.scaled_dot_product_attention(
        query.view(rows, n_head, 1, size), keys.read(0, slice(3))[slots], values.read(0, slice(3))[slots]
    )
    return float((ours - theirs.flatten(1)).float().nan_to_num(nan=1e9).abs().max())


def _head_size(dims: ModelDimensions) -> int:
    return dims.n_text_state // dims.n_text_head
