/* What a GEMM costs on a GPU: a model of gemmcast as C.
 *
 * Written by `python -m registry export --format c` from the ONNX file with SHA-256
 * ${sha256}
 * of ${created_at}. Do not edit; export it again.
 *
 *     gemmcast_query query = {0};
 *     gemmcast_answer answer;
 *     query.m = 4096; query.n = 4096; query.k = 512;
 *     query.dtype = GEMMCAST_BF16;
 *     query.family = GEMMCAST_CUBLAS;
 *     gemmcast_set_layout(&query, GEMMCAST_NT);
 *     if (gemmcast_complete(&query, &gemmcast_devices[0]) == GEMMCAST_OK
 *         && gemmcast_predict(&query, &answer) == GEMMCAST_OK)
 *         printf("%g us\n", answer.value.runtime_us);
 *
 * Compile ${source} with `cc -std=c99 -O3 -fno-trapping-math -c`, link with -lm; -march=native makes it
 * faster on the machine that builds it. -ffast-math is refused: a value that the model does not know
 * is NaN. Nothing is allocated, nothing is shared: any number of threads may call at once, each with
 * ${stack_kib} KiB of stack.
 */
#ifndef GEMMCAST_MODEL_H
#define GEMMCAST_MODEL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The contract, docs/onnx.md of gemmcast: the fields of a query and what they mean. */
#define GEMMCAST_CONTRACT ${contract}
#define GEMMCAST_FIELDS ${field_count}
/* The start of the file's SHA-256. */
#define GEMMCAST_MODEL_VERSION ${version}
#define GEMMCAST_DEVICES ${device_count}
/* The largest size. */
#define GEMMCAST_MAX_DIM ${max_dim}

${enums}

/* Letters for A and B: n is row-major as written, t is stored transposed. */
enum gemmcast_layout {
    GEMMCAST_NN = 0,
    GEMMCAST_NT = 1,
    GEMMCAST_TN = 2,
    GEMMCAST_TT = 3
};

enum gemmcast_status {
    GEMMCAST_OK = 0,
    /* A pointer is NULL. */
    GEMMCAST_NO_ARGUMENT = 1,
    /* m, n, k or batch is no whole number from 1 to GEMMCAST_MAX_DIM. */
    GEMMCAST_BAD_SIZE = 2,
    /* Unknown code, or in_bytes and out_bytes of another dtype. */
    GEMMCAST_BAD_DTYPE = 3,
    /* Unknown code. */
    GEMMCAST_BAD_FAMILY = 4,
    /* trans_a, trans_b, beta or warm is neither 0 nor 1. */
    GEMMCAST_BAD_FLAG = 5,
    /* A knob is negative, infinite or NaN; or a tile or split_k is 0. */
    GEMMCAST_BAD_KNOB = 6,
    /* A number of the device is negative, infinite or NaN; or one is 0 that must be known. */
    GEMMCAST_BAD_DEVICE = 7,
    /* The device was not measured at this dtype. */
    GEMMCAST_NO_PEAK = 8
};

/* One query: GEMM, configuration and device, as the model reads them. */
typedef struct gemmcast_query {
${fields}
} gemmcast_query;

/* One number for each value that a model may predict; NaN where it does not, or not for this query. */
typedef struct gemmcast_values {
    /* Time of one launch in a short burst. [us] */
    float runtime_us;
    /* Floating-point operations over runtime_us. [TFLOP/s] */
    float tflops;
    /* Time of one launch in an endless row of launches, where a power cap acts. [us] */
    float sustained_runtime_us;
    /* Mean board power in that row, idle power included. [W] */
    float power_w;
    /* Energy of one launch: power_w x sustained_runtime_us. [mJ] */
    float energy_mj;
} gemmcast_values;

typedef struct gemmcast_answer {
    gemmcast_values value;
    /* Nine of ten measurements lie between low and high. */
    gemmcast_values low;
    gemmcast_values high;
    /* 1 outside the training range: then the values are a guess. */
    int extrapolating;
} gemmcast_answer;

/* What is known of a device; 0 is unknown. */
typedef struct gemmcast_device {
    const char *name;
    int is_cpu;
    double compute_units;
    /* By dtype; 0 where it was not measured. [TFLOP/s] */
    double peak_tflops[${dtype_count}];
    double dram_gbps;
    double l2_bytes;
    double clock_max_mhz;
    double empty_kernel_us;
    double power_limit_w;
    double idle_power_w;
    double l2_gbps;
} gemmcast_device;

/* The devices of the training rows. */
extern const gemmcast_device gemmcast_devices[GEMMCAST_DEVICES];

void gemmcast_set_layout(gemmcast_query *query, enum gemmcast_layout layout);

/* Fill in what is still 0: bytes by dtype, unknown tiles, split_k, threads; and all of the device.
 * Set sizes, dtype, family and knobs before. Returns a gemmcast_status. */
int gemmcast_complete(gemmcast_query *query, const gemmcast_device *device);

/* What is wrong with a query; GEMMCAST_OK if nothing. */
int gemmcast_check(const gemmcast_query *query);

/* The answer to one query. Returns a gemmcast_status; the answer is written only if it is OK. */
int gemmcast_predict(const gemmcast_query *query, gemmcast_answer *answer);

/* The answers to many. Returns the first gemmcast_status that is not OK; then no answer is written. */
int gemmcast_predict_many(const gemmcast_query *queries, size_t count, gemmcast_answer *answers);

/* A status in words. */
const char *gemmcast_status_text(int status);

#ifdef __cplusplus
}
#endif

#endif
