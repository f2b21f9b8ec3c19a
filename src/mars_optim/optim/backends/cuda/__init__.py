"""Our Triton kernels for CUDA."""
