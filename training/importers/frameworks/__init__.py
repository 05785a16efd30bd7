"""Networks of other frameworks, taken in module by module: each framework's own file says what it computes."""
