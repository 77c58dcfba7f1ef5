"""How many rows a worker's batch has: those that were asked for, or as many as there is memory for.

Used by `service.worker.start`. More than fit are refused at the start, with the figures, rather than found out under
load: a GPU's memory is taken at once, but on a CPU slots take none until they are used, and then the kernel kills. What
is compared is what is certain: slots, and weights that are not loaded yet.
"""

from typing import TYPE_CHECKING

from model.decoding.budget import DeviceMemory, batch_bytes, fitting_rows
from model.errors import OptionError
from service.settings import PREFIX

if TYPE_CHECKING:
    import torch

    from model.dims import ModelDimensions

_CPU_ROWS = 16
_LESS = f"take a smaller {PREFIX}MODEL, or {PREFIX}COMPUTE_TYPE=int8"


def gpu_rows(
    dims: "ModelDimensions",
    device: "torch.device",
    dtype: "torch.dtype",
    share: float,
    cross_kv: str = "auto",
    *,
    asked: int = 0,
    workers: int = 1,
) -> int:
    """Rows of a batch on a GPU, with its weights loaded; `asked` 0 is what it has memory for within `share`.

    `OptionError` where it has none, or less than is asked for. So many `workers` share it, each with as many rows.
    """
    import torch

    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    memory = DeviceMemory(total=total, free=free, held=torch.cuda.memory_reserved(device))
    if asked:
        usable = memory.usable(1.0 / workers)
        needed = batch_bytes(dims, asked, itemsize=dtype.itemsize, cross_kv=cross_kv)
        if needed > usable:
            raise OptionError("max_batch_rows", _too_many(asked, needed, str(device), usable))
        return asked
    rows = fitting_rows(dims, itemsize=dtype.itemsize, memory=memory, share=share, cross_kv=cross_kv)
    if rows == 0:
        usable = _mib(memory.usable(share))
        raise OptionError("max_batch_rows", f"{device} has memory left for no row: {usable} MiB beside the weights")
    return rows


def cpu_rows(
    dims: "ModelDimensions",
    itemsize: int,
    cross_kv: str,
    free: int | None,
    *,
    asked: int = 0,
    unloaded: int = 0,
) -> int:
    """Rows of a batch on a CPU; `asked` 0 is 16, or as many as there is memory for.

    `free`: bytes that the machine has left, of which weights will take `unloaded`; None where it does not say.
    `OptionError` where it has none, or less than is asked for.
    """
    if free is None:
        return asked or _CPU_ROWS

    def needed(rows: int) -> int:
        return batch_bytes(dims, rows, itemsize=itemsize, cross_kv=cross_kv, has_shadows=True)

    usable = max(0, free - unloaded)
    fitting = next((rows for rows in range(asked or _CPU_ROWS, 0, -1) if needed(rows) <= usable), 0)
    if asked > fitting:
        advice = f"; {fitting} fit" if fitting else f", too little for one: {_LESS}"
        raise OptionError("max_batch_rows", _too_many(asked, needed(asked), "the machine", usable) + advice)
    if fitting == 0:
        left = f"one row takes {_mib(needed(1))} MiB, and the machine has {_mib(usable)} MiB left beside the weights"
        raise OptionError("model", f"{left}: {_LESS}")
    return fitting


def check_loading(free: int | None, needed: int) -> None:
    """`OptionError` where the weights take more than the `free` bytes that there are while they load."""
    if free is not None and needed > free:
        taken = f"its weights take {_mib(needed)} MiB while they load, and the machine has {_mib(free)} MiB left"
        raise OptionError("model", f"{taken}: take a smaller one")


def _too_many(rows: int, needed: int, where: str, usable: int) -> str:
    return f"{rows} rows take {_mib(needed)} MiB, and {where} has {_mib(usable)} MiB left beside the weights"


def _mib(size: int) -> int:
    return size // 1024**2
