"""A model worker: one model on one device, and the engine that decodes all its requests together."""
