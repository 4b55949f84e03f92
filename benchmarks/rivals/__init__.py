"""What `benchmarks/linear_solvers.py` measures: the systems, the clock, and one file per library."""
