"""How a model under measurement is laid out, from a command line.

Used by `benchmarks.stages` and `benchmarks.saturation`, which time plain steps unless told otherwise.
"""

import argparse

from model.compute import CROSS_KVS
from model.compute_options import ComputeOptions
from model.gpu.split_check import CROSS_ATTENTIONS


def add_compute_options(command: argparse.ArgumentParser) -> None:
    """`--compute-type` and the like, for `compute_options`."""
    command.add_argument("--compute-type", default="auto")
    command.add_argument("--cross-kv", default="auto", choices=CROSS_KVS)
    command.add_argument("--cross-attention", default="auto", choices=CROSS_ATTENTIONS)
    command.add_argument("--cuda-graphs", action="store_true", help="replay captured steps")


def compute_options(given: argparse.Namespace) -> ComputeOptions:
    """What was asked for."""
    return ComputeOptions(
        given.compute_type,
        cross_kv=given.cross_kv,
        cross_attention=given.cross_attention,
        cuda_graphs="auto" if given.cuda_graphs else "false",
    )
