import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peer.formats import (
    write_ctranslate2,
    write_ctranslate2_anew,
    write_ggml,
    write_openai,
    write_transformers,
)
from model.mel import mel_filters
from model.tokenizer import get_tokenizer
from model.weights import Weights, load_weights
from tests import tiny


@pytest.fixture
def weights() -> Weights:
    tensors = {name: tensor.half() for name, tensor in tiny.tensors().items()}
    return Weights(tiny.DIMS, tensors, "tiny-random", None)


def _same(read: Weights, written: Weights) -> bool:
    return read.tensors.keys() == written.tensors.keys() and all(
        torch.equal(tensor.half(), written.tensors[name]) for name, tensor in read.tensors.items()
    )


def test_openai_comes_back_as_it_was(weights: Weights, tmp_path: Path) -> None:
    write_openai(weights, tmp_path / "a.pt")
    read = load_weights(str(tmp_path / "a.pt"))
    assert read.dims == weights.dims
    assert _same(read, weights)


def test_transformers_comes_back_as_it_was(weights: Weights, tmp_path: Path) -> None:
    write_transformers(weights, tmp_path / "a")
    read = load_weights(str(tmp_path / "a"))
    assert read.dims == weights.dims
    assert _same(read, weights)


def test_ctranslate2_written_anew_comes_back_as_it_was(weights: Weights, tmp_path: Path) -> None:
    write_ctranslate2_anew(weights, tmp_path / "a")
    read = load_weights(str(tmp_path / "a"))
    assert read.dims == weights.dims
    assert _same(read, weights)
    words = json.loads((tmp_path / "a" / "vocabulary.json").read_text())
    tokenizer = get_tokenizer(weights.dims)
    assert len(set(words)) == weights.dims.n_vocab
    assert (words[tokenizer.sot], words[tokenizer.no_timestamps]) == ("<|startoftranscript|>", "<|notimestamps|>")


def test_transformers_learns_the_vocabulary(weights: Weights, tmp_path: Path) -> None:
    published = {
        "added_tokens": [{"id": 50_257, "content": "<|endoftext|>"}],
        "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    }
    (tmp_path / "published.json").write_text(json.dumps(published))
    write_transformers(weights, tmp_path / "a", [tmp_path / "published.json"])
    tokenizer = get_tokenizer(weights.dims)
    added = json.loads((tmp_path / "a" / "tokenizer.json").read_text())["added_tokens"]
    assert added[0] == published["added_tokens"][0]
    assert [(token["id"], token["content"]) for token in added[1:]] == [
        (token, tokenizer.decode_with_timestamps([token]))
        for token in range(tokenizer.timestamp_begin, tokenizer.n_vocab)
    ]
    assert (tmp_path / "a" / "merges.txt").read_text() == "#version: 0.2\na b\n"
    generation = json.loads((tmp_path / "a" / "generation_config.json").read_text())
    assert generation["lang_to_id"]["<|de|>"] == tokenizer.language_token("de")
    assert set(tokenizer.non_speech_tokens) < set(generation["suppress_tokens"])


def test_ctranslate2_joins_the_parts(tmp_path: Path) -> None:
    for name, content in (("p1", b"ab"), ("p2", b"cd"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    write_ctranslate2([tmp_path / "p1", tmp_path / "p2"], [tmp_path / "config.json"], tmp_path / "a")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == {
        "model.bin": b"abcd",
        "config.json": b"{}",
    }


def test_ggml_comes_back_as_it_was(weights: Weights, tmp_path: Path) -> None:
    write_ggml(weights, tmp_path / "a.bin")
    data, at = (tmp_path / "a.bin").read_bytes(), 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return values

    def take_bytes(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    d = weights.dims
    assert take("12i") == (
        0x67676D6C, d.n_vocab, d.n_audio_ctx, d.n_audio_state, d.n_audio_head, d.n_audio_layer,
        d.n_text_ctx, d.n_text_state, d.n_text_head, d.n_text_layer, d.n_mels, 1,
    )  # fmt: skip
    rows, columns = take("2i")
    filters = np.frombuffer(take_bytes(4 * rows * columns), np.float32).reshape(rows, columns)
    assert np.array_equal(filters, mel_filters(d.n_mels).numpy())
    tokens = [take_bytes(*take("i")) for _ in range(*take("i"))]
    assert b"".join(tokens[token] for token in get_tokenizer(d).encode("hello there")) == b"hello there"
    read: dict[str, np.ndarray] = {}
    while at < len(data):
        axes, length, narrow = take("3i")
        shape = take(f"{axes}i")[::-1]
        name = take_bytes(length).decode()
        kind = np.dtype(np.float16 if narrow else np.float32)
        read[name] = np.frombuffer(take_bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)
    assert read.keys() == weights.tensors.keys()
    for name, tensor in weights.tensors.items():
        assert np.array_equal(read[name].reshape(tensor.shape), tensor.numpy()), name
    assert read["decoder.blocks.0.mlp.0.weight"].dtype == np.float16
    assert read["encoder.positional_embedding"].dtype == np.float32
    assert read["encoder.conv1.bias"].shape == (d.n_audio_state, 1)
