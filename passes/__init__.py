"""Passes: graph to graph, then graph to program. One pass a file; none reads the environment."""
