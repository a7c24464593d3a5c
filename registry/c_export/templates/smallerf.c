/* The smaller of two; NaN where one is NaN, as ONNX has it. */
static float smallerf(float a, float b)
{
    return a < b || a != a ? a : b;
}
