"""What the compute type `int8` runs in C on a CPU: the decoder, a whole pass in one call, of the encoder all but the
products of its blocks and its convolutions, and the alignment of words.

The C files are compiled to one library when the project is installed (`deploy/install.sh`), once for each kind of CPU;
`library` loads the variant that this CPU can run. `weights` lays a `TextDecoder` out in int8, `inference` runs passes
over its own attention memory; `block` is a block of the encoder: `rowwise` has its products, `row_passes` what stands
between them, `attention` its attention, and `workspace` is what the last two keep between calls; `alignment` finds
words in time. Without a compiler there is no library, and all of it stays with torch.
Why in C, and its price: docs/decisions/0010-a-decoder-in-c.md.
"""
