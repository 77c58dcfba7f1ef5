"""A float32 `Whisper` on a CPU becomes an int8 one: what `compute_type=int8` means.

The encoder's projections and those of the audio's keys and values are `model.native.rowwise.Int8Linear`, where torch
has a fast int8 product; the decoder runs in `model.native`, where that was compiled, and so does the encoder's
attention where that is faster. What is missing stays in float32 and torch: the same results within the rounding of
int8, slower.
"""

import ctypes
from pathlib import Path
from typing import cast

from model.compute import can_attend_in_int16, can_multiply_int8
from model.native.attention import HEAD, NativeAttention
from model.native.block import NativeEncoderBlock
from model.native.library import OutdatedLibraryError, load_library
from model.native.row_passes import RowPasses
from model.native.rowwise import PANEL, quantise_projections
from model.native.weights import NativeDecoder
from model.network.blocks import EncoderBlock
from model.network.whisper import AudioEncoder, TextDecoder, Whisper


def quantise(model: Whisper) -> str | None:
    """Change a float32 model on a CPU in place; what it was made of is freed.

    Returns why nothing runs in C although it was compiled.
    """
    if not isinstance(model.decoder, TextDecoder):
        raise TypeError("this model is int8 already")
    library, reason = None, None
    try:
        library = load_library()
    except (OutdatedLibraryError, OSError) as error:  # or damaged, or of another machine or C library
        reason = str(error)
    if library is not None and can_attend_in_int16():
        give_attention(model, library)
    if can_multiply_int8():
        quantise_projections(model, library)
        if library is not None:
            join_products(model, library)
    if library is None:
        model.decoder.pack()
    else:
        model.decoder = NativeDecoder(model.decoder, model.dims, library)
    model.compute_type = "int8"
    return reason


def give_attention(model: Whisper, library: ctypes.CDLL) -> None:
    """Let the encoder's blocks attend in C; heads that it is not made for stay with torch."""
    dims = model.dims
    if dims.n_audio_state != dims.n_audio_head * HEAD:
        return
    attention = NativeAttention(library, n_state=dims.n_audio_state, n_head=dims.n_audio_head, n_ctx=dims.n_audio_ctx)
    for block in model.encoder.modules():
        if isinstance(block, EncoderBlock):
            block.attention = attention


def join_products(model: Whisper, library: ctypes.CDLL) -> None:
    """Let C do what stands between the products of the encoder's blocks, which are `Int8Linear` by now."""
    encoder = cast(AudioEncoder, model.encoder)
    n_state = model.dims.n_audio_state
    if n_state % PANEL:
        return
    passes = RowPasses(library, 4 * n_state)
    for i, block in enumerate(encoder.blocks):
        encoder.blocks[i] = NativeEncoderBlock(cast(EncoderBlock, block), passes)


def decoder_name(model: Whisper) -> str:
    """What runs the decoder: `torch`, `torch-triton` (`model.gpu.split_step`), or `native-` and the variant."""
    if not isinstance(model.decoder, NativeDecoder):
        return "torch-triton" if model.cross_attention == "triton" else "torch"
    return f"native-{Path(model.decoder.library._name).stem.removeprefix('decoder-')}"


def cross_kv_name(model: Whisper) -> str:
    """How the audio's keys and values are kept: `int8`, `fp8`, or a float format."""
    if isinstance(model.decoder, NativeDecoder):
        return "int8"
    return str(model.dtype).removeprefix("torch.") if model.cross_kv == "auto" else model.cross_kv
