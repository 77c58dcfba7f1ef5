"""A GPU: how torch is set up for one, whether it still answers, and how `model.gpu.graphs` records the work of a step.

**Never run on one so far**, see there. Source: torch's notes on CUDA graphs and on numerical accuracy.
"""

import torch
from torch import Tensor

from model.gpu.graphs import Run

_WARM_UPS = 2
"""Runs before a capture: libraries choose kernels and allocate workspaces in them, which a capture must not do.

They take as much memory as the capture will, so that what is lacking is found lacking here, where that does no harm: a
capture that was cut off keeps its pool (pytorch/pytorch#190308).
"""


def prepare() -> None:
    """Set torch up, for the whole process, before a model is put on a GPU.

    cuDNN's attention makes a plan for every new shape, and prompts have a new one nearly each time; the other backends
    do not. float32 is float32 in convolutions too, where torch's default is TF32.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cudnn.allow_tf32 = False


def is_lost(device: torch.device) -> bool:
    """Whether a GPU answers nothing any more: after an illegal access every call of the process fails until it ends."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


class CudaBackend:
    """CUDA graphs of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One stream for all captures: memory of a pool is shared between captures on the same stream only.
        # What is captured keeps its priority: a step goes before the kernels of an encoder pass that wait.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, run: Run) -> Run:
        """See `Backend`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            # Around the capture as well: one that fails to end leaves its stream behind as the current one.
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UPS):
                    run()
                with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                    answer = run()
            current.wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return answer

        return replay

    def reset(self) -> None:
        """See `Backend`."""
        torch.cuda.synchronize(self._device)
        self._pool = torch.cuda.graph_pool_handle()
