"""Whisper: log-Mel, tokenizer, Transformer and decoding. Imports nothing of the service."""
