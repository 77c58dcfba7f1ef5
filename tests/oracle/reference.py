"""The reference implementation on our weights: the oracle that the model's tests compare with."""

from dataclasses import asdict

import whisper.model
from whisper.model import Whisper

from model.weights import Weights


def reference_model(weights: Weights) -> Whisper:
    """A `whisper.model.Whisper` in float32, in evaluation mode, holding copies of these weights."""
    model = Whisper(whisper.model.ModelDimensions(**asdict(weights.dims)))
    model.load_state_dict(weights.tensors, strict=True)
    return model.float().eval().requires_grad_(False)
