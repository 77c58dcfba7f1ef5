"""The continuous batch: encoded windows in, decoded windows out, one token a step for every row."""
