"""Mutants that nobody chose: `make mutate`. cosmic-ray changes a sample of places in the core, one at a time, and for
each change the fast tests that run the changed line must fail."""
