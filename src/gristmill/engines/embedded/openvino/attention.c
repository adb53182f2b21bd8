/* Attention of one layer over paged KV blocks, for rows that share a prefix.
 *
 * Queries of many rows are gathered into tiles. The blocks that all rows of a tile share are read once for the whole
 * tile (a matrix product); what each row has of its own follows, causally. Both parts run through one online softmax
 * (Milakov and Gimelshein 2018; FlashAttention, Dao et al. 2022), so the result is exact attention in float32. Where a
 * layer has a sliding window, blocks before it are not read.
 *
 * A token's result is the same to the bit whatever else is computed with it. Each score and each sum of values is added
 * up in the order of the keys, and the softmax is updated after the same keys: those at positions 0 to 127, 128 to 255,
 * and so on, counted from the sequence's beginning, never from where a tile's shared blocks end or a window begins. So
 * `shared` is a multiple of CHUNK; keys that another token sees and this one does not add an exact zero.
 *
 * Compiled on the machine it runs on (attention_kernel.py). Vector types are GCC's and clang's, so it is the same
 * source for AVX-512, AVX2 and NEON; only the register tile differs.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 12 /* x 2 vectors = 24 of 32 registers */
#elif defined(__AVX2__)
#define LANES 8
#define ROWS 6 /* x 2 vectors = 12 of 16 registers */
#else
#define LANES 4
#define ROWS 8
#endif

#define BLOCK 32      /* tokens a KV block */
#define CHUNK 4       /* blocks between two updates of the softmax */
#define TILE_ROWS 192 /* query vectors a tile at most */
#define MAX_DIM 256   /* of a head */

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float loose __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
#define LOAD(p) (*(const loose *)(p))
#define STORE(p, v) (*(loose *)(p) = (v))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* A model's attention. KV cache of a layer: keys [block][kv_head][dim][BLOCK], values [block][kv_head][BLOCK][dim]. */
typedef struct {
    int32_t heads, kv_heads, dim;
    float scale, cap; /* of the scores; cap 0: none */
} Shape;

/* The consecutive tokens [begin, end) of a plan that belong to one row, whose blocks after the tile's shared ones are
 * blocks[first_block ...]. The first of the tokens sees `visible` of their tokens, each one after it one more. */
typedef struct {
    int32_t begin, end, first_block, visible;
} Run;

/* Runs [first_run, end_run), whose tokens see all of the `shared` blocks, a multiple of CHUNK, at blocks[first_block]. */
typedef struct {
    int32_t first_run, end_run, first_block, shared;
} Tile;

INLINE vec larger(vec x, vec y)
{
    ivec mask = x > y;
    return (vec)(((ivec)x & mask) | ((ivec)y & ~mask));
}

INLINE void dot(int rows, const float *q, int dim, const float *k, float *s)
{
    for (int c = 0; c < BLOCK; c += 2 * LANES) {
        vec a[ROWS], b[ROWS];
        UNROLL for (int r = 0; r < rows; r++) a[r] = b[r] = (vec){0};
        for (int d = 0; d < dim; d++) {
            vec k0 = LOAD(k + d * BLOCK + c), k1 = LOAD(k + d * BLOCK + c + LANES);
            UNROLL for (int r = 0; r < rows; r++) {
                a[r] += q[r * dim + d] * k0;
                b[r] += q[r * dim + d] * k1;
            }
        }
        UNROLL for (int r = 0; r < rows; r++) {
            STORE(s + r * CHUNK * BLOCK + c, a[r]);
            STORE(s + r * CHUNK * BLOCK + c + LANES, b[r]);
        }
    }
}

INLINE void add_values(int rows, const float *p, const float *const *v, int keys, int dim, float *o)
{
    for (int c = 0; c < dim; c += 2 * LANES) {
        vec a[ROWS], b[ROWS];
        UNROLL for (int r = 0; r < rows; r++) a[r] = LOAD(o + r * dim + c), b[r] = LOAD(o + r * dim + c + LANES);
        for (int block = 0; block * BLOCK < keys; block++) {
            int end = keys - block * BLOCK < BLOCK ? keys - block * BLOCK : BLOCK;
            const float *x = p + block * BLOCK, *y = v[block] + c;
            for (int j = 0; j < end; j++) {
                vec v0 = LOAD(y + j * dim), v1 = LOAD(y + j * dim + LANES);
                UNROLL for (int r = 0; r < rows; r++) {
                    a[r] += x[r * CHUNK * BLOCK + j] * v0;
                    b[r] += x[r * CHUNK * BLOCK + j] * v1;
                }
            }
        }
        UNROLL for (int r = 0; r < rows; r++) STORE(o + r * dim + c, a[r]), STORE(o + r * dim + c + LANES, b[r]);
    }
}

/* 2 to the power of x for x <= 0; below -126 it stays at the smallest normal number, which is as good as 0. */
INLINE vec exp2_vec(vec x)
{
    const vec zero = {0}, least = zero - 126.0f, magic = zero + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    x = larger(x, least);
    vec n = x + magic, f = x - (n - magic);
    vec p = zero + 1.5403530e-4f; /* ln(2)^k / k!, |f| <= 0.5 */
    p = p * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)n << 23));
}

/* cap * tanh(score / cap), as Gemma 2 has it. */
INLINE void cap_scores(float *s, int keys, float cap)
{
    for (int j = 0; j < keys; j += LANES) {
        vec x = LOAD(s + j), t = exp2_vec(larger(x, -x) * (-2.88539008f / cap)); /* e^(-2 |x| / cap) */
        vec capped = cap * (1.0f - t) / (1.0f + t);
        ivec negative = x < (vec){0};
        STORE(s + j, (vec)(((ivec)-capped & negative) | ((ivec)capped & ~negative)));
    }
}

/* Turn the scores of one row, which sees keys [hidden, visible), into weights, and rescale what the row has so far when
 * its maximum rises. Not inlined: there is one copy of the code, which rounds in one way. */
static __attribute__((noinline)) void soften(float *s, int keys, int hidden, int visible, float *highest, float *sum, float *o, int dim)
{
    int padded = (keys + LANES - 1) / LANES * LANES;
    if (hidden >= visible) {
        /* There may be no maximum yet. */
        memset(s, 0, padded * sizeof(float));
        return;
    }
    for (int j = 0; j < hidden; j++) s[j] = -INFINITY;
    for (int j = visible; j < padded; j++) s[j] = -INFINITY;
    const vec zero = {0};
    vec top = zero + *highest;
    for (int j = 0; j < padded; j += LANES) {
        vec x = LOAD(s + j);
        top = larger(x, top);
    }
    float now = *highest;
    for (int i = 0; i < LANES; i++) now = top[i] > now ? top[i] : now;
    if (now > *highest) {
        float factor = exp2f(*highest - now);
        *sum *= factor;
        for (int d = 0; d < dim; d += LANES) STORE(o + d, LOAD(o + d) * factor);
        *highest = now;
    }
    vec total = {0};
    for (int j = 0; j < padded; j += LANES) {
        vec score = LOAD(s + j);
        /* What is not seen weighs 0, and not 2^-126: times a value that is denormal, and slow while nothing else is in
         * the row's sum. */
        ivec seen = score > zero - INFINITY;
        vec x = (vec)((ivec)exp2_vec(score - now) & seen);
        STORE(s + j, x);
        total += x;
    }
    for (int i = 0; i < LANES; i++) *sum += total[i];
}

/* `rows` query vectors against up to CHUNK blocks. Row r sees those of the `keys` from hidden[r] to before visible[r]. */
INLINE void attend_rows(int rows, const float *q, int dim, const float *const *k, const float *const *v, int keys,
                        float cap, const int *hidden, const int *visible, float *highest, float *sum, float *o)
{
    float s[ROWS * CHUNK * BLOCK] __attribute__((aligned(64)));
    for (int block = 0; block * BLOCK < keys; block++) dot(rows, q, dim, k[block], s + block * BLOCK);
    for (int r = 0; cap > 0 && r < rows; r++) cap_scores(s + r * CHUNK * BLOCK, keys, cap);
    for (int r = 0; r < rows; r++)
        soften(s + r * CHUNK * BLOCK, keys, hidden[r], visible[r], highest + r, sum + r, o + r * dim, dim);
    add_values(rows, s, v, keys, dim, o);
}

/* The register tile is unrolled for a constant number of rows: one copy of the code for each. */
static void attend_up_to_12(int rows, const float *q, int dim, const float *const *k, const float *const *v, int keys,
                            float cap, const int *hidden, const int *visible, float *highest, float *sum, float *o)
{
#define CASE(n) case n: if (n <= ROWS) attend_rows(n, q, dim, k, v, keys, cap, hidden, visible, highest, sum, o); break;
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) }
}

typedef struct {
    const float *keys, *values; /* a layer's cache, from this KV head on */
    int64_t stride;             /* floats from one block to the next */
    int dim;
    float cap;
    int first[TILE_ROWS]; /* the position from which on a row sees */
    float q[TILE_ROWS * MAX_DIM], o[TILE_ROWS * MAX_DIM], highest[TILE_ROWS], sum[TILE_ROWS];
} Work;

/* Rows [begin, end) of the tile over `count` blocks, which begin at position `base`, a multiple of CHUNK blocks. Rows come in groups of `group` query
 * heads of one token; the first token sees `seen` tokens of the blocks, each one after it one more where `causal`. */
static void attend_blocks(Work *w, int begin, int end, int group, const int32_t *blocks, int count, int base, int seen,
                          int causal)
{
    const float *k[CHUNK], *v[CHUNK];
    int start = w->first[begin];
    for (int r = begin + 1; r < end; r++) start = w->first[r] < start ? w->first[r] : start;
    int unseen = start > base ? (start - base) / BLOCK : 0;
    for (int first = unseen / CHUNK * CHUNK; first < count; first += CHUNK) {
        int some = count - first < CHUNK ? count - first : CHUNK;
        for (int i = 0; i < some; i++) {
            k[i] = w->keys + blocks[first + i] * w->stride;
            v[i] = w->values + blocks[first + i] * w->stride;
        }
        for (int r = begin; r < end; r += ROWS) {
            int rows = end - r < ROWS ? end - r : ROWS, hidden[ROWS], visible[ROWS], keys = 0, least = some * BLOCK;
            for (int i = 0; i < rows; i++) {
                int n = seen + (causal ? (r + i - begin) / group : 0) - first * BLOCK;
                visible[i] = n < 0 ? 0 : n > some * BLOCK ? some * BLOCK : n;
                keys = visible[i] > keys ? visible[i] : keys;
                n = w->first[r + i] - base - first * BLOCK;
                hidden[i] = n < 0 ? 0 : n;
                least = hidden[i] < least ? hidden[i] : least;
            }
            int skip = least / BLOCK;
            keys -= skip * BLOCK;
            if (keys <= 0) continue;
            for (int i = 0; skip && i < rows; i++) hidden[i] -= skip * BLOCK, visible[i] -= skip * BLOCK;
            attend_up_to_12(rows, w->q + r * w->dim, w->dim, k + skip, v + skip, keys, w->cap, hidden, visible,
                            w->highest + r, w->sum + r, w->o + r * w->dim);
        }
    }
}

/* Write the step's keys and values into its blocks. slots[t] is block * BLOCK + offset of token t. */
void store(const Shape *shape, const float *keys, const float *values, int32_t tokens, const int32_t *slots,
           float *key_cache, float *value_cache)
{
    int dim = shape->dim, heads = shape->kv_heads;
    for (int64_t t = 0; t < tokens; t++)
        for (int h = 0; h < heads; h++) {
            const float *from = keys + (t * heads + h) * dim;
            int64_t base = ((int64_t)(slots[t] / BLOCK) * heads + h) * dim * BLOCK;
            int offset = slots[t] % BLOCK;
            for (int d = 0; d < dim; d++) key_cache[base + d * BLOCK + offset] = from[d];
            memcpy(value_cache + base + offset * dim, values + (t * heads + h) * dim, dim * sizeof(float));
        }
}

/* Attention of all tiles, by as many threads as call it: `next` counts the (tile, KV head) pairs that are taken.
 * order[i] is the place in the step of the plan's token i. Queries and out: [token][head][dim]. A token sees itself and
 * the `window` - 1 before it; all of them where `window` is 0. */
void attend(const Shape *shape, int32_t window, const float *queries, const float *key_cache, const float *value_cache,
            const Tile *tiles, int32_t tile_count, const Run *runs, const int32_t *order, const int32_t *blocks,
            int32_t *next, float *out)
{
    int dim = shape->dim, group = shape->heads / shape->kv_heads;
    float scale = shape->scale * 1.44269504f; /* log2(e): weights are powers of 2 */
    Work w;
    w.dim = dim;
    w.cap = shape->cap * 1.44269504f;
    w.stride = (int64_t)shape->kv_heads * dim * BLOCK;
    for (;;) {
        int item = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (item >= tile_count * shape->kv_heads) return;
        const Tile *tile = tiles + item / shape->kv_heads;
        int head = item % shape->kv_heads;
        int begin = runs[tile->first_run].begin, end = runs[tile->end_run - 1].end, rows = (end - begin) * group;
        w.keys = key_cache + (int64_t)head * dim * BLOCK;
        w.values = value_cache + (int64_t)head * dim * BLOCK;
        for (int t = begin; t < end; t++) {
            const float *from = queries + ((int64_t)order[t] * shape->heads + head * group) * dim;
            for (int i = 0; i < group * dim; i++) w.q[(t - begin) * group * dim + i] = from[i] * scale;
        }
        memset(w.o, 0, rows * dim * sizeof(float));
        for (int r = 0; r < rows; r++) w.highest[r] = -INFINITY, w.sum[r] = 0, w.first[r] = 0;
        int base = tile->shared * BLOCK;
        for (const Run *run = runs + tile->first_run; window && run < runs + tile->end_run; run++)
            for (int r = (run->begin - begin) * group; r < (run->end - begin) * group; r++) {
                /* Behind its own position, `base` + visible - 1, and those of the run's tokens before it. */
                int first = base + run->visible + r / group - (run->begin - begin) - window;
                w.first[r] = first < 0 ? 0 : first;
            }
        attend_blocks(&w, 0, rows, group, blocks + tile->first_block, tile->shared, 0, base, 0);
        for (const Run *run = runs + tile->first_run; run < runs + tile->end_run; run++) {
            int last = run->visible + run->end - run->begin - 1;
            attend_blocks(&w, (run->begin - begin) * group, (run->end - begin) * group, group,
                          blocks + run->first_block, (last + BLOCK - 1) / BLOCK, base, run->visible, 1);
        }
        for (int t = begin; t < end; t++)
            for (int g = 0; g < group; g++) {
                int r = (t - begin) * group + g;
                float *to = out + ((int64_t)order[t] * shape->heads + head * group + g) * dim;
                for (int d = 0; d < dim; d++) to[d] = w.o[r * dim + d] / w.sum[r];
            }
    }
}
