"""The decoder of the compute type `int8` on a CPU, in C: a whole pass over the network in one call.

`decoder.c` is compiled when the project is installed (`deploy/install.sh`), once for each kind of CPU; `library` loads
the variant that this CPU can run. `weights` lays a `TextDecoder` out in int8, `inference` runs passes over its own
attention memory. Without a compiler there is no library and `model.inference` stays with torch.
Why in C, and its price: docs/decisions/0010-a-decoder-in-c.md.
"""
