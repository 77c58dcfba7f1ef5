"""The publisher's `.pt`: both file forms of PyTorch, and what is refused."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import WeightsError
from model.weights.openai import read_openai
from tests.model.weights.writers import DIMS, random_state, write_openai


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["m.pt", "m.ckpt", "m"])
def test_both_file_forms_are_read(tmp_path: Path, zipped: bool, name: str) -> None:
    state = random_state()
    checkpoint = read_openai(write_openai(tmp_path / name, state, zipped=zipped))
    assert checkpoint.dims == DIMS
    assert all(torch.equal(checkpoint.tensors[key], tensor) for key, tensor in state.items())


def test_tensors_of_the_zip_form_stay_mapped(tmp_path: Path) -> None:
    path = write_openai(tmp_path / "m.pt", random_state())
    tensors = read_openai(path).tensors
    address = tensors["encoder.conv1.weight"].data_ptr()
    spans = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    assert any(int(start, 16) <= address < int(end, 16) for start, end in (span.split("-") for span in spans))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"model_state_dict": {}}, "key 'dims' is missing"),
        ({"dims": asdict(DIMS)}, "key 'model_state_dict' is missing"),
        ({"dims": [1], "model_state_dict": {}}, "key 'dims' is missing or is no dictionary"),
        ({"dims": asdict(DIMS), "model_state_dict": {1: torch.zeros(1)}}, "'model_state_dict'"),
        ({"dims": asdict(DIMS), "model_state_dict": {"decoder.ln.bias": 3}}, "'decoder.ln.bias'.*is no tensor"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(WeightsError, match=rf"m\.pt: .*{message}"):
        read_openai(tmp_path / "m.pt")
