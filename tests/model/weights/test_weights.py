"""Names and paths: which file is read, under which name, with which hash."""

import hashlib
from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.weights import load_weights
from tests.model.weights.writers import (
    DIMS,
    State,
    ctranslate2_variables,
    huggingface_state,
    random_state,
    write_ctranslate2,
    write_huggingface,
    write_openai,
)


def write(form: str, folder: Path, state: State) -> tuple[Path, str]:
    """A model called `mine` in one of the three forms; the path to give, and the file whose hash counts."""
    if form == "openai":
        return (path := write_openai(folder / "mine.pt", state)), path.name
    if form == "huggingface":
        return write_huggingface(folder / "mine", huggingface_state(state)), "mine/model.safetensors"
    return write_ctranslate2(folder / "mine", ctranslate2_variables(state)), "mine/model.bin"


FORMS = ["openai", "huggingface", "ctranslate2"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["float16", "float32"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_tensors_as_stored(tmp_path: Path, form: str, dtype: torch.dtype) -> None:
    state = random_state(dtype)
    path, file = write(form, tmp_path, state)
    weights = load_weights(str(path))
    assert weights.dims == DIMS
    assert weights.name == "mine"
    assert weights.sha256 == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert weights.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert weights.tensors[name].dtype is dtype
        assert weights.tensors[name].is_contiguous()
        assert torch.equal(weights.tensors[name], tensor), name


@pytest.mark.parametrize("form", FORMS)
def test_a_file_inside_the_folder_names_the_same_model(tmp_path: Path, form: str) -> None:
    path, file = write(form, tmp_path, random_state())
    by_file = load_weights(str(tmp_path / file))
    assert (by_file.name, by_file.sha256) == ("mine", load_weights(str(path)).sha256)


def test_a_relative_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = write("ctranslate2", tmp_path, random_state())
    monkeypatch.chdir(folder)
    assert load_weights(".").name == "mine"


@pytest.mark.parametrize("form", FORMS)
def test_an_expected_hash_is_held_to(tmp_path: Path, form: str) -> None:
    path, file = write(form, tmp_path, random_state())
    right = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert load_weights(str(path), expected_sha256=right.upper()).sha256 == right
    with pytest.raises(WeightsError, match=rf"{Path(file).name}: has SHA-256 {right}, expected 00"):
        load_weights(str(path), expected_sha256="00" * 32)


def test_an_unpublished_name_that_is_no_path_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'bass': neither a file, a folder nor a published model.*large-v3-turbo"):
        load_weights("bass", download_dir=tmp_path)


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = write("ctranslate2", tmp_path, random_state())
    monkeypatch.chdir(folder)
    with pytest.raises(WeightsError, match="neither a file"):
        load_weights("")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"], ids=["too-long", "NUL"])
def test_a_name_that_no_file_system_takes_is_refused(path: str) -> None:
    with pytest.raises(WeightsError):
        load_weights(path)


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"model\.safetensors.*model\.bin"):
        load_weights(str(tmp_path))


def test_loose_safetensors_ask_for_their_folder(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="give the folder"):
        load_weights(str(tmp_path / "other.safetensors"))


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = write("openai", tmp_path, random_state())

    def refuse(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WeightsError, match=r"mine\.pt: cannot be read \(Permission denied\)"):
        load_weights(str(path))
