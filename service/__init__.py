"""The recognition service: HTTP in front, sandboxed audio children and model workers behind."""

__version__ = "0.1.0"
