// The tiled kernel, grown up: every thread computes 8 x 8 elements of C in registers, memory is read four floats at a time, and the next
// tiles are fetched while the present ones are multiplied. fp32, row-major (nn), any m, n and k, batches along blockIdx.z.
//
// A thread's 8 x 8 elements are four squares of 4 x 4, half a tile apart, so that a warp's float4 reads of shared memory lie side by side.
// A float4 needs rows whose length is a multiple of 4 and a pointer on 16 bytes; where that is not so, four guarded reads take its place.

constexpr int THREADS_X = TILE_N / 8, THREADS = THREADS_X * (TILE_M / 8);
constexpr int LOADS_A = TILE_M * TILE_K / 4 / THREADS, LOADS_B = TILE_K * TILE_N / 4 / THREADS;
// float4s that one thread fetches of a tile
constexpr int BLOCKS = THREADS == 256 ? 2 : 384 / THREADS;
// that share a multiprocessor: it holds NVCC to 128 or 168 registers a thread
constexpr int PAD = 4;
// tile_a is stored transposed: without it, the threads of a warp would write to few banks
static_assert(LOADS_A * 4 * THREADS == TILE_M * TILE_K && LOADS_B * 4 * THREADS == TILE_K * TILE_N, "tiles must divide evenly among the threads");

__device__ __forceinline__ bool aligned(const void* pointer) { return reinterpret_cast<size_t>(pointer) % sizeof(float4) == 0; }

// four neighbours in a row, of which `inside` lie within the matrix; 0 for the others
__device__ __forceinline__ float4 fetch(const float* __restrict__ at, bool whole, int inside) {
    float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (inside <= 0) return four;
    if (whole) return *reinterpret_cast<const float4*>(at);
    four.x = at[0];
    if (inside > 1) four.y = at[1];
    if (inside > 2) four.z = at[2];
    if (inside > 3) four.w = at[3];
    return four;
}

__device__ __forceinline__ float updated(float sum, const float* at, float alpha, float beta) {
    return alpha * sum + (beta == 0.0f ? 0.0f : beta * *at);  // with beta = 0, C may hold NaN
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k, float alpha, float beta) {
    __shared__ __align__(16) float tile_a[2][TILE_K][TILE_M + PAD];
    __shared__ __align__(16) float tile_b[2][TILE_K][TILE_N];
    a += (size_t)blockIdx.z * m * k;
    b += (size_t)blockIdx.z * k * n;
    c += (size_t)blockIdx.z * m * n;
    const bool whole_a = k % 4 == 0 && aligned(a), whole_b = n % 4 == 0 && aligned(b), whole_c = n % 4 == 0 && aligned(c);
    const int thread = threadIdx.x, row0 = blockIdx.y * TILE_M, col0 = blockIdx.x * TILE_N;
    const int own_row = thread / THREADS_X * 4, own_col = thread % THREADS_X * 4;

    float4 next_a[LOADS_A], next_b[LOADS_B];
    float sum[8][8] = {};

    // `left` of k, from where a and b point; neighbours in a warp fetch neighbours in memory
    auto fetch_tiles = [&](int left) {
#pragma unroll
        for (int i = 0; i < LOADS_A; ++i) {
            const int at = i * THREADS + thread, row = at / (TILE_K / 4), col = at % (TILE_K / 4) * 4;
            next_a[i] = fetch(a + (size_t)min(row0 + row, m - 1) * k + col, whole_a, left - col);  // a row beyond m is never stored
        }
#pragma unroll
        for (int i = 0; i < LOADS_B; ++i) {
            const int at = i * THREADS + thread, row = at / (TILE_N / 4), col = at % (TILE_N / 4) * 4;
            // row < TILE_K: this product fits an int
            next_b[i] = fetch(b + row * n + col0 + col, whole_b, row < left ? n - col0 - col : 0);
        }
    };
    auto store_tiles = [&](int half) {
#pragma unroll
        for (int i = 0; i < LOADS_A; ++i) {
            const int at = i * THREADS + thread, row = at / (TILE_K / 4), col = at % (TILE_K / 4) * 4;
            tile_a[half][col][row] = next_a[i].x;
            tile_a[half][col + 1][row] = next_a[i].y;
            tile_a[half][col + 2][row] = next_a[i].z;
            tile_a[half][col + 3][row] = next_a[i].w;
        }
#pragma unroll
        for (int i = 0; i < LOADS_B; ++i) {
            const int at = i * THREADS + thread, row = at / (TILE_N / 4), col = at % (TILE_N / 4) * 4;
            *reinterpret_cast<float4*>(&tile_b[half][row][col]) = next_b[i];
        }
    };

    fetch_tiles(k);
    store_tiles(0);
    __syncthreads();
    int half = 0;
#pragma unroll 1
    for (int left = k; left > 0; left -= TILE_K) {
        const bool more = left > TILE_K;
        a += TILE_K;
        b += (size_t)TILE_K * n;
        if (more) fetch_tiles(left - TILE_K);
#pragma unroll
        for (int i = 0; i < TILE_K; ++i) {
            const float4 a0 = *reinterpret_cast<const float4*>(&tile_a[half][i][own_row]);
            const float4 a1 = *reinterpret_cast<const float4*>(&tile_a[half][i][own_row + TILE_M / 2]);
            const float4 b0 = *reinterpret_cast<const float4*>(&tile_b[half][i][own_col]);
            const float4 b1 = *reinterpret_cast<const float4*>(&tile_b[half][i][own_col + TILE_N / 2]);
            const float of_a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w}, of_b[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
#pragma unroll
            for (int y = 0; y < 8; ++y)
#pragma unroll
                for (int x = 0; x < 8; ++x) sum[y][x] += of_a[y] * of_b[x];
        }
        if (more) store_tiles(half ^ 1);  // the other half: nobody reads it now
        __syncthreads();
        half ^= 1;
    }

#pragma unroll
    for (int y = 0; y < 8; ++y) {
        const int row = row0 + own_row + y % 4 + y / 4 * (TILE_M / 2);
#pragma unroll
        for (int x = 0; x < 8; x += 4) {
            const int col = col0 + own_col + x / 4 * (TILE_N / 2);
            float* at = c + (size_t)row * n + col;
            if (row >= m || col >= n) continue;
            if (whole_c) {
                const float4 before = beta == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *reinterpret_cast<const float4*>(at);
                *reinterpret_cast<float4*>(at) = make_float4(updated(sum[y][x], &before.x, alpha, beta), updated(sum[y][x + 1], &before.y, alpha, beta),
                                                             updated(sum[y][x + 2], &before.z, alpha, beta), updated(sum[y][x + 3], &before.w, alpha, beta));
                continue;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (col + i < n) at[i] = updated(sum[y][x + i], at + i, alpha, beta);
        }
    }
}
