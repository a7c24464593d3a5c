/* What does this GEMM cost? A model exported as C, called from C.
 *
 *     python -m registry export shipped gemmcast_model.c --format c
 *     cc -std=c99 -O3 -fno-trapping-math -I. examples/c/predict.c gemmcast_model.c -lm -o predict
 *     ./predict 4096 4096 512
 */
#include "gemmcast_model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: predict M N K\n");
        return 2;
    }
    /* What is not set is 0, unknown; gemmcast_complete writes what the contract has for it. */
    gemmcast_query query = {0};
    query.m = strtof(argv[1], NULL);
    query.n = strtof(argv[2], NULL);
    query.k = strtof(argv[3], NULL);
    query.dtype = GEMMCAST_BF16;
    query.family = GEMMCAST_CUBLAS;
    gemmcast_set_layout(&query, GEMMCAST_NT);

    for (int i = 0; i < GEMMCAST_DEVICES; ++i) {
        const gemmcast_device *device = &gemmcast_devices[i];
        gemmcast_query here = query;
        gemmcast_answer answer;
        int status = gemmcast_complete(&here, device);
        if (status == GEMMCAST_OK)
            status = gemmcast_predict(&here, &answer);
        if (status != GEMMCAST_OK) {
            fprintf(stderr, "error: %s\n", gemmcast_status_text(status));
            return 2;
        }
        printf("%s: %.6g us (%.6g to %.6g), %.6g mJ%s\n", device->name, answer.value.runtime_us,
            answer.low.runtime_us, answer.high.runtime_us, answer.value.energy_mj,
            answer.extrapolating ? ", outside the training range" : "");
    }
    return 0;
}
