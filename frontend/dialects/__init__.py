"""Namespaces in which programs written for other systems run: names and conventions only."""
