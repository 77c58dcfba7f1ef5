"""From logits to the next tokens: rules, greedy choice, draws and beams."""
