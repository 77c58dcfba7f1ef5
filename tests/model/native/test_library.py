import subprocess
from pathlib import Path

import pytest

from model.native import library
from model.native.library import OutdatedLibraryError, load_library


def test_the_best_variant_that_the_cpu_can_run_is_loaded(compiled: Path, tmp_path: Path) -> None:
    assert load_library(tmp_path, "AVX2") is None
    (tmp_path / "decoder-avx512.so").symlink_to(compiled / "decoder-avx512.so")
    assert load_library(tmp_path, "AVX2") is None  # never one that would be an illegal instruction
    (tmp_path / "decoder-generic.so").symlink_to(compiled / "decoder-generic.so")
    for capability in ("DEFAULT", "AVX2", "SVE256"):
        loaded = load_library(tmp_path, capability)
        assert loaded is not None
        assert loaded._name.endswith("decoder-generic.so")


def test_a_file_that_is_no_library_is_said(tmp_path: Path) -> None:
    (tmp_path / "decoder-generic.so").write_bytes(b"")
    with pytest.raises(OSError, match=r"decoder-generic\.so"):
        load_library(tmp_path, "DEFAULT")


def test_what_other_sources_were_compiled_to_is_refused(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in library.FOLDER.glob("*.[ch]"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    assert load_library(compiled, "DEFAULT") is not None
    with (tmp_path / "pool.h").open("a") as header:
        header.write("\n")
    with pytest.raises(OutdatedLibraryError, match=r"decoder-generic\.so .* deploy/native\.sh"):
        load_library(compiled, "DEFAULT")


@pytest.mark.usefixtures("compiled")  # skips without a compiler
def test_a_library_from_before_there_was_a_hash_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "decoder-generic.so"
    subprocess.run(["cc", "-shared", "-x", "c", "-", "-o", old], input=b"int decoder_open;", check=True)
    with pytest.raises(OutdatedLibraryError):
        load_library(tmp_path, "DEFAULT")


def test_libraries_without_their_sources_are_taken_as_they_are(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    assert load_library(compiled, "DEFAULT") is not None
