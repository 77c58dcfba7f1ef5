"""The machine that is measured: its device, what it does at best, and random models of any size to load it with."""
