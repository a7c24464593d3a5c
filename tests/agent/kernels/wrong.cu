// Forgets the last step of k.
extern "C" __global__ void gemm(const float* a, const float* b, float* c, int m, int n, int k, float alpha, float beta) {
    const int row = blockIdx.y * blockDim.y + threadIdx.y, col = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= m || col >= n) return;
    float sum = 0.0f;
    for (int p = 0; p < k - 1; ++p) sum += a[row * k + p] * b[p * n + col];
    c[row * n + col] = alpha * sum;
}
