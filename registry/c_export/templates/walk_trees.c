/* The sum of the leaves that x reaches, one of each tree. A leaf has no feature, -1. */
static float walk_trees(const float *x, const int *features, const float *values, const int *left,
    const int *right, const int *roots, int trees)
{
    double sum = 0.0;
    for (int i = 0; i < trees; ++i) {
        int node = roots[i];
        while (features[node] >= 0)
            node = x[features[node]] <= values[node] ? left[node] : right[node];
        sum += values[node];
    }
    return (float)sum;
}
