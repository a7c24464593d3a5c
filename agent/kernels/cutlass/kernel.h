// A CUTLASS 2.x device::Gemm as an Entry. `run` neither allocates nor waits, so it can be captured into a CUDA graph.
#pragma once
#include "cutlass/epilogue/thread/linear_combination.h"
#include "cutlass/gemm/device/gemm.h"
#include "entry.h"

template <class Gemm>
typename Gemm::Arguments arguments(const Problem& p) {
    using A = typename Gemm::ElementA;
    using B = typename Gemm::ElementB;
    using C = typename Gemm::ElementC;
    return {{p.m, p.n, p.k},
            {static_cast<const A*>(p.a), typename Gemm::LayoutA(static_cast<int>(p.lda))},
            {static_cast<const B*>(p.b), typename Gemm::LayoutB(static_cast<int>(p.ldb))},
            {static_cast<const C*>(p.c), typename Gemm::LayoutC(static_cast<int>(p.ldc))},
            {static_cast<C*>(p.c), typename Gemm::LayoutC(static_cast<int>(p.ldc))},
            {p.alpha, p.beta},
            p.split_k};
}

template <class Gemm>
int can_implement(const Problem& p) {
    const long long most = 0x7fffffff;
    if (p.m < 1 || p.n < 1 || p.k < 1 || p.split_k < 1 || p.lda > most || p.ldb > most || p.ldc > most)
        return static_cast<int>(cutlass::Status::kErrorInvalidProblem);
    // CUTLASS would give the last slices nothing to do, and their prologue reads before it looks
    const int iterations = (p.k + Gemm::ThreadblockShape::kK - 1) / Gemm::ThreadblockShape::kK;
    const int of_a_slice = (iterations + p.split_k - 1) / p.split_k;
    if (static_cast<long long>(of_a_slice) * (p.split_k - 1) >= iterations)
        return static_cast<int>(cutlass::Status::kErrorInvalidProblem);
    return static_cast<int>(Gemm::can_implement(arguments<Gemm>(p)));
}

template <class Gemm>
size_t workspace_bytes(const Problem& p) {
    return Gemm::get_workspace_size(arguments<Gemm>(p));
}

template <class Gemm>
int run(const Problem& p, void* workspace, size_t given, cudaStream_t stream) {
    if (given < workspace_bytes<Gemm>(p)) return static_cast<int>(cutlass::Status::kErrorWorkspaceNull);
    Gemm gemm;
    return static_cast<int>(gemm(arguments<Gemm>(p), workspace, stream));
}

template <class Gemm>
int facts(Facts* found) {
    using Kernel = typename Gemm::GemmKernel;
    const int dynamic = static_cast<int>(sizeof(typename Kernel::SharedStorage));
    return static_facts(found, reinterpret_cast<const void*>(cutlass::Kernel<Kernel>), Kernel::kThreadCount, dynamic);
}

template <class Gemm>
constexpr Entry entry(const char* json) {
    return {json, Gemm::kStages, run<Gemm>, can_implement<Gemm>, workspace_bytes<Gemm>, facts<Gemm>};
}
