// A CUTLASS 3.x GEMM of sm_90 (wgmma, TMA, warp-specialised) as an Entry. `run` neither allocates nor waits: tensor maps are made on the
// host and travel as kernel parameters, and stream-k clears its barriers with a memset on the same stream.
#pragma once
#include "cutlass/epilogue/collective/collective_builder.hpp"
#include "cutlass/gemm/collective/collective_builder.hpp"
#include "cutlass/gemm/device/gemm_universal_adapter.h"
#include "cutlass/gemm/kernel/gemm_universal.hpp"
#include "cutlass/gemm/kernel/tile_scheduler.hpp"
#include "entry.h"

template <class Element, class ElementC, class LayoutA, class LayoutB, int kAlignment, int kAlignmentC, class Tile, class Cluster, class Schedule,
          class EpilogueSchedule, class Scheduler, int kSwizzle>
struct HopperGemm {
    using RowMajor = cutlass::layout::RowMajor;
    using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
        cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster, cutlass::epilogue::collective::EpilogueTileAuto, float, float, ElementC,
        RowMajor, kAlignmentC, ElementC, RowMajor, kAlignmentC, EpilogueSchedule>::CollectiveOp;
    using Stages = cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>;
    using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
        cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA, kAlignment, Element, LayoutB, kAlignment, float, Tile, Cluster, Stages,
        Schedule>::CollectiveOp;
    using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue, Scheduler>;
    using Device = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
    using A = Element;
    using C = ElementC;
    static constexpr bool stream_k = !cute::is_void_v<Scheduler>;
    static constexpr int tile_k = cute::size<2>(Tile{}), alignment = kAlignment, alignment_c = kAlignmentC, swizzle = kSwizzle;
};

inline int sm_count() {  // asked once: a process measures on one kind of GPU; 0 without a GPU, by which stream-k would divide
    static const int count = cutlass::KernelHardwareInfo::query_device_multiprocessor_count();
    return count;
}

template <class Stride>
Stride stride(long long leading) {
    Stride made{};
    if constexpr (cute::is_static_v<cute::remove_cvref_t<decltype(cute::get<0>(made))>>)
        cute::get<1>(made) = leading;
    else
        cute::get<0>(made) = leading;
    return made;
}

template <class Gemm>
typename Gemm::Kernel::Arguments arguments(const Problem& p) {
    using Kernel = typename Gemm::Kernel;
    const auto c = stride<typename Kernel::StrideC>(p.ldc);
    typename Kernel::Arguments made{
        cutlass::gemm::GemmUniversalMode::kGemm,
        {p.m, p.n, p.k, 1},
        {static_cast<const typename Gemm::A*>(p.a), stride<typename Kernel::StrideA>(p.lda), static_cast<const typename Gemm::A*>(p.b),
         stride<typename Kernel::StrideB>(p.ldb)},
        {{}, static_cast<const typename Gemm::C*>(p.c), c, static_cast<typename Gemm::C*>(p.c), c}};
    made.epilogue.thread.alpha = p.alpha;
    made.epilogue.thread.beta = p.beta;
    made.hw_info.sm_count = sm_count();
    made.scheduler.max_swizzle_size = Gemm::swizzle;
    if constexpr (Gemm::stream_k) made.scheduler.splits = p.split_k;  // 1: CUTLASS chooses between whole tiles and stream-k
    return made;
}

template <class Gemm>
int can_implement(const Problem& p) {
    // more slices than steps of k, or than SMs, would quietly become fewer
    const int iterations = (p.k + Gemm::tile_k - 1) / Gemm::tile_k;
    const int most = !Gemm::stream_k ? 1 : sm_count() && sm_count() < iterations ? sm_count() : iterations;
    if (p.m < 1 || p.n < 1 || p.k < 1 || p.split_k < 1 || p.split_k > most) return static_cast<int>(cutlass::Status::kErrorInvalidProblem);
    for (const void* operand : {p.a, p.b, static_cast<const void*>(p.c)})
        if (reinterpret_cast<uintptr_t>(operand) % 16) return static_cast<int>(cutlass::Status::kErrorMisalignedOperand);
    if (p.lda % Gemm::alignment || p.ldb % Gemm::alignment || p.ldc % Gemm::alignment_c)
        return static_cast<int>(cutlass::Status::kErrorMisalignedOperand);
    // what is left for CUTLASS to refuse is an extent that TMA can't read
    return static_cast<int>(Gemm::Device::can_implement(arguments<Gemm>(p)) == cutlass::Status::kSuccess ? cutlass::Status::kSuccess
                                                                                                       : cutlass::Status::kErrorMisalignedOperand);
}

template <class Gemm>
size_t workspace_bytes(const Problem& p) {
    return sm_count() ? Gemm::Device::get_workspace_size(arguments<Gemm>(p)) : 0;
}

template <class Gemm>
int run(const Problem& p, void* workspace, size_t given, cudaStream_t stream) {
    if (!sm_count()) return static_cast<int>(cutlass::Status::kErrorInsufficientDriver);
    if (given < workspace_bytes<Gemm>(p)) return static_cast<int>(cutlass::Status::kErrorWorkspaceNull);
    typename Gemm::Device gemm;
    const cutlass::Status status = gemm.initialize(arguments<Gemm>(p), workspace, stream);
    return static_cast<int>(status == cutlass::Status::kSuccess ? gemm.run(stream) : status);
}

template <class Gemm>
int facts(Facts* found) {
    using Kernel = typename Gemm::Kernel;
    return static_facts(found, reinterpret_cast<const void*>(cutlass::device_kernel<Kernel>), Kernel::MaxThreadsPerBlock, Kernel::SharedStorageSize);
}

template <class Gemm>
constexpr Entry entry(const char* json) {
    return {json, Gemm::Mainloop::DispatchPolicy::Stages, run<Gemm>, can_implement<Gemm>, workspace_bytes<Gemm>, facts<Gemm>};
}
