"""A model by its published name, or from a file or a folder, onto a device."""

import warnings
from pathlib import Path

from model.compute import choose, choose_device
from model.compute_options import ComputeOptions
from model.network.padding_store import learned_folder
from model.transcriber import Transcriber
from model.weights import load_weights


def load(
    name: str = "base",
    device: str | None = None,
    compute_type: str = "auto",
    encoder_context: str = "auto",
    cross_kv: str = "auto",
    *,
    cross_attention: str = "auto",
    cuda_graphs: str = "auto",
    download_dir: str | Path | None = None,
    show_progress: bool = False,
) -> Transcriber:
    """Load a model by published name, or from a `.pt` file or a folder, onto a device.

    `compute_type`: `auto`, `int8` (CPU), `float32`, `float16` (GPU) or `bfloat16`. `encoder_context`: `auto`, `full` or
    `short` (`model.network.padding`, CPU). `cross_kv`: `auto`, or `int8` or `fp8` to keep the audio's keys and values
    in 8 bits (`model.network.audio_memory`). On a GPU, `cross_attention`: `auto`, `torch` or `triton`
    (`model.gpu.split_check`), and `cuda_graphs`: `auto`, `true` or `false` (`model.decoding.step_check`). Downloads go
    to `download_dir`, or the user's cache; `show_progress` draws a bar on stderr meanwhile. Raises `WeightsError` or
    `OptionError`.
    """
    place = choose_device(device)
    options = choose(ComputeOptions(compute_type, encoder_context, cross_kv, cross_attention, cuda_graphs), place)
    folder = None if download_dir is None else Path(download_dir)
    weights = load_weights(name, download_dir=folder, show_progress=show_progress)
    made = Transcriber.from_weights(weights, place, options, learned_folder(folder))
    if "native" in made.left_out:
        warnings.warn(f"slower int8: {made.left_out['native']}", RuntimeWarning, stacklevel=2)
    return made
