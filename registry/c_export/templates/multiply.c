/* y += x W. The rows of W come in fours, the last ones one by one; of each the columns from spans[0]
 * to before spans[1] are stored, the others are 0. Rows that are all times 0 are not read: most of the
 * flags of a query are 0. */
static void multiply(const float *x, int rows, const float *w, const int *spans, float *restrict y)
{
    int i = 0;
    for (; i + 4 <= rows; i += 4, spans += 2) {
        const int width = spans[1] - spans[0];
        const float *w1 = w + width, *w2 = w1 + width, *w3 = w2 + width;
        const float x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
        float *sums = y + spans[0];
        if (x0 != 0.0f || x1 != 0.0f || x2 != 0.0f || x3 != 0.0f)
            for (int j = 0; j < width; ++j)
                sums[j] += x0 * w[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j];
        w = w3 + width;
    }
    for (; i < rows; ++i, spans += 2) {
        const int width = spans[1] - spans[0];
        float *sums = y + spans[0];
        for (int j = 0; j < width; ++j)
            sums[j] += x[i] * w[j];
        w += width;
    }
}
