"""Where somebody speaks: the voice activity detector, and what its probabilities say of a recording."""
