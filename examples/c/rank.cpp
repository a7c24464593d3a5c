// Which tile of a CUTLASS kernel is fastest? A model exported as C, called from C++.
//
//     python -m registry export shipped gemmcast_model.c --format c
//     cc -std=c99 -O3 -fno-trapping-math -c gemmcast_model.c
//     c++ -std=c++17 -I. examples/c/rank.cpp gemmcast_model.o -o rank && ./rank
#include "gemmcast_model.h"

#include <cstdio>
#include <vector>

int main()
{
    std::vector<gemmcast_query> queries;
    for (float tile_m : {64.0f, 128.0f, 256.0f}) {
        for (float tile_n : {64.0f, 128.0f, 256.0f}) {
            gemmcast_query query = {};
            query.m = 4096;
            query.n = 4096;
            query.k = 4096;
            query.dtype = GEMMCAST_BF16;
            query.family = GEMMCAST_CUTLASS;
            query.algorithm = GEMMCAST_COOP;
            query.tile_m = tile_m;
            query.tile_n = tile_n;
            query.tile_k = 64;
            query.stages = 4;
            query.cluster_m = query.cluster_n = 1;
            gemmcast_set_layout(&query, GEMMCAST_NT);
            const int status = gemmcast_complete(&query, &gemmcast_devices[0]);
            if (status != GEMMCAST_OK) {
                std::fprintf(stderr, "error: %s\n", gemmcast_status_text(status));
                return 2;
            }
            queries.push_back(query);
        }
    }
    std::vector<gemmcast_answer> answers(queries.size());
    const int status = gemmcast_predict_many(queries.data(), queries.size(), answers.data());
    if (status != GEMMCAST_OK) {
        std::fprintf(stderr, "error: %s\n", gemmcast_status_text(status));
        return 2;
    }
    std::size_t best = 0;
    for (std::size_t i = 0; i < answers.size(); ++i) {
        if (answers[i].value.runtime_us < answers[best].value.runtime_us)
            best = i;
        std::printf("%gx%g: %.6g us\n", queries[i].tile_m, queries[i].tile_n, answers[i].value.runtime_us);
    }
    std::printf("best: %gx%g\n", queries[best].tile_m, queries[best].tile_n);
    return 0;
}
