/* The larger of two; NaN where one is NaN, as ONNX has it. */
static double larger(double a, double b)
{
    return a > b || a != a ? a : b;
}
