"""What the compute type `int8` runs in C on a CPU: the decoder, a whole pass in one call, and the encoder's attention.

`decoder.c` and `attention.c` are compiled to one library when the project is installed (`deploy/install.sh`), once for
each kind of CPU; `library` loads the variant that this CPU can run. `weights` lays a `TextDecoder` out in int8,
`inference` runs passes over its own attention memory; `attention` is what the encoder's blocks call, `rowwise` has
their products. Without a compiler there is no library, and both stay with torch.
Why in C, and its price: docs/decisions/0010-a-decoder-in-c.md.
"""
