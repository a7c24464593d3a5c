// Never ends: every look at memory finds what the look before has found.
extern "C" __global__ void gemm(const float* a, const float* b, float* c, int m, int n, int k, float alpha, float beta) {
    const volatile float* seen = a;
    while (seen[0] == seen[0]) {}
    c[0] = 0.0f;
}
