/* 1 / (1 + e^-x), or e^x / (1 + e^x) for x below 0. expf would be computed one by one, this side by
 * side, if it is inlined: e^y = 2^n e^r with n whole and |r| <= ln 2 / 2, and e^r by the first terms of
 * its series. The error is 2e-7 of the value. */
static inline float sigmoidf(float x)
{
    const float y = fabsf(x) < 87.0f ? -fabsf(x) : -87.0f;
    const int n = (int)(y * 1.44269504f - 0.5f);
    /* ln 2 in two parts, so that n times the first one is exact */
    const float r = y - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    const float series = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666672e-1f + r * (4.16666679e-2f
        + r * (8.33333377e-3f + r * 1.38888892e-3f)))));
    union { unsigned bits; float value; } power;
    power.bits = (unsigned)(n + 127) << 23;
    const float e = power.value * series;
    return x != x ? x : (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
