"""Running programs: the thread team, memory, caches and the executable."""
