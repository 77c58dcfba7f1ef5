"""A random Whisper of two small layers: the real vocabulary and the real shapes of audio, in milliseconds."""

from pathlib import Path

import torch

from model.dims import ModelDimensions
from model.network.whisper import Whisper
from model.transcriber import Transcriber

DIMS = ModelDimensions(
    n_mels=80, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=2,
    n_vocab=51_865, n_text_ctx=448, n_text_state=32, n_text_head=2, n_text_layer=2,
)  # fmt: skip


def tensors(dims: ModelDimensions = DIMS, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the published names, float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    result: dict[str, torch.Tensor] = {}

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        result[f"{name}.weight"] = normal(rows, columns, scale=columns**-0.5)
        if bias:
            result[f"{name}.bias"] = normal(rows, scale=0.1)

    def norm(name: str, size: int) -> None:
        result[f"{name}.weight"] = 1.0 + normal(size, scale=0.1)
        result[f"{name}.bias"] = normal(size, scale=0.1)

    def attention(name: str, size: int) -> None:
        for part in ("query", "key", "value", "out"):
            linear(f"{name}.{part}", size, size, bias=part != "key")
        norm(f"{name}_ln", size)

    d = dims.n_audio_state
    result["encoder.conv1.weight"], result["encoder.conv1.bias"] = (
        normal(d, dims.n_mels, 3, scale=0.1),
        normal(d, scale=0.1),
    )
    result["encoder.conv2.weight"], result["encoder.conv2.bias"] = normal(d, d, 3, scale=0.1), normal(d, scale=0.1)
    result["encoder.positional_embedding"] = normal(dims.n_audio_ctx, d, scale=0.3)
    result["decoder.token_embedding.weight"] = normal(dims.n_vocab, d, scale=0.5)
    result["decoder.positional_embedding"] = normal(dims.n_text_ctx, d, scale=0.5)
    for side, layers in (("encoder", dims.n_audio_layer), ("decoder", dims.n_text_layer)):
        for i in range(layers):
            block = f"{side}.blocks.{i}"
            attention(f"{block}.attn", d)
            if side == "decoder":
                attention(f"{block}.cross_attn", d)
            linear(f"{block}.mlp.0", 4 * d, d)
            linear(f"{block}.mlp.2", d, 4 * d)
            norm(f"{block}.mlp_ln", d)
    norm("encoder.ln_post", d)
    norm("decoder.ln", d)
    return result


def transcriber(name: str = "tiny-random", seed: int = 0) -> Transcriber:
    """The random model behind the library's face."""
    return Transcriber(Whisper.from_tensors(DIMS, tensors(seed=seed)), name)


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """The random model as a checkpoint file of the publisher's form."""
    dims = {name: getattr(DIMS, name) for name in DIMS.__dataclass_fields__}
    torch.save({"dims": dims, "model_state_dict": tensors(seed=seed)}, path)
    return path


def speech(seconds: float, seed: int = 0) -> torch.Tensor:
    """Something that is not silence: noise in bursts, (n,) float32."""
    n = round(seconds * 16_000)
    noise = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * 0.1
    return noise * (torch.arange(n).div(8_000).sin() > 0)
