"""Functions of functions: gradients, Jacobians, products with them, and rules of one's own."""
