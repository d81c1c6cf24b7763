def rosenbrock(x: float64["n"], a: float = 1.0, b: float = 100.0):
    """The Rosenbrock function: a curved valley whose minimum, 0, is at x = (1, …, 1) for a = 1.

    Rosenbrock, An automatic method for finding the greatest or least value of a function, 1960; n at least 2.
    """
    left, right = x[:-1], x[1:]
    return sum(b * (right - left**2) ** 2 + (a - left) ** 2)
