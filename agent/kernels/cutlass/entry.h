// One row of the library's table: a kernel behind four plain functions. Needs no CUTLASS.
#pragma once
#include <cuda_runtime.h>
#include <stddef.h>

struct Problem {
    int m, n, k;
    const void* a;
    long long lda;
    const void* b;
    long long ldb;
    void* c;
    long long ldc;
    float alpha, beta;
    int split_k;
};

struct Facts {
    int threads, smem_bytes, regs, spill_bytes, blocks_per_sm;
};

struct Entry {
    const char* json;
    int (*run)(const Problem&, void* workspace, size_t workspace_bytes, cudaStream_t);
    int (*can_implement)(const Problem&);
    size_t (*workspace_bytes)(const Problem&);
    int (*facts)(Facts*);
};

struct Part {
    const Entry* entries;
    int count;
};
