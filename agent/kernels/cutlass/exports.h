// The library's C interface, included once, after `parts`. Statuses are cutlass::Status; those of facts and occupancy are cudaError_t.
#include <stdio.h>

#define EXPORT extern "C" __attribute__((visibility("default")))
#define PROBLEM \
    int m, int n, int k, const void *a, long long lda, const void *b, long long ldb, void *c, long long ldc, float alpha, float beta, int split_k

static const Entry* find(int index) {
    for (const Part& part : parts) {
        if (index >= 0 && index < part.count) return part.entries + index;
        index -= part.count;
    }
    return nullptr;
}

static const int no_such_kernel = -1;

EXPORT int gemmcast_count() {
    int count = 0;
    for (const Part& part : parts) count += part.count;
    return count;
}

EXPORT const char* gemmcast_describe(int index) {  // valid until the thread asks again
    static thread_local char text[1024];
    const Entry* entry = find(index);
    if (!entry) return nullptr;
    snprintf(text, sizeof text, entry->json, entry->stages);
    return text;
}

EXPORT int gemmcast_can_implement(int index, PROBLEM) {
    const Entry* entry = find(index);
    return entry ? entry->can_implement({m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, split_k}) : no_such_kernel;
}

EXPORT size_t gemmcast_workspace_bytes(int index, int m, int n, int k, int split_k) {
    const Entry* entry = find(index);
    return entry ? entry->workspace_bytes({m, n, k, nullptr, k, nullptr, n, nullptr, n, 1.0f, 0.0f, split_k}) : 0;
}

EXPORT int gemmcast_run(int index, PROBLEM, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    const Entry* entry = find(index);
    return entry ? entry->run({m, n, k, a, lda, b, ldb, c, ldc, alpha, beta, split_k}, workspace, workspace_bytes, stream) : no_such_kernel;
}

EXPORT int gemmcast_facts(int index, int* found) {  // threads, smem_bytes, regs, spill_bytes, blocks_per_sm
    const Entry* entry = find(index);
    return entry ? entry->facts(reinterpret_cast<Facts*>(found)) : no_such_kernel;
}

EXPORT int gemmcast_occupancy(int index) {  // blocks on one SM; below 0: none could be asked
    Facts facts;
    const Entry* entry = find(index);
    return entry && !entry->facts(&facts) ? facts.blocks_per_sm : -1;
}
