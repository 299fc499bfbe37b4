"""Public test helpers; importing this package loads none of them."""
