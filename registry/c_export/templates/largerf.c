/* The larger of two; NaN where one is NaN, as ONNX has it. */
static float largerf(float a, float b)
{
    return a > b || a != a ? a : b;
}
