def banana_log_density(x: float64[2], curvature: float = 1.0):
    """Log-density of a bent normal distribution in the plane, both means 0: x₀ is standard normal, and x₁ normal around curvature · (x₀² - 1).

    Haario, Saksman and Tamminen, Adaptive proposal distribution for random walk Metropolis algorithm, 1999.
    """
    offset = x[1] - curvature * (x[0] ** 2 - 1)
    return -0.5 * (x[0] ** 2 + offset**2) - log(2 * pi)
