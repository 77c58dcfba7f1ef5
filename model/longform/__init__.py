"""A recording of any length: which window is next, and what its result means."""
