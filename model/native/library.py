"""Finds and loads the compiled library that fits this CPU, and says what its functions take.

An image may be built on one machine and run on another: the variants differ in the instructions that they use, and the
choice is made here, by what torch has found out about the CPU. What was compiled from other sources than those that lie
here, as after an update without `make`, is refused: its functions may take or mean something else.
"""

import ctypes
import hashlib
from ctypes import POINTER, c_bool, c_int, c_int32, c_int64, c_void_p
from pathlib import Path

import torch

from model.compute import has_amx, has_vnni

FOLDER = Path(__file__).parent
VARIANTS = {
    "AVX512AMX": ("amx", "avx512vnni", "avx512", "avx2", "generic"),
    "AVX512VNNI": ("avx512vnni", "avx512", "avx2", "generic"),
    "AVX512": ("avx512", "avx2", "generic"),
    "AVX2": ("avx2", "generic"),
}
"""Compiled variants, best first, by what `cpu_capability` says; `generic` runs everywhere."""


class OutdatedLibraryError(Exception):
    """The compiled library does not belong to this code."""


class Dims(ctypes.Structure):
    """`Dims` of decoder_state.h."""

    _fields_ = tuple(
        (name, c_int32)
        for name in (
            "n_state", "n_head", "n_layer", "n_vocab", "n_text_ctx", "n_audio_ctx", "n_rows", "n_windows",
        )
    )  # fmt: skip


class Memory(ctypes.Structure):
    """`Memory` of decoder_state.h: pointers to what the caller keeps."""

    _fields_ = tuple(
        (name, c_void_p)
        for name in ("keys", "values", "cross_keys", "cross_values", "cross_key_scales", "cross_value_scales")
    )


def cpu_capability() -> str:
    """What this CPU can do: torch's word for it, and whether it adds products of 16-bit numbers in one instruction, or
    multiplies tiles."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability != "AVX512" or not has_vnni():
        return capability
    return f"{capability}AMX" if has_amx() else f"{capability}VNNI"


def load_library(folder: Path = FOLDER, capability: str | None = None) -> ctypes.CDLL | None:
    """The best compiled variant for this CPU, or None where none was compiled.

    `OutdatedLibraryError` if it was compiled from other sources than those beside this file.
    """
    for variant in VARIANTS.get(cpu_capability() if capability is None else capability, ("generic",)):
        file = folder / f"decoder-{variant}.so"
        if file.is_file() and (variant != "amx" or has_amx()):  # the system must be asked
            library = ctypes.CDLL(str(file))
            _check(library, file.name)
            return _declare(library)
    return None


def _check(library: ctypes.CDLL, name: str) -> None:
    sources = sorted(FOLDER.glob("*.[ch]"))
    if not sources:  # somebody installed the libraries alone
        return
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    try:
        compiled = (ctypes.c_char * len(digest)).in_dll(library, "native_sources").value
    except ValueError:  # from before there was a hash
        compiled = b""
    if compiled.decode() != digest:
        raise OutdatedLibraryError(f"model/native/{name} was compiled from other sources: run deploy/native.sh")


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    ints = POINTER(c_int32)
    library.decoder_open.argtypes = (POINTER(Dims), POINTER(Memory), POINTER(c_void_p), c_int)
    library.decoder_open.restype = c_void_p
    library.decoder_close.argtypes = (c_void_p,)
    library.decoder_close.restype = None
    library.decoder_fill.argtypes = (c_void_p, c_int, c_int, c_int, c_void_p, c_void_p, c_void_p)
    library.decoder_fill.restype = None
    library.quantise_rows.argtypes = (c_int, c_int, c_void_p, c_void_p, c_void_p)
    library.quantise_rows.restype = None
    library.decoder_pass.argtypes = (
        c_void_p, c_int, ints, ints, ints, ints, c_int, ints, c_void_p, ints, c_void_p,
    )  # fmt: skip
    library.decoder_pass.restype = None
    library.decoder_choose.argtypes = (c_void_p, c_int, c_void_p, ints, c_int, c_int, c_void_p, c_void_p)
    library.decoder_choose.restype = None
    library.alignment_find.argtypes = (c_int, c_int, c_int, c_void_p, c_int, c_int, c_int, c_void_p)
    library.alignment_find.restype = c_bool
    library.rows_open.argtypes = (c_int, c_int)
    library.rows_open.restype = c_void_p
    library.rows_close.argtypes = (c_void_p,)
    library.rows_close.restype = None
    library.rows_run.argtypes = (c_void_p, c_void_p)
    library.rows_run.restype = None
    library.attention_open.argtypes = (c_int, c_int, c_int)
    library.attention_open.restype = c_void_p
    library.attention_close.argtypes = (c_void_p,)
    library.attention_close.restype = None
    library.attention_run.argtypes = (c_void_p, c_int, c_void_p, c_int64, c_int, c_void_p, c_int64, c_void_p)
    library.attention_run.restype = None
    return library
