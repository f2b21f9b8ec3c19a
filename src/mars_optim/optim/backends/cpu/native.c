/* One step of MARS on a CPU, for all tensors of a bucket: a pass for the norms of c_t, a pass for
 * everything else. Built by build.py with whatever C compiler there is, once for real = float and, if
 * float64 tensors come, once for double. The formulas are those of reference.py, computed in real
 * whatever the tensors are stored in.
 *
 * Work is dealt out in blocks of one tensor. Every thread takes the next block until none is left, so
 * results do not depend on the number of threads. They are threads of the system's, for Python starts
 * none once its main thread has ended. */

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <tgmath.h>

#define ABI 4
#define BLOCK 65536 /* elements; partial sums of a norm are kept per block */
#define STRIP 1024  /* elements converted at a time, all within the first cache */
#define MOST 1024   /* threads */

typedef REAL real;

enum dtype { F32, BF16, F16, F64 };
enum rule { ADAMW, LION };

/* One row per tensor. Pointers are NULL where the rule or the correction keeps no such state. */
struct tensor {
    int64_t size, first_block;
    void *x, *g, *m, *v, *v_max, *last;
    float *step;
};

struct settings {
    double lr, beta1, beta2, eps, weight_decay;
    double gain;       /* k = gamma beta1 / (1 - beta1), weight of g_t - g_{t-1} */
    double fold;       /* gamma of the folded form, else 0 */
    double grad_scale; /* gradients are multiplied by it */
    int64_t tensors, blocks;
    const double *clip_scales; /* per tensor, min(1, clip / ||c||); NULL for no clip */
    int32_t rule, maximize, difference, remember;
    int32_t x_dtype, g_dtype, moment_dtype, last_dtype;
};

int native_abi(void) { return ABI; }
int64_t native_block(void) { return BLOCK; }
int native_has_float16(void) {
#ifdef __FLT16_MANT_DIG__
    return 1;
#else
    return 0;
#endif
}

static float bits_to_float(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
static uint32_t float_to_bits(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }

#define OWN (sizeof(real) == sizeof(float) ? F32 : F64) /* the dtype that needs no conversion */

/* A strip as real: the memory itself if it is that, else a converted copy in buffer. */
static real *open_strip(void *data, int dtype, int64_t at, int n, real *buffer) {
    if (data == NULL) return NULL;
    if (dtype == OWN) return (real *)data + at;
    if (dtype == F32) {
        const float *from = (float *)data + at;
        for (int i = 0; i < n; i++) buffer[i] = from[i];
    } else if (dtype == BF16) {
        const uint16_t *from = (uint16_t *)data + at;
        for (int i = 0; i < n; i++) buffer[i] = bits_to_float((uint32_t)from[i] << 16);
    }
#ifdef __FLT16_MANT_DIG__
    else if (dtype == F16) {
        const _Float16 *from = (_Float16 *)data + at;
        for (int i = 0; i < n; i++) buffer[i] = from[i];
    }
#endif
    return buffer;
}

/* The strip back to where it came from, rounded to nearest even. */
static void close_strip(void *data, int dtype, int64_t at, int n, const real *strip) {
    if (data == NULL || dtype == OWN) return;
    if (dtype == F32) {
        float *to = (float *)data + at;
        for (int i = 0; i < n; i++) to[i] = (float)strip[i];
    } else if (dtype == BF16) {
        uint16_t *to = (uint16_t *)data + at;
        for (int i = 0; i < n; i++) {
            uint32_t bits = float_to_bits((float)strip[i]);
            uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
            to[i] = strip[i] == strip[i] ? (uint16_t)(rounded >> 16) : 0x7fc0;
        }
    }
#ifdef __FLT16_MANT_DIG__
    else if (dtype == F16) {
        _Float16 *to = (_Float16 *)data + at;
        for (int i = 0; i < n; i++) to[i] = (_Float16)strip[i];
    }
#endif
}

static const struct tensor *tensor_of(const struct tensor *rows, int64_t count, int64_t block) {
    int64_t low = 0, high = count - 1;
    while (low < high) { /* the last row whose first block is not after this one */
        int64_t middle = (low + high + 1) / 2;
        if (rows[middle].first_block <= block) low = middle; else high = middle - 1;
    }
    return rows + low;
}

/* --- threads --------------------------------------------------------------------------------- */

struct work {
    const struct settings *s;
    const struct tensor *rows;
    double *parts; /* SUMS numbers per block, of the first pass */
    int64_t next;  /* the first block that nobody has taken */
};

static int64_t take(struct work *work) {
    return __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
}

/* body on this thread and on up to count - 1 others: where the system gives fewer, those do it all */
static void on_threads(void *(*body)(void *), struct work *work, int64_t count) {
    pthread_t others[MOST];
    int started = 0;
    while (started < MOST && started + 1 < count &&
           pthread_create(&others[started], NULL, body, work) == 0)
        started++;
    body(work);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
}

/* --- first pass: sums over a tensor ---------------------------------------------------------- */

/* |c|^2 with c = g + k (g - g_{t-1}), |g|^2, |g_{t-1}|^2 and <g, g_{t-1}>: the clip needs the first,
 * and the others come for nothing, for the tensors are read anyway. */
enum { CC, GG, LL, GL, SUMS };

static void strip_sums(int n, const real *restrict g, const real *restrict last, real gain,
                       real grad_scale, double *sums) {
    real cc = 0, gg = 0, ll = 0, gl = 0;
    if (last) {
#pragma omp simd reduction(+ : cc, gg, ll, gl)
        for (int i = 0; i < n; i++) {
            real gi = g[i] * grad_scale, li = last[i];
            real c = gi + gain * (gi - li);
            cc += c * c;
            gg += gi * gi;
            ll += li * li;
            gl += gi * li;
        }
    } else {
#pragma omp simd reduction(+ : gg)
        for (int i = 0; i < n; i++) {
            real gi = g[i] * grad_scale;
            gg += gi * gi;
        }
        cc = gg;
    }
    sums[CC] += cc;
    sums[GG] += gg;
    sums[LL] += ll;
    sums[GL] += gl;
}

static void *sum_blocks(void *argument) {
    struct work *work = argument;
    const struct settings *s = work->s;
    real g_buffer[STRIP], last_buffer[STRIP];
    int64_t block;
    while ((block = take(work)) < s->blocks) {
        const struct tensor *t = tensor_of(work->rows, s->tensors, block);
        int64_t begin = (block - t->first_block) * BLOCK, end = begin + BLOCK;
        if (end > t->size) end = t->size;
        double sums[SUMS] = {0};
        for (int64_t at = begin; at < end; at += STRIP) {
            int n = end - at < STRIP ? (int)(end - at) : STRIP;
            const real *g = open_strip(t->g, s->g_dtype, at, n, g_buffer);
            const real *last =
                s->difference ? open_strip(t->last, s->last_dtype, at, n, last_buffer) : NULL;
            strip_sums(n, g, last, (real)s->gain, (real)s->grad_scale, sums);
        }
        memcpy(work->parts + SUMS * block, sums, sizeof sums);
    }
    return NULL;
}

/* totals: SUMS numbers per tensor, its blocks' parts added up, always in the same order */
void native_sums(const struct settings *s, const struct tensor *rows, double *parts,
                 double *totals, int64_t threads) {
    struct work work = {s, rows, parts, 0};
    on_threads(sum_blocks, &work, threads);
    for (int64_t t = 0; t < s->tensors; t++) {
        int64_t end = t + 1 < s->tensors ? rows[t + 1].first_block : s->blocks;
        double sums[SUMS] = {0};
        for (int64_t block = rows[t].first_block; block < end; block++)
            for (int j = 0; j < SUMS; j++) sums[j] += parts[SUMS * block + j];
        memcpy(totals + SUMS * t, sums, sizeof sums);
    }
}

/* --- second pass ----------------------------------------------------------------------------- */

struct scalars {
    real grad_scale, gain, clip_scale, beta1_left, beta2, beta2_left, fold;
    real inverse_root, eps, keep, step_size; /* 1 / sqrt(1 - beta2^t), ... */
};

#define INLINE static inline __attribute__((always_inline))

/* c~_t = clip_scale (g + k (g - g_{t-1})), and g_{t-1} <- g_t */
INLINE real estimate(real g, real *last, const struct scalars *s, int difference, int remember) {
    g *= s->grad_scale;
    real c = difference ? g + s->gain * (g - *last) : g;
    if (remember) *last = g;
    return c * s->clip_scale;
}

/* v_t = beta2 v + (1 - beta2) c^2;  x <- (1 - lr lambda) x - lr / (1 - beta1^t) m / denominator */
INLINE void adamw(int n, real *restrict x, const real *restrict g, real *restrict last,
                  real *restrict m, real *restrict v, real *restrict v_max,
                  struct scalars s, int difference, int remember, int folds, int amsgrad) {
#pragma omp simd
    for (int i = 0; i < n; i++) {
        real c = estimate(g[i], last + i, &s, difference, remember);
        real mi = m[i] + s.beta1_left * (c - m[i]);
        real vi = s.beta2 * v[i] + s.beta2_left * c * c;
        m[i] = mi;
        v[i] = vi;
        if (amsgrad) v_max[i] = vi = v_max[i] > vi ? v_max[i] : vi;
        if (folds) mi += s.fold * (c - mi); /* m_t = (1 - gamma) EMA + gamma g */
        real denominator = sqrt(vi) * s.inverse_root + s.eps; /* divisions are dear */
        x[i] = s.keep * x[i] - s.step_size * (mi / denominator);
    }
}

/* x <- (1 - lr lambda) x - lr sign(m_t) */
INLINE void lion(int n, real *restrict x, const real *restrict g, real *restrict last,
                 real *restrict m, struct scalars s, int difference, int remember, int folds) {
#pragma omp simd
    for (int i = 0; i < n; i++) {
        real c = estimate(g[i], last + i, &s, difference, remember);
        real mi = m[i] + s.beta1_left * (c - m[i]);
        m[i] = mi;
        if (folds) mi += s.fold * (c - mi);
        real sign = (real)((mi > 0) - (mi < 0)); /* of NaN: 0, as torch.sign */
        x[i] = s.keep * x[i] - s.step_size * sign;
    }
}

/* Options as constants, so that the compiler makes one loop of each and none has a branch. */
#define ADAMW_LOOP(d, r, f, a) adamw(n, x, g, last, m, v, v_max, s, d, r, f, a)
#define ADAMW_BY_MAX(d, r, f) (v_max ? ADAMW_LOOP(d, r, f, 1) : ADAMW_LOOP(d, r, f, 0))
#define LION_LOOP(d, r, f) lion(n, x, g, last, m, s, d, r, f)

static void adamw_strip(int n, real *x, const real *g, real *last, real *m, real *v,
                        real *v_max, struct scalars s, int difference, int remember) {
    if (s.fold != 0 && remember) ADAMW_BY_MAX(0, 1, 1);
    else if (s.fold != 0) ADAMW_BY_MAX(0, 0, 1);
    else if (difference && remember) ADAMW_BY_MAX(1, 1, 0);
    else if (difference) ADAMW_BY_MAX(1, 0, 0);
    else if (remember) ADAMW_BY_MAX(0, 1, 0);
    else ADAMW_BY_MAX(0, 0, 0);
}

static void lion_strip(int n, real *x, const real *g, real *last, real *m, struct scalars s,
                       int difference, int remember) {
    if (s.fold != 0 && remember) LION_LOOP(0, 1, 1);
    else if (s.fold != 0) LION_LOOP(0, 0, 1);
    else if (difference && remember) LION_LOOP(1, 1, 0);
    else if (difference) LION_LOOP(1, 0, 0);
    else if (remember) LION_LOOP(0, 1, 0);
    else LION_LOOP(0, 0, 0);
}

static struct scalars scalars_of(const struct settings *s, const struct tensor *t, int64_t index) {
    double step = *t->step + 1.0f; /* t; the counter follows when the step is taken */
    double clip_scale = s->clip_scales ? s->clip_scales[index] : 1.0;
    double correction1 = s->rule == ADAMW ? 1.0 - pow(s->beta1, step) : 1.0;
    double correction2 = s->rule == ADAMW ? sqrt(1.0 - pow(s->beta2, step)) : 1.0;
    struct scalars out = {
        .grad_scale = (real)s->grad_scale,
        .gain = (real)s->gain,
        .clip_scale = (real)(s->maximize ? -clip_scale : clip_scale),
        .beta1_left = (real)(1.0 - s->beta1),
        .beta2 = (real)s->beta2,
        .beta2_left = (real)(1.0 - s->beta2),
        .fold = (real)s->fold,
        .inverse_root = (real)(1.0 / correction2),
        .eps = (real)s->eps,
        .keep = (real)(1.0 - s->lr * s->weight_decay),
        .step_size = (real)(s->lr / correction1),
    };
    return out;
}

static void *update_blocks(void *argument) {
    struct work *work = argument;
    const struct settings *s = work->s;
    real x_buffer[STRIP], g_buffer[STRIP], last_buffer[STRIP], m_buffer[STRIP], v_buffer[STRIP],
        v_max_buffer[STRIP];
    int64_t block;
    while ((block = take(work)) < s->blocks) {
        const struct tensor *t = tensor_of(work->rows, s->tensors, block);
        int64_t begin = (block - t->first_block) * BLOCK, end = begin + BLOCK;
        if (end > t->size) end = t->size;
        struct scalars scalars = scalars_of(s, t, t - work->rows);
        int remember = s->remember && t->last != NULL;
        for (int64_t at = begin; at < end; at += STRIP) {
            int n = end - at < STRIP ? (int)(end - at) : STRIP;
            real *x = open_strip(t->x, s->x_dtype, at, n, x_buffer);
            const real *g = open_strip(t->g, s->g_dtype, at, n, g_buffer);
            real *last = open_strip(t->last, s->last_dtype, at, n, last_buffer);
            real *m = open_strip(t->m, s->moment_dtype, at, n, m_buffer);
            if (s->rule == ADAMW) {
                real *v = open_strip(t->v, s->moment_dtype, at, n, v_buffer);
                real *v_max = open_strip(t->v_max, s->moment_dtype, at, n, v_max_buffer);
                adamw_strip(n, x, g, last, m, v, v_max, scalars, s->difference, remember);
                close_strip(t->v, s->moment_dtype, at, n, v);
                close_strip(t->v_max, s->moment_dtype, at, n, v_max);
            } else {
                lion_strip(n, x, g, last, m, scalars, s->difference, remember);
            }
            close_strip(t->x, s->x_dtype, at, n, x);
            close_strip(t->m, s->moment_dtype, at, n, m);
            if (remember) close_strip(t->last, s->last_dtype, at, n, last);
        }
    }
    return NULL;
}

/* The step, and then t <- t + 1: nothing can fail in between. */
void native_update(const struct settings *s, const struct tensor *rows, int64_t threads) {
    struct work work = {s, rows, NULL, 0};
    on_threads(update_blocks, &work, threads);
    for (int64_t t = 0; t < s->tensors; t++) *rows[t].step += 1.0f;
}

/* --- gamma chosen by the next gradient: what is looked at in a step -------------------------- */

#define TINY 0x1p-1022
#define MOST_OF_ALL 0x1.fffffffffffffp+1023

/* Every apart-th element of a gradient, count of them; in the rows they begin at column first. */
struct sample {
    const void *g;
    int64_t apart, count, first;
    double scale;
};

struct look {
    int64_t samples, columns, dtype, every;
    double beta1, beta2;
    const struct sample *sample; /* one row per tensor */
    double *rows;  /* u, a and the average of g^2, below 0 where there was no gradient yet */
    double *table; /* what each of the last every steps added up */
    double *steps; /* t - 1 */
};

#define GATHER(type, value)                                                          \
    const type *from = (const type *)t->g + at * apart;                              \
    for (int i = 0; i < n; i++) {                                                    \
        type x = from[i * apart];                                                    \
        to[i] = scale * (double)(value);                                             \
    }

static void gather(const struct sample *t, int dtype, int64_t at, int n, double *restrict to) {
    const int64_t apart = t->apart;
    const double scale = t->scale;
    if (dtype == F32) { GATHER(float, x) }
    else if (dtype == F64) { GATHER(double, x) }
    else { GATHER(uint16_t, bits_to_float((uint32_t)x << 16)) }
}

/* A strip of it: the rows u, a and the average of g^2 move on; totals are <g, u> and that of sizes.
 * A function of its own, so that the compiler knows the rows apart. */
static void look_strip(int n, const double *restrict g, double *restrict u, double *restrict a,
                       double *restrict v, double of_g, double of_square, double *totals) {
    double agreement = 0.0, size = 0.0;
#pragma omp simd reduction(+ : agreement, size)
    for (int i = 0; i < n; i++) {
        double told = g[i] * u[i], square = g[i] * g[i];
        agreement += told;
        size += fabs(told);
        double ai = v[i] < 0 ? g[i] : a[i] + of_g * (g[i] - a[i]);
        double vi = v[i] < 0 ? square : v[i] + of_square * (square - v[i]);
        double ui = (g[i] - ai) / sqrt(vi > TINY ? vi : TINY);
        /* what is not finite leaves nothing, and what an earlier one left is 0 */
        double old_u = fabs(u[i]) <= MOST_OF_ALL ? u[i] : 0.0;
        double old_a = fabs(a[i]) <= MOST_OF_ALL ? a[i] : 0.0;
        double old_v = fabs(v[i]) <= MOST_OF_ALL ? v[i] : 0.0;
        double most = fabs(ui) + fabs(ai) + fabs(vi);
        u[i] = most <= MOST_OF_ALL ? ui : old_u;
        a[i] = most <= MOST_OF_ALL ? ai : old_a;
        v[i] = most <= MOST_OF_ALL ? vi : old_v;
    }
    totals[0] += agreement;
    totals[1] += size;
}

/* The newest gradient's share in an average of t, as newest_weight of criteria.py. */
static double newest(double beta, double t) { return (1.0 - beta) / (1.0 - pow(beta, t)); }

/* NextGradient.look of criteria.py, always in double, and then t <- t + 1, which is returned. The
 * step's row of the table gets <g, u>, the same of sizes, and 1: there were gradients. */
int64_t native_look(const struct look *s) {
    const double t = *s->steps + 1.0;
    const double of_g = newest(s->beta1, t), of_square = newest(s->beta2, t);
    double *sums = s->table + 3 * (((int64_t)t - 1) % s->every);
    double totals[2] = {0.0, 0.0}, g[STRIP];
    for (const struct sample *x = s->sample; x < s->sample + s->samples; x++) {
        for (int64_t at = 0; at < x->count; at += STRIP) {
            int n = x->count - at < STRIP ? (int)(x->count - at) : STRIP;
            double *u = s->rows + x->first + at;
            gather(x, (int)s->dtype, at, n, g);
            look_strip(n, g, u, u + s->columns, u + 2 * s->columns, of_g, of_square, totals);
        }
    }
    sums[0] = totals[0];
    sums[1] = totals[1];
    sums[2] = 1.0;
    *s->steps = t;
    return (int64_t)t;
}
