"""The Transformer and its memory: log-Mel windows in, features and logits out."""
