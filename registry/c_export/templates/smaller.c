/* The smaller of two; NaN where one is NaN, as ONNX has it. */
static double smaller(double a, double b)
{
    return a < b || a != a ? a : b;
}
