"""A laboratory that does to a cluster what may befall it, and judges by what everybody wrote down. See README.md."""
