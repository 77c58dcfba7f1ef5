/* AMX: eight tiles of 16 rows by 64 bytes, of which 0 to 3 are sums here. A thread opens them before it uses any, and
 * closes them, or its every switch carries 8 KB. Without AMX there is nothing to open.
 */
#ifndef TILES_H
#define TILES_H

#include <stdint.h>

#include "vectors.h"

#if defined(__AMX_TILE__)

#define ROWS 16
#define TILE_BYTES 64 /* of a row; a tile of B that lies in one piece has them as its stride */
#define TILE_HALVES (ROWS * TILE_BYTES / 2)

INLINE void open_tiles(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = TILE_BYTES;
        shapes.rows[i] = ROWS;
    }
    _tile_loadconfig(&shapes);
}

INLINE void close_tiles(void) { _tile_release(); }

#define load_tile(TILE, FROM, STRIDE) _tile_loadd(TILE, FROM, STRIDE)

INLINE void clear_tiles(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* The four sums, so many numbers from one to the next and so many bytes from row to row. */
#define store_tiles(TO, APART, STRIDE)                                                                                 \
    do {                                                                                                               \
        _tile_stored(0, (TO), STRIDE);                                                                                 \
        _tile_stored(1, (TO) + (APART), STRIDE);                                                                       \
        _tile_stored(2, (TO) + 2 * (APART), STRIDE);                                                                   \
        _tile_stored(3, (TO) + 3 * (APART), STRIDE);                                                                   \
    } while (0)

#else

INLINE void open_tiles(void) {}
INLINE void close_tiles(void) {}

#endif

#endif
