// All kernels, for one type T of images.
#include "device.cuh"

#include "attention.cuh"
#include "conv.cuh"
#include "layer_norm.cuh"
#include "norm.cuh"
#include "small.cuh"
