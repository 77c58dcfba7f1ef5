"""How a model is to be laid out on its device, as a caller, a setting or a command line asks for it. Pure.

What a device can do of it is chosen in `model.compute`, and seen when the model is there
(`model.decoding.step_check`).
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """Each by its name; what the names mean is said where they are chosen."""

    compute_type: str = "auto"
    encoder_context: str = "auto"
    cross_kv: str = "auto"
    cross_attention: str = "auto"
    """Of a GPU's decoder: see `model.gpu.split_check`."""
    cuda_graphs: str = "auto"
    """Whether a GPU's steps are captured: see `model.decoding.step_check`."""

    @classmethod
    def of(cls, given: object) -> "ComputeOptions":
        """What settings, or a parsed command line, have under these names."""
        return cls(**{field.name: getattr(given, field.name) for field in fields(cls)})
