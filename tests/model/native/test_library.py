from pathlib import Path

import pytest

from model.native.library import load_library


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
