"""Evidence: accuracy and parity on a corpus, latency and stages beside the reference, load on a running service.

Every figure that the project states comes from a command here; `LOG.md` keeps them, bad ones too.
"""
