"""The network: log-Mel windows in, encoder features and next-token logits out.

Gets (batch, n_mels, 3000) from `model.mel`; attention memory lives in `model.network.cache` and is an argument, never a
hook. Module names follow the reference (`AudioEncoder`, `TextDecoder`, `ResidualAttentionBlock`), so that its weights
fit.

- Query, key and value of self-attention are one projection, key and value of cross-attention another: fewer, larger
  matrix products. `_fuse` makes them from the published tensors.
- The decoder sees a flat list of (token, position) pairs; which row each belongs to is the cache view's business, so
  that prefill, a step of many rows and a pass that records attention are one code path.

Source: "Attention Is All You Need"; "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2;
openai/whisper `model.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.dims import ModelDimensions
from model.errors import WeightsError
from model.network.alignment_heads import alignment_heads
from model.network.blocks import Attention, DecoderBlock, EncoderBlock, gelu_
from model.network.linear import PackedLinear, by_columns, can_pack


class AudioEncoder(nn.Module):
    """Two convolutions, sinusoidal positions, then the blocks."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        n_state = dims.n_audio_state
        self.conv1 = nn.Conv1d(dims.n_mels, n_state, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(n_state, n_state, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = nn.Parameter(torch.empty(dims.n_audio_ctx, n_state))
        self.blocks = nn.ModuleList(EncoderBlock(n_state, dims.n_audio_head) for _ in range(dims.n_audio_layer))
        self.ln_post = nn.LayerNorm(n_state)

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, n_mels, 2 * n_audio_ctx) -> (batch, n_audio_ctx, n_state)."""
        x = self.begin(mel)
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x)  # type: ignore[no-any-return]

    def begin(self, mel: Tensor) -> Tensor:
        """What the first block gets: (batch, n_mels, 2 * n_audio_ctx) -> (batch, n_audio_ctx, n_state)."""
        # Once in memory order, or every layer after it copies its input.
        return (self.convolve(mel) + self.positional_embedding).contiguous()

    def convolve(self, mel: Tensor) -> Tensor:
        """Without positions: (batch, n_mels, n_frames) -> (batch, n_frames / 2, n_state)."""
        return gelu_(self.conv2(gelu_(self.conv1(mel)))).transpose(1, 2)


class TextDecoder(nn.Module):
    """Token and learned position embeddings, the blocks, and logits over the tied embedding."""

    def __init__(self, dims: ModelDimensions) -> None:
        super().__init__()
        n_state = dims.n_text_state
        self.token_embedding = nn.Embedding(dims.n_vocab, n_state)
        self.positional_embedding = nn.Parameter(torch.empty(dims.n_text_ctx, n_state))
        self.blocks = nn.ModuleList(DecoderBlock(n_state) for _ in range(dims.n_text_layer))
        self.ln = nn.LayerNorm(n_state)
        self._output: PackedLinear | None = None

    def cross_kv(self, features: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer for encoder features (batch, n_audio_ctx, n_state), of the same shape."""
        block = self.blocks[layer]
        key, value = block.cross_attn_kv(features).chunk(2, dim=-1)  # type: ignore[operator]
        return key, value

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Tokens and positions (n,) of any rows -> hidden states (n, n_state)."""
        x = self.token_embedding(tokens) + self.positional_embedding[positions]
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, attention)
        return self.ln(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (n, n_state) -> logits (n, n_vocab), float32."""
        if self._output is not None:
            return self._output(hidden)  # type: ignore[no-any-return]
        return F.linear(hidden, self.token_embedding.weight).float()

    def pack(self) -> None:
        """Lay the weights out for steps of few rows, where the device has a faster product for them."""
        if not can_pack(self.token_embedding.weight):
            return
        self.token_embedding.weight = nn.Parameter(by_columns(self.token_embedding.weight), requires_grad=False)
        self._output = PackedLinear(self.token_embedding.weight, None)
        for block in self.blocks:
            for module in [block, *block.children()]:
                for name, child in module.named_children():
                    if isinstance(child, nn.Linear) and name != "cross_attn_kv":  # that one sees whole windows
                        setattr(module, name, PackedLinear(child.weight, child.bias))


class Whisper(nn.Module):
    """The whole model of one size, without any state of what it hears."""

    def __init__(self, dims: ModelDimensions, name: str = "") -> None:
        super().__init__()
        self.dims = dims
        self.alignment_heads = alignment_heads(dims, name)
        """(layer, head) of the cross-attention that follows the speech."""
        self.encoder: nn.Module = AudioEncoder(dims)
        """An `AudioEncoder`, or what `model.network.padding` made of it."""
        self.decoder: nn.Module = TextDecoder(dims)
        """A `TextDecoder`, or in int8 what `model.native` made of it."""
        self.compute_type = "float32"
        """Arithmetic of most of the work: a float format, or int8."""
        self.encoder_context = "full"
        """`full`: the padding behind a clip is computed like the clip. `short`: see `model.network.padding`."""
        self.cross_kv = "auto"
        """How the audio's keys and values are kept: as the decoder has them, or in `int8` or `fp8`."""
        self.cross_attention = "torch"
        """What runs the attention of a decode step: `torch`, or `triton` (`model.gpu.split_attention`)."""
        self.fuses_steps = False
        """Whether with that kernel captured steps have others too, around products and for the choice of tokens
        (`model.gpu.fused_step`)."""
        self.captures_steps = False
        """Whether a GPU's decode steps are captured and replayed (`model.gpu.graphs`), their tokens chosen there and
        read a step later (`model.decoding.device_choice`), or run as they come, as on a CPU."""

    @classmethod
    def from_tensors(
        cls,
        dims: ModelDimensions,
        tensors: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str = "",
        *,
        pack: bool = True,
    ) -> "Whisper":
        """A model with these published tensors (names of an OpenAI checkpoint), ready for inference.

        `name` is the published one, if any: two sizes of equal dimensions differ in their alignment heads. `pack` lays
        the decoder's weights out once more for steps of few rows, where the device has a faster product for them.

        `WeightsError` names the first tensor that is missing, unknown or mis-shaped.
        """
        with torch.device("meta"), _NoInitialisation():
            model = cls(dims, name)
        # As `to_empty` does, whose `empty_like` on the meta device imports a second of symbolic algebra.
        model._apply(  # type: ignore[no-untyped-call]
            lambda x: torch.empty(x.shape, dtype=dtype if x.is_floating_point() else x.dtype, device=device)
        )
        model = model.eval().requires_grad_(False)
        state = _fuse(tensors, device, dtype)
        wanted = model.state_dict()
        for name in sorted(wanted.keys() | state.keys()):
            if name not in state or name not in wanted:
                raise WeightsError(f"tensor {name} is {'missing' if name in wanted else 'unknown'}")
            if state[name].shape != wanted[name].shape:
                raise WeightsError(f"tensor {name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}")
            wanted[name].copy_(state[name])
        if pack and isinstance(model.decoder, TextDecoder):
            model.decoder.pack()
        model.compute_type = str(dtype).removeprefix("torch.")
        return model

    def encode(self, mel: Tensor, n_frames: Sequence[int] | None = None) -> Tensor:
        """(batch, n_mels, 2 * n_audio_ctx) -> features (batch, n_audio_ctx, n_state).

        `n_frames`: those of each window that have content, the others being 0.0; None is all.
        """
        if n_frames is None or isinstance(self.encoder, AudioEncoder):
            return self.encoder(mel)  # type: ignore[no-any-return]
        return self.encoder(mel, n_frames)  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.encoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters and of the encoder's input."""
        return next(self.encoder.parameters()).dtype


class _NoInitialisation(TorchFunctionMode):
    """Modules keep what their memory holds: weights follow. torch imports a second's worth of code to draw them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _fuse(tensors: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Published names -> ours: stacks query/key/value (and the cross-attention's key/value) into one projection."""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        prefix, _, part = stem.rpartition(".")
        if part not in ("query", "key", "value", "out"):
            state[name] = tensor
            continue
        if part == "out":
            state[f"{prefix}_out.{leaf}"] = tensor
        elif part == "query":
            siblings = ("query", "key", "value") if prefix.endswith(".attn") else ("query",)
            fused = f"{prefix}_{'qkv' if len(siblings) == 3 else 'query'}.{leaf}"
            state[fused] = _stack(tensors, prefix, siblings, leaf)
            if len(siblings) == 1:
                state[f"{prefix}_kv.{leaf}"] = _stack(tensors, prefix, ("key", "value"), leaf)
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in state.items()}


def _stack(tensors: Mapping[str, Tensor], prefix: str, parts: tuple[str, ...], leaf: str) -> Tensor:
    """One tensor of the parts' rows. Keys have no bias: zeros stand for it."""
    stacked = []
    for part in parts:
        tensor = tensors.get(f"{prefix}.{part}.{leaf}")
        if tensor is None and part == "key" and leaf == "bias":
            tensor = torch.zeros_like(tensors[f"{prefix}.query.bias"])
        if tensor is None:
            raise WeightsError(f"tensor {prefix}.{part}.{leaf} is missing")
        stacked.append(tensor)
    return torch.cat(stacked)
