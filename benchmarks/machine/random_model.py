"""Random weights of any published size, for timings: what a step takes does not depend on the values.

Used by `benchmarks.stages`, `benchmarks.saturation` and `benchmarks.random_peers`, where the weights themselves are not
at hand. A text comes out of it that means nothing and does not end; whoever times it forces its length. No file of
sound is read here.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from model import Transcriber
from model.compute import choose, choose_device
from model.compute_options import ComputeOptions
from model.dims import DIMENSIONS, N_SAMPLES, SAMPLE_RATE, ModelDimensions, canonical_name
from model.errors import WeightsError
from model.options import TranscribeOptions
from model.tokenizer import Tokenizer
from model.weights import Weights
from model.weights.checks import expected_shapes

_DRAWN = 1_048_573
"""Numbers drawn once and repeated: 1.5 billion of them would take a minute. A prime, so that no two rows are alike."""
_BIAS = 0.02


def random_transcriber(name: str, device: str, options: ComputeOptions) -> Transcriber:
    """A model of a published size; raises what `random_weights` does, and `OptionError` as in `model.compute`.

    Its encoder's context is full: there is nothing to learn of padding that means nothing.
    """
    place = choose_device(device)
    chosen = choose(replace(options, encoder_context="full"), place)
    return Transcriber.from_weights(random_weights(name), place, chosen)


def random_weights(name: str) -> Weights:
    """Weights of a published size; `WeightsError` for a name that is none."""
    canonical = canonical_name(name)
    if canonical not in DIMENSIONS:
        raise WeightsError(f"{name} is no published size; those are {', '.join(DIMENSIONS)}")
    return Weights(DIMENSIONS[canonical], random_tensors(DIMENSIONS[canonical]), canonical, None)


def forced_options(tokenizer: Tokenizer, tokens: int) -> TranscribeOptions:
    """English, greedy, so many tokens in every window whatever comes of it, and no second thoughts."""
    return TranscribeOptions(
        language="en",
        temperature=(0.0,),
        sample_len=tokens,
        suppress_tokens=(-1, tokenizer.eot),
        logprob_threshold=None,
        compression_ratio_threshold=None,
        no_speech_threshold=None,
        guards=False,
    )


def made_sound() -> Tensor:
    """30 s of noise that comes and goes, (480000,) int16 at 16 kHz."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(N_SAMPLES, generator=generator)
    swell = 0.5 + 0.5 * torch.sin(torch.arange(N_SAMPLES) * (2 * math.pi * 3 / SAMPLE_RATE))
    return (3000 * noise * swell).clamp(-32768, 32767).to(torch.int16)


def random_tensors(dims: ModelDimensions) -> dict[str, Tensor]:
    """Every tensor of such a model, float16: activations stay of the order of 1, and depend on what is heard."""
    drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(0))
    tensors = {}
    for number, (name, shape) in enumerate(expected_shapes(dims).items()):
        n, fan_in = torch.Size(shape).numel(), torch.Size(shape[1:]).numel()
        start = number * 104_729 % _DRAWN  # each tensor from elsewhere: alike, keys would be queries
        values = drawn.repeat(-(-(start + n) // _DRAWN))[start : start + n].view(shape)
        is_norm = "ln" in name and name.endswith("weight")
        scale = _BIAS if len(shape) == 1 else fan_in**-0.5
        tensors[name] = (torch.ones(shape) if is_norm else values * scale).half()
    return tensors
