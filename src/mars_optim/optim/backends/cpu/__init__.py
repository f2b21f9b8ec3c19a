"""Our C kernels for the CPU."""
