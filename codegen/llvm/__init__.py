"""The `llvm` target: kernels as LLVM text, written directly, compiled one object per kernel."""
