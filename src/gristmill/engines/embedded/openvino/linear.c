/* Linear layers by AMX, the matrix unit of newer x86 processors, with the accuracy of float32.
 *
 * AMX multiplies bf16 numbers, 8 significant bits, and adds in float32. A float32 is the sum of two of them to 16 bits,
 * so each product is computed as three: high * high + high * low + low * high (Henry, Tang, Heinecke 2019, "Leveraging
 * the bfloat16 artificial intelligence datatype for higher-precision computations"; oneMKL calls it bf16x3). Weights of
 * float16 are such a sum exactly.
 *
 * Each number of the result is added up in one order, whatever the other rows are: a row's result does not depend on
 * its neighbours. Compiled on the machine it runs on (native_code.py).
 */
#include <stdint.h>

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIDE 16   /* rows and columns of a tile of the result */
#define DEPTH 32  /* inputs that one tile instruction adds up */
#define PART (SIDE * DEPTH)
#define PAIR (2 * PART) /* a tile of high halves, and one of the low */
#define PANEL 128 /* rows of the input that are split at a time, to stay in the L2 cache */

/* A layer without its bias: `outputs` by `inputs`, packed. Both are multiples of 32. */
typedef struct {
    const uint16_t *weights;
    int32_t outputs;
} Matrix;

/* Linux lends a process the tiles' registers when it asks for them. */
int allowed(void)
{
    const long request_permission = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static float of_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* weights: [output][input]. packed: [output / 16][input / 32][high, low][pair of inputs][output][2]. */
void pack(const float *weights, int32_t outputs, int32_t inputs, uint16_t *packed)
{
    for (int64_t n = 0; n < outputs; n += SIDE)
        for (int64_t k = 0; k < inputs; k += DEPTH, packed += PAIR)
            for (int i = 0; i < DEPTH; i++)
                for (int j = 0; j < SIDE; j++) {
                    float x = weights[(n + j) * inputs + k + i];
                    int place = i / 2 * 2 * SIDE + j * 2 + i % 2;
                    packed[place] = to_bf16(x);
                    packed[PART + place] = to_bf16(x - of_bf16(packed[place]));
                }
}

/* rows: [count][inputs], at most 16 of them. halves: [input / 32][high, low][row][32]. */
static void split(const float *rows, int count, int inputs, uint16_t *halves)
{
    for (int k = 0; k < inputs; k += DEPTH, halves += PAIR)
        for (int r = 0; r < count; r++) {
            const float *from = rows + (int64_t)r * inputs + k;
            __m512 x = _mm512_loadu_ps(from), y = _mm512_loadu_ps(from + 16);
            __m512i high = (__m512i)_mm512_cvtne2ps_pbh(y, x);
            __m512i x_high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high)), 16);
            __m512i y_high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1)), 16);
            __m512 x_low = x - _mm512_castsi512_ps(x_high), y_low = y - _mm512_castsi512_ps(y_high);
            _mm512_store_si512(halves + r * DEPTH, high);
            _mm512_store_si512(halves + PART + r * DEPTH, (__m512i)_mm512_cvtne2ps_pbh(y_low, x_low));
        }
}

/* Tiles 0 to 3 are the result, two by two; 4 and 5 the input's rows, of which there are `above` and `below`; 6 and 7
 * the weights. */
static void shape_tiles(int above, int below)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    const int rows[8] = {above, above, below, below, above, below, SIDE, SIDE};
    for (int i = 0; i < 8; i++) {
        shape.rows[i] = rows[i] ? rows[i] : SIDE;
        shape.row_bytes[i] = 64;
    }
    _tile_loadconfig(&shape);
}

#define MULTIPLY                   \
    _tile_dpbf16ps(0, 4, 6);       \
    _tile_dpbf16ps(1, 4, 7);       \
    if (below) {                   \
        _tile_dpbf16ps(2, 5, 6);   \
        _tile_dpbf16ps(3, 5, 7);   \
    }

/* Up to 32 rows times 32 outputs. The halves of rows 16 and up, and the weights of outputs 16 and up, begin `stride`
 * behind the others; `below`: whether there are such rows. */
static inline __attribute__((always_inline)) void multiply(const uint16_t *halves, const uint16_t *weights,
                                                           int64_t stride, int below, int64_t outputs, float *out)
{
    const uint16_t *end = halves + stride;
    _tile_zero(0);
    _tile_zero(1);
    if (below) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (; halves < end; halves += PAIR, weights += PAIR) {
        _tile_loadd(4, halves, 64);
        if (below) _tile_loadd(5, halves + stride, 64);
        _tile_loadd(6, weights + PART, 64);
        _tile_loadd(7, weights + stride + PART, 64);
        MULTIPLY
        _tile_loadd(6, weights, 64);
        _tile_loadd(7, weights + stride, 64);
        MULTIPLY
        _tile_loadd(4, halves + PART, 64);
        if (below) _tile_loadd(5, halves + stride + PART, 64);
        MULTIPLY
    }
    _tile_stored(0, out, outputs * 4);
    _tile_stored(1, out + SIDE, outputs * 4);
    if (below) {
        _tile_stored(2, out + SIDE * outputs, outputs * 4);
        _tile_stored(3, out + SIDE * outputs + SIDE, outputs * 4);
    }
}

/* This thread's, for the halves of a panel; NULL where there is no memory. It is kept for the next call. */
static uint16_t *room(size_t bytes)
{
    static _Thread_local uint16_t *kept;
    static _Thread_local size_t size;
    if (size < bytes) {
        free(kept);
        kept = aligned_alloc(64, bytes);
        size = kept ? bytes : 0;
    }
    return kept;
}

/* out[i] = rows * matrices[i], by as many threads as call it: `next` counts the pieces that are taken, of up to PANEL
 * rows and `width` outputs, a multiple of 32. rows: [count][inputs], out[i]: [count][outputs]. Returns 0 where there
 * was no memory. */
int multiply_all(const float *rows, int32_t count, int32_t inputs, const Matrix *matrices, int32_t matrix_count,
                 int32_t width, int32_t *next, float *const *out)
{
    const int64_t stride = (int64_t)inputs / DEPTH * PAIR;
    uint16_t *halves = room(PANEL / SIDE * stride * sizeof(uint16_t));
    if (!halves) return 0;
    int pieces = 0, split_panel = -1;
    for (int i = 0; i < matrix_count; i++) pieces += (matrices[i].outputs + width - 1) / width;
    shape_tiles(SIDE, SIDE);
    for (;;) {
        int item = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED), panel = item / pieces, piece = item % pieces, i = 0;
        int begin = panel * PANEL, end = begin + PANEL < count ? begin + PANEL : count;
        if (begin >= count) break;
        if (panel != split_panel)
            for (int r = begin; r < end; r += SIDE)
                split(rows + (int64_t)r * inputs, end - r < SIDE ? end - r : SIDE, inputs,
                      halves + (r - begin) / SIDE * stride);
        split_panel = panel;
        while (piece >= (matrices[i].outputs + width - 1) / width)
            piece -= (matrices[i++].outputs + width - 1) / width;
        const int64_t outputs = matrices[i].outputs;
        int first = piece * width, last = first + width < outputs ? first + width : outputs;
        for (int r = begin; r < end; r += 2 * SIDE) {
            const uint16_t *above = halves + (r - begin) / SIDE * stride;
            int left = end - r;
            if (left < 2 * SIDE) shape_tiles(left < SIDE ? left : SIDE, left > SIDE ? left - SIDE : 0);
            for (int c = first; c < last; c += 2 * SIDE) {
                const uint16_t *weights = matrices[i].weights + c / SIDE * stride;
                if (left > SIDE)
                    multiply(above, weights, stride, 1, outputs, out[i] + r * outputs + c);
                else
                    multiply(above, weights, stride, 0, outputs, out[i] + r * outputs + c);
            }
            if (left < 2 * SIDE) shape_tiles(SIDE, SIDE);
        }
    }
    _tile_release();
    return 1;
}

#else

int allowed(void) { return 0; }

#endif
