"""Targets: each turns a kernel description of `einkorn.ir.loops` into something that runs."""
