// Never ends.
extern "C" __global__ void gemm(const float* a, const float* b, float* c, int m, int n, int k, float alpha, float beta) {
    volatile int go_on = 1;
    while (go_on) {}
}
