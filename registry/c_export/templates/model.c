/* A model of gemmcast; ${header} says how it is used. Written by `python -m registry export --format c`.
 * Do not edit; export it again. */
#include "${header}"

#include <math.h>
#include <string.h>

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "-ffast-math and -ffinite-math-only break what is NaN: leave them out"
#endif

/* A query is a row of float, in the order of the contract. */
typedef char gemmcast_query_is_a_row[sizeof(gemmcast_query) == GEMMCAST_FIELDS * sizeof(float) ? 1 : -1];

const gemmcast_device gemmcast_devices[GEMMCAST_DEVICES] = {
${devices}
};

static const float IN_BYTES[] = {${in_bytes}};
static const float OUT_BYTES[] = {${out_bytes}};

/* ---- the graph ---------------------------------------------------------------------------- */

${constants}
${helpers}
struct outputs {
${outputs}
};

static void evaluate(const float *question, struct outputs *out)
{
${body}
}

/* ---- the contract ------------------------------------------------------------------------- */

static int is_whole(float value, float least, float most)
{
    return value >= least && value <= most && value == floorf(value);
}

static int is_finite(float value, float least)
{
    return value >= least && value <= 3.4e38f;
}

static float known(float value, double otherwise)
{
    return value > 0.0f ? value : (float)otherwise;
}

void gemmcast_set_layout(gemmcast_query *query, enum gemmcast_layout layout)
{
    query->trans_a = layout == GEMMCAST_TN || layout == GEMMCAST_TT;
    query->trans_b = layout == GEMMCAST_NT || layout == GEMMCAST_TT;
}

/* Threads of one block, where family and tile determine them; else 0. */
static float threads_of_tile(const gemmcast_query *query)
{
    if (query->family == GEMMCAST_TILED)
        return query->tile_m * query->tile_n;
    if (query->family != GEMMCAST_CUTLASS)
        return 0.0f;
    if (query->cluster_m > 0.0f)
        return query->algorithm == GEMMCAST_WS ? 256.0f : 384.0f;
    if (query->warp_m <= 0.0f || query->warp_n <= 0.0f || query->warp_k <= 0.0f)
        return 0.0f;
    return 32.0f * floorf(query->tile_m / query->warp_m) * floorf(query->tile_n / query->warp_n)
        * floorf(query->tile_k / query->warp_k);
}

int gemmcast_complete(gemmcast_query *query, const gemmcast_device *device)
{
    if (!query || !device)
        return GEMMCAST_NO_ARGUMENT;
    if (!is_whole(query->dtype, 0, ${dtype_count} - 1))
        return GEMMCAST_BAD_DTYPE;
    const int dtype = (int)query->dtype;
    if (!(device->peak_tflops[dtype] > 0.0))
        return GEMMCAST_NO_PEAK;
    query->threads = known(query->threads, threads_of_tile(query));
    query->tile_m = known(query->tile_m, query->m);
    query->tile_n = known(query->tile_n, query->n);
    query->tile_k = known(query->tile_k, query->k);
    query->batch = known(query->batch, 1.0);
    query->split_k = known(query->split_k, 1.0);
    query->in_bytes = IN_BYTES[dtype];
    query->out_bytes = OUT_BYTES[dtype];
    double units = device->compute_units;
    if (device->is_cpu && query->threads > 0.0f && query->threads < units)
        units = query->threads;
    query->active_units = (float)units;
    query->peak_tflops = (float)(device->peak_tflops[dtype] * (units / device->compute_units));
    query->dram_gbps = (float)device->dram_gbps;
    query->l2_bytes = (float)device->l2_bytes;
    query->clock_max_mhz = (float)device->clock_max_mhz;
    query->empty_kernel_us = known((float)device->empty_kernel_us, ${empty_kernel_us});
    query->power_limit_w = (float)device->power_limit_w;
    query->idle_power_w = (float)device->idle_power_w;
    query->l2_gbps = known((float)device->l2_gbps, ${l2_over_dram} * device->dram_gbps);
    return GEMMCAST_OK;
}

static int is_flag(float value)
{
    return value == 0.0f || value == 1.0f;
}

static int are_knobs(const gemmcast_query *query)
{
    const float positive[] = {query->tile_m, query->tile_n, query->tile_k, query->split_k};
    const float others[] = {query->warp_m, query->warp_n, query->warp_k, query->stages, query->swizzle,
        query->cluster_m, query->cluster_n, query->threads, query->algorithm};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; ++i)
        if (!is_finite(positive[i], 1.0f))
            return 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; ++i)
        if (!is_finite(others[i], 0.0f))
            return 0;
    return 1;
}

static int is_device(const gemmcast_query *query)
{
    const float positive[] = {query->active_units, query->peak_tflops, query->dram_gbps,
        query->empty_kernel_us, query->l2_gbps};
    const float others[] = {query->l2_bytes, query->clock_max_mhz, query->power_limit_w,
        query->idle_power_w};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; ++i)
        if (!is_finite(positive[i], 1e-30f))
            return 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; ++i)
        if (!is_finite(others[i], 0.0f))
            return 0;
    return 1;
}

int gemmcast_check(const gemmcast_query *query)
{
    if (!query)
        return GEMMCAST_NO_ARGUMENT;
    const float sizes[] = {query->m, query->n, query->k, query->batch};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i)
        if (!is_whole(sizes[i], 1, GEMMCAST_MAX_DIM))
            return GEMMCAST_BAD_SIZE;
    if (!is_whole(query->dtype, 0, ${dtype_count} - 1))
        return GEMMCAST_BAD_DTYPE;
    const int dtype = (int)query->dtype;
    if (query->in_bytes != IN_BYTES[dtype] || query->out_bytes != OUT_BYTES[dtype])
        return GEMMCAST_BAD_DTYPE;
    if (!is_whole(query->family, 0, ${family_count} - 1))
        return GEMMCAST_BAD_FAMILY;
    if (!is_flag(query->trans_a) || !is_flag(query->trans_b) || !is_flag(query->beta)
        || !is_flag(query->warm))
        return GEMMCAST_BAD_FLAG;
    if (!are_knobs(query))
        return GEMMCAST_BAD_KNOB;
    return is_device(query) ? GEMMCAST_OK : GEMMCAST_BAD_DEVICE;
}

static void answer_one(const gemmcast_query *query, gemmcast_answer *answer)
{
    float question[GEMMCAST_FIELDS];
    struct outputs out;
    memcpy(question, query, sizeof question);
    evaluate(question, &out);
${answers}
    answer->extrapolating = out.extrapolating[0];
}

int gemmcast_predict(const gemmcast_query *query, gemmcast_answer *answer)
{
    return gemmcast_predict_many(query, 1, answer);
}

int gemmcast_predict_many(const gemmcast_query *queries, size_t count, gemmcast_answer *answers)
{
    if (count && (!queries || !answers))
        return GEMMCAST_NO_ARGUMENT;
    for (size_t i = 0; i < count; ++i) {
        const int status = gemmcast_check(&queries[i]);
        if (status != GEMMCAST_OK)
            return status;
    }
    for (size_t i = 0; i < count; ++i)
        answer_one(&queries[i], &answers[i]);
    return GEMMCAST_OK;
}

const char *gemmcast_status_text(int status)
{
    static const char *const texts[] = {
        "ok",
        "a pointer is NULL",
        "m, n, k or batch is no whole number from 1 to 2^24",
        "unknown dtype, or in_bytes and out_bytes of another one",
        "unknown kernel family",
        "trans_a, trans_b, beta or warm is neither 0 nor 1",
        "a knob is negative, infinite or NaN, or a tile or split_k is 0",
        "a number of the device is negative, infinite, NaN or missing",
        "the device was not measured at this dtype",
    };
    if (status < 0 || (size_t)status >= sizeof texts / sizeof *texts)
        return "unknown status";
    return texts[status];
}
