"""What was learned of the padding is found again by who may use it, and by nobody else."""

import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from model.network import padding, padding_store
from model.network.padding import PaddedEncoder, Padding, shorten
from model.network.padding_store import PaddingStore, learned_folder
from model.network.whisper import Whisper
from tests import tiny

SHA256 = "5" * 64


def _model() -> Whisper:
    return Whisper.from_tensors(tiny.DIMS, tiny.tensors(tiny.DIMS))


def _learned(folder: Path) -> Path:
    """The only file in a folder in which a model has kept what it learned."""
    model = _model()
    shorten(model, PaddingStore(folder, model, SHA256))
    (path,) = folder.iterdir()
    return path


def _shortened(folder: Path) -> tuple[PaddedEncoder, bool]:
    """The encoder of a model that starts with this folder, and whether it had to learn."""
    model = _model()
    learned = Mock(wraps=padding.learn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padding, "learn", learned)
        shorten(model, PaddingStore(folder, model, SHA256))
    assert isinstance(model.encoder, PaddedEncoder)
    return model.encoder, learned.called


@pytest.fixture(autouse=True)
def _one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five clips take their time, and one is enough to learn from."""
    clip = next(padding.speech_windows(tiny.DIMS.n_mels))
    monkeypatch.setattr(padding, "speech_windows", lambda n_mels: iter([clip]))


def test_the_second_start_reads_what_the_first_one_learned(tmp_path: Path) -> None:
    first, learned = _shortened(tmp_path / "cache" / "whisper")
    assert learned
    second, learned = _shortened(tmp_path / "cache" / "whisper")
    assert not learned
    for name in ("keys_values", "features"):
        assert torch.equal(getattr(first.padding, name), getattr(second.padding, name))
    assert first.padding.first == second.padding.first > 0


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _other_shape(path: Path) -> None:
    np.savez(path, keys_values=np.zeros((1, 2), np.float16), features=np.zeros(3, np.float16), first=np.int64(0))


def _objects(path: Path) -> None:
    np.savez(path, keys_values=np.array([print]), features=np.array([print]), first=np.int64(0))


def _one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3, np.float16))


def _flag(path: Path, place: int, bits: int) -> None:
    """Change the first entry of the archive's directory, which no checksum guards."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + place] ^= bits
    path.write_bytes(data)


def _encrypted(path: Path) -> None:
    _flag(path, 8, 1)


def _from_the_future(path: Path) -> None:
    _flag(path, 6, 64)


def _no_features(path: Path) -> None:
    np.savez(path, keys_values=np.zeros(3, np.float16))


@pytest.mark.parametrize(
    "damage",
    [_cut, _flip, _empty, _other_shape, _objects, _one_array, _no_features, _encrypted, _from_the_future],
)
def test_a_damaged_file_is_learned_anew_and_replaced(tmp_path: Path, damage: object) -> None:
    path = _learned(tmp_path)
    whole = path.read_bytes()
    assert callable(damage)
    damage(path)
    assert path.read_bytes() != whole
    encoder, learned = _shortened(tmp_path)
    assert learned
    assert encoder.padding.keys_values.any()
    assert not _shortened(tmp_path)[1]


def test_other_weights_code_threads_or_arithmetic_do_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _learned(tmp_path)
    model = _model()
    assert PaddingStore(tmp_path, model, SHA256).read() is not None
    assert PaddingStore(tmp_path, model, "6" * 64).read() is None
    other = _model()
    other.compute_type = "int8"
    assert PaddingStore(tmp_path, other, SHA256).read() is None
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert PaddingStore(tmp_path, model, SHA256).read() is None
    finally:
        torch.set_num_threads(threads)
    package = tmp_path / "package"
    package.mkdir()
    (package / "padding.py").write_text("changed")
    monkeypatch.setattr(padding_store, "_PACKAGE", package)
    assert PaddingStore(tmp_path, model, SHA256).read() is None
    assert path.is_file()


def test_a_folder_that_cannot_be_written_to_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert _shortened(tmp_path / "file" / "cache")[1]
    assert (tmp_path / "file").read_text() == "in the way"


def test_only_the_newest_files_stay(tmp_path: Path) -> None:
    model = _model()
    ones = torch.ones(1).half()
    kept = Padding(keys_values=ones, features=ones, covariances=ones, first=1)
    (tmp_path / "base.pt").write_text("weights stay")
    for number in range(7):
        PaddingStore(tmp_path, model, str(number)).write(kept)
        for path in tmp_path.glob("*.npz"):
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    left = sorted(tmp_path.iterdir())
    assert [path.name for path in left if path.suffix != ".npz"] == ["base.pt"]
    assert len(left) == 5
    assert PaddingStore(tmp_path, model, "6")._path in left
    assert PaddingStore(tmp_path, model, "2")._path not in left


def test_what_a_killed_writer_left_behind_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (".padding-killed", ".padding-new", ".other"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    assert PaddingStore(tmp_path, _model(), SHA256).read() is None
    assert sorted(tmp_path.iterdir()) == [other, new]


def test_it_lies_beside_the_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert learned_folder(tmp_path) == tmp_path
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert learned_folder(None) == tmp_path / ".cache" / "whisper-service"

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert learned_folder(None) is None
