// One row of the library's table: a kernel behind four plain functions; and how its static facts are read. Needs no CUTLASS.
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
    const char* json;  // a printf format that wants the stages
    int stages;
    int (*run)(const Problem&, void* workspace, size_t workspace_bytes, cudaStream_t);
    int (*can_implement)(const Problem&);
    size_t (*workspace_bytes)(const Problem&);
    int (*facts)(Facts*);
};

struct Part {
    const Entry* entries;
    int count;
};

inline int static_facts(Facts* found, const void* function, int threads, int dynamic) {
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, function);
    if (!error && dynamic >= (48 << 10)) error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, dynamic);
    int blocks = 0;
    if (!error) error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, threads, dynamic);
    if (error) {
        cudaGetLastError();
        return error;
    }
    found->threads = threads;
    found->smem_bytes = dynamic + static_cast<int>(attributes.sharedSizeBytes);
    found->regs = attributes.numRegs;
    found->spill_bytes = static_cast<int>(attributes.localSizeBytes);
    found->blocks_per_sm = blocks;
    return 0;
}
