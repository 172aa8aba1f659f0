"""The graph IR and the data types that passes, codegen and runtime meet in. Imports NumPy only."""
