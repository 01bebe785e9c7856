"""A Triton backend for CPUs that compiles nothing: its kernels run in Triton's interpreter."""
