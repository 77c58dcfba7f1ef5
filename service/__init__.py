"""The recognition service: HTTP in front, sandboxed audio children and model workers behind."""
