"""The functions of the array namespace, written with `apply` and so the same eager and traced."""
