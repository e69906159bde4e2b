// What convolutions and linear maps need besides the matrix product.

// every row of out [.., cols] = bias
KERNEL(fill_rows, int n, const T *bias, T *out, int cols) {
    EACH(i, n) { out[i] = bias[i % cols]; }
}

// out [.., cols] += bias
KERNEL(add_rows, int n, const T *bias, T *out, int cols) {
    EACH(i, n) { put(out + i, wide(out[i]) + wide(bias[i % cols])); }
}

// where tap `tap` of pixel y of the result lies in an image of n pixels, or −1: see `Walk` in direct.rs
DEVICE int source(int y, int tap, int n, int mul, int div, int pad) {
    const int at = mul * y + tap - pad;
    return at >= 0 && at % div == 0 && at / div < n ? at / div : -1;
}

// out [pixels, tap, c] = what each tap sees of x [B, h, w, c], for pixels from `first` on of a result [B, oh, ow]
KERNEL(im2col, int n, const T *x, T *out, int first, int h, int w, int c, int oh, int ow, int kh, int kw, int mul, int div,
       int pad_y, int pad_x) {
    EACH(i, n) {
        const int ch = i % c, tap = i / c % (kh * kw), pixel = first + i / c / (kh * kw);
        const int b = pixel / ow / oh;
        const int y = source(pixel / ow % oh, tap / kw, h, mul, div, pad_y);
        const int xx = source(pixel % ow, tap % kw, w, mul, div, pad_x);
        if (y < 0 || xx < 0)
            put(out + i, 0.0f);
        else
            out[i] = x[(((size_t)b * h + y) * w + xx) * c + ch];
    }
}
