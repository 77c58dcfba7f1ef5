"""Writes a small random model in each of the three forms, as their own programs lay them out.

The layouts are spelled out here, apart from the readers' own tables, so that a mistake in one does not hide in the
other.
"""

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.dims import ModelDimensions

DIMS = ModelDimensions(
    n_mels=4,
    n_audio_ctx=6,
    n_audio_state=8,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=11,
    n_text_ctx=5,
    n_text_state=8,
    n_text_head=4,
    n_text_layer=3,
)
"""Every number that may differ does, so that none can be taken for another."""

TYPE_NUMBERS = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4, torch.bfloat16: 5}

State = dict[str, Tensor]


def random_state(dtype: torch.dtype = torch.float16) -> State:
    """A complete state of `DIMS` with the reference's names."""
    generator = torch.Generator().manual_seed(5)
    state: State = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.randn(shape, generator=generator).to(dtype)

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        add(f"{name}.weight", rows, columns)
        if bias:
            add(f"{name}.bias", rows)

    def norm(name: str) -> None:
        add(f"{name}.weight", 8)
        add(f"{name}.bias", 8)

    add("encoder.conv1.weight", 8, 4, 3)
    add("encoder.conv1.bias", 8)
    add("encoder.conv2.weight", 8, 8, 3)
    add("encoder.conv2.bias", 8)
    add("encoder.positional_embedding", 6, 8)
    add("decoder.token_embedding.weight", 11, 8)
    add("decoder.positional_embedding", 5, 8)
    norm("encoder.ln_post")
    norm("decoder.ln")
    for part, layers, attentions in (("encoder", 2, ["attn"]), ("decoder", 3, ["attn", "cross_attn"])):
        for block in (f"{part}.blocks.{layer}" for layer in range(layers)):
            for attention in attentions:
                linear(f"{block}.{attention}.query", 8, 8)
                linear(f"{block}.{attention}.key", 8, 8, bias=False)
                linear(f"{block}.{attention}.value", 8, 8)
                linear(f"{block}.{attention}.out", 8, 8)
                norm(f"{block}.{attention}_ln")
            linear(f"{block}.mlp.0", 32, 8)
            linear(f"{block}.mlp.2", 8, 32)
            norm(f"{block}.mlp_ln")
    return state


def write_openai(path: Path, state: State, dims: dict[str, Any] | None = None, *, zipped: bool = True) -> Path:
    """The publisher's `.pt`."""
    content = {"dims": asdict(DIMS) if dims is None else dims, "model_state_dict": state}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


HUGGINGFACE_NAMES = (
    ("encoder.positional_embedding", "encoder.embed_positions.weight"),
    ("decoder.positional_embedding", "decoder.embed_positions.weight"),
    ("token_embedding", "embed_tokens"),
    (".ln_post.", ".layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".blocks.", ".layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp_ln.", ".final_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
)

CONFIG = {
    "model_type": "whisper",
    "activation_function": "gelu",
    "scale_embedding": False,
    "num_mel_bins": 4,
    "max_source_positions": 6,
    "d_model": 8,
    "encoder_attention_heads": 2,
    "encoder_layers": 2,
    "vocab_size": 11,
    "max_target_positions": 5,
    "decoder_attention_heads": 4,
    "decoder_layers": 3,
}


def huggingface_state(state: State, prefix: str = "model.") -> State:
    """The same tensors under transformers' names."""
    renamed: State = {}
    for name, tensor in state.items():
        for ours, theirs in HUGGINGFACE_NAMES:
            name = name.replace(ours, theirs)
        renamed[prefix + name] = tensor
    return renamed


def write_huggingface(folder: Path, state: State, *, shards: int = 1, config: dict[str, Any] | None = None) -> Path:
    """A folder as `save_pretrained` leaves it; `state` has transformers' names."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    places = {key: files[i % shards] for i, key in enumerate(state)}
    for file in files:
        save_file({key: tensor for key, tensor in state.items() if places[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def ctranslate2_variables(state: State) -> State:
    """The same tensors as CTranslate2's variables: attention stacked, the key's bias zero, scalars beside them."""
    variables: State = {
        "decoder/activation": torch.tensor(3, dtype=torch.int8),
        "decoder/alibi": torch.tensor(0, dtype=torch.int8),
        "decoder/alignment_heads": torch.tensor(1, dtype=torch.int16),
        "decoder/alignment_layer": torch.tensor(-1, dtype=torch.int16),
        "decoder/num_heads": torch.tensor(4, dtype=torch.int16),
        "decoder/pre_norm": torch.tensor(1, dtype=torch.int8),
        "decoder/scale_embeddings": torch.tensor(0, dtype=torch.int8),
        "decoder/start_from_zero_embedding": torch.tensor(0, dtype=torch.int8),
        "encoder/num_heads": torch.tensor(2, dtype=torch.int16),
    }
    zeros = torch.zeros_like(state["encoder.conv1.bias"])

    def copy(key: str, module: str, weight: str = "weight", bias: str = "bias") -> None:
        variables[f"{key}/{weight}"] = state[f"{module}.weight"]
        variables[f"{key}/{bias}"] = state[f"{module}.bias"]

    def stack(key: str, attention: str, *names: str) -> None:
        variables[f"{key}/weight"] = torch.cat([state[f"{attention}.{name}.weight"] for name in names])
        variables[f"{key}/bias"] = torch.cat([state.get(f"{attention}.{name}.bias", zeros) for name in names])

    copy("encoder/conv1", "encoder.conv1")
    copy("encoder/conv2", "encoder.conv2")
    copy("encoder/layer_norm", "encoder.ln_post", "gamma", "beta")
    copy("decoder/layer_norm", "decoder.ln", "gamma", "beta")
    variables["encoder/position_encodings/encodings"] = state["encoder.positional_embedding"]
    variables["decoder/position_encodings/encodings"] = state["decoder.positional_embedding"]
    variables["decoder/embeddings/weight"] = state["decoder.token_embedding.weight"]
    for part, layers in (("encoder", 2), ("decoder", 3)):
        for number in range(layers):
            layer, block = f"{part}/layer_{number}", f"{part}.blocks.{number}"
            copy(f"{layer}/self_attention/layer_norm", f"{block}.attn_ln", "gamma", "beta")
            stack(f"{layer}/self_attention/linear_0", f"{block}.attn", "query", "key", "value")
            stack(f"{layer}/self_attention/linear_1", f"{block}.attn", "out")
            copy(f"{layer}/ffn/layer_norm", f"{block}.mlp_ln", "gamma", "beta")
            copy(f"{layer}/ffn/linear_0", f"{block}.mlp.0")
            copy(f"{layer}/ffn/linear_1", f"{block}.mlp.2")
            if part == "decoder":
                copy(f"{layer}/attention/layer_norm", f"{block}.cross_attn_ln", "gamma", "beta")
                stack(f"{layer}/attention/linear_0", f"{block}.cross_attn", "query")
                stack(f"{layer}/attention/linear_1", f"{block}.cross_attn", "key", "value")
                stack(f"{layer}/attention/linear_2", f"{block}.cross_attn", "out")
    return variables


def quantise(variables: State) -> State:
    """Weights of linear layers and the embedding as int8 with one scale for each row, as the converter writes them."""
    result: State = {}
    for key, tensor in variables.items():
        if key.endswith("/weight") and "conv" not in key:
            scale = 127.0 / tensor.float().abs().amax(dim=1)
            result[key] = (tensor.float() * scale.unsqueeze(1)).round().to(torch.int8)
            result[f"{key}_scale"] = scale
        else:
            result[key] = tensor
    return result


ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}


def ctranslate2_bytes(
    variables: State,
    aliases: dict[str, str] = ALIASES,
    *,
    version: int = 6,
    spec: str = "WhisperSpec",
    revision: int = 3,
) -> bytes:
    """`model.bin`: a header, the variables in the order of their names, the aliases."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", version), string(spec), struct.pack("<II", revision, len(variables))]
    for key, tensor in sorted(variables.items()):
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        out += [string(key), struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)]
        out += [struct.pack("<BI", TYPE_NUMBERS[tensor.dtype], len(data)), data]
    out.append(struct.pack("<I", len(aliases)))
    out += [string(alias) + string(name) for alias, name in aliases.items()]
    return b"".join(out)


def write_ctranslate2(folder: Path, variables: State, aliases: dict[str, str] = ALIASES) -> Path:
    """A CTranslate2 folder."""
    folder.mkdir()
    (folder / "model.bin").write_bytes(ctranslate2_bytes(variables, aliases))
    (folder / "config.json").write_text('{"lang_ids": []}')
    return folder
