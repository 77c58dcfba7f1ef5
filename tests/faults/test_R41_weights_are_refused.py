"""R41: weights with a payload, a wrong hash, a wrong key or a missing end are refused; nothing of them runs."""

import hashlib
import importlib.metadata
import os
import pickle
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import WeightsError
from model.weights import load_weights
from model.weights.registry import SOURCES, DownloadSource, PackageSource, Sources
from tests.model.weights.writers import (
    DIMS,
    State,
    ctranslate2_bytes,
    ctranslate2_variables,
    huggingface_state,
    random_state,
    write_ctranslate2,
    write_huggingface,
    write_openai,
)

FORMS = ["openai", "huggingface", "huggingface-sharded", "ctranslate2"]


def native(form: str) -> State:
    """The small model under the names that this form uses."""
    state = random_state()
    if form.startswith("huggingface"):
        return huggingface_state(state)
    return ctranslate2_variables(state) if form == "ctranslate2" else state


def write(form: str, folder: Path, state: State) -> tuple[Path, str]:
    """The path to load, and the name of the file that a message must give."""
    if form == "openai":
        return write_openai(folder / "m.pt", state), "m.pt"
    if form == "ctranslate2":
        return write_ctranslate2(folder / "m", state), "model.bin"
    if form == "huggingface":
        return write_huggingface(folder / "m", state), "model.safetensors"
    return write_huggingface(folder / "m", state, shards=2), "model.safetensors.index.json"


def refusal(path: Path, *needles: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(str(path))
    for needle in needles:
        assert needle in str(caught.value)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["m.pt", "m.bin", "m", "model.bin"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "beside", "protocol-0"])
def test_R41_a_payload_is_not_run(tmp_path: Path, form: str, name: str) -> None:
    path, trace = tmp_path / name, tmp_path / "ran"
    payload = Payload(trace)
    if form in ("pickle", "protocol-0"):
        path.write_bytes(pickle.dumps(payload, protocol=0 if form == "protocol-0" else 4))
    else:
        content = {"dims": {}, "model_state_dict": random_state(), "payload": payload}
        torch.save(content if form == "beside" else payload, path, _use_new_zipfile_serialization=form != "legacy")
    refusal(path, name)
    assert not trace.exists()
    if form != "beside":
        return
    # The payload works: opened without care it runs. This is what was kept from happening.
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("form", FORMS)
def test_R41_a_wrong_hash_is_refused_before_anything_is_read(tmp_path: Path, form: str) -> None:
    path, _ = write(form, tmp_path, native(form))
    with pytest.raises(WeightsError, match=r"has SHA-256 [0-9a-f]{64}, expected f{64}"):
        load_weights(str(path), expected_sha256="f" * 64)


def test_R41_a_payload_with_a_wrong_hash_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_openai(tmp_path / "m.pt", random_state())
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("the file was opened"))
    with pytest.raises(WeightsError, match=r"m\.pt: has SHA-256"):
        load_weights(str(path), expected_sha256="f" * 64)


def test_R41_a_published_name_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = hashlib.sha256(b"the published file").hexdigest()
    source = DownloadSource(f"https://publisher.invalid/{wanted}/base.pt", wanted)
    monkeypatch.setitem(SOURCES, "base", Sources((), source))
    write_openai(tmp_path / "base.pt", random_state())
    with pytest.raises(WeightsError, match=rf"base\.pt: has SHA-256 [0-9a-f]{{64}}, expected {wanted}"):
        load_weights("base", download_dir=tmp_path)


def test_R41_a_package_with_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to fetch the model elsewhere: somebody changed what was installed."""
    data = ctranslate2_bytes(ctranslate2_variables(random_state()))
    (tmp_path / "model.bin").write_bytes(data[:-1] + b"\1")

    class Installed(importlib.metadata.PathDistribution):
        def locate_file(self, path: object) -> Path:
            return tmp_path / str(path)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(tmp_path))
    package = PackageSource((("weights", "model.bin"),), "1", hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(SOURCES, "base", Sources((package,), SOURCES["base"].download))
    with pytest.raises(WeightsError, match=r"model\.bin: has SHA-256"):
        load_weights("base", download_dir=tmp_path)
    (tmp_path / "model.bin").write_bytes(data)
    assert load_weights("base", download_dir=tmp_path).dims == DIMS


KEYS = [
    ("openai", "encoder.conv1.weight"),
    ("openai", "decoder.blocks.2.cross_attn.value.bias"),
    ("openai", "decoder.token_embedding.weight"),
    ("huggingface", "encoder.conv1.weight"),
    ("huggingface", "decoder.layers.2.encoder_attn.v_proj.bias"),
    ("huggingface", "decoder.embed_tokens.weight"),
    ("huggingface-sharded", "decoder.layers.2.encoder_attn.v_proj.bias"),
    ("ctranslate2", "encoder/conv2/bias"),
    ("ctranslate2", "decoder/layer_2/attention/linear_1/bias"),
    ("ctranslate2", "encoder/layer_0/self_attention/linear_0/weight"),
    ("ctranslate2", "decoder/embeddings/weight"),
]


def file_key(form: str, key: str) -> str:
    """The key as the file has it (transformers' with its prefix; messages leave that out)."""
    return f"model.{key}" if form.startswith("huggingface") else key


@pytest.mark.parametrize(("form", "key"), KEYS)
def test_R41_a_missing_key_is_named(tmp_path: Path, form: str, key: str) -> None:
    state = native(form)
    del state[file_key(form, key)]
    path, file = write(form, tmp_path, state)
    refusal(path, file, f"'{key}'", "missing")


@pytest.mark.parametrize(("form", "key"), KEYS)
def test_R41_an_extra_key_is_named(tmp_path: Path, form: str, key: str) -> None:
    state = native(form)
    state[f"{file_key(form, key)}_more"] = torch.zeros(3)
    path, file = write(form, tmp_path, state)
    refusal(path, file, f"'{key}_more' has no place")


@pytest.mark.parametrize(
    ("form", "key", "how"),
    # There the vocabulary's size comes from the embedding itself: only its width can be wrong.
    [(*case, how) for case in KEYS[:-1] for how in ("longer", "flat", "empty")] + [(*KEYS[-1], "flat")],
)
def test_R41_a_mis_shaped_key_is_named(tmp_path: Path, form: str, key: str, how: str) -> None:
    state = native(form)
    name = file_key(form, key)
    tensor = state[name]
    state[name] = {
        "longer": torch.cat((tensor, tensor[:1])),
        "flat": tensor.reshape(-1, 1),
        "empty": tensor[:0],
    }[how].contiguous()
    path, file = write(form, tmp_path, state)
    refusal(path, file, f"'{key}'", "shape")


@pytest.mark.parametrize("form", ["openai", "huggingface", "ctranslate2"])
def test_R41_a_layer_too_few_is_named(tmp_path: Path, form: str) -> None:
    state = {
        key: tensor
        for key, tensor in native(form).items()
        if not re.match(r".*encoder\W(blocks\.|layers\.|layer_)1\W", key)
    }
    path, file = write(form, tmp_path, state)
    if form == "ctranslate2":
        # Layers are counted there, not declared: this is a whole model with one layer less in the encoder.
        assert load_weights(str(path)).dims.n_audio_layer == 1
    else:
        refusal(path, file, "missing")


def offsets(size: int) -> list[int]:
    """Every byte of the start and the end, and a walk through the middle."""
    return sorted({*range(min(150, size)), *range(max(0, size - 100), size), *range(150, size, 1499)})


@pytest.mark.parametrize("form", ["openai", "openai-legacy", "huggingface", "ctranslate2"])
def test_R41_a_truncated_file_is_refused_at_every_offset(tmp_path: Path, form: str) -> None:
    if form == "openai-legacy":
        path = file = write_openai(tmp_path / "m.pt", random_state(), zipped=False)
    else:
        path, name = write(form, tmp_path, native(form))
        file = path / name if path.is_dir() else path
    data = file.read_bytes()
    load_weights(str(path))
    for size in offsets(len(data)):
        file.write_bytes(data[:size])
        refusal(path, file.name)


@pytest.mark.parametrize("form", ["openai", "huggingface", "ctranslate2"])
def test_R41_damaged_bytes_are_refused_or_harmless(tmp_path: Path, form: str) -> None:
    """Damage inside a tensor cannot be told without a hash; any other ends in the one exception, and soon."""
    path, name = write(form, tmp_path, native(form))
    file = path / name if path.is_dir() else path
    data = file.read_bytes()
    source = random.Random(41)
    messages = []
    for _ in range(150):
        damaged = bytearray(data)
        start = source.randrange(len(data)) if source.random() < 0.5 else source.randrange(2000)
        for position in range(start, min(start + source.choice([1, 4, 64]), len(data))):
            damaged[position] = source.choice([0, 1, 0x7F, 0xFF, source.randrange(256)])
        file.write_bytes(damaged)
        try:
            load_weights(str(path))
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(file.name in message for message in messages)


def test_R41_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02.")
    refusal(path, "m.pt")
