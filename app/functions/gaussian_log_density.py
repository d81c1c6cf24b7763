def gaussian_log_density(x: float64["n"], mean: float64["n"], log_scale: float64["n"]):
    """Log-density at x of independent normal variables, with the logarithm of each standard deviation."""
    z = (x - mean) * exp(-log_scale)
    return -0.5 * sum(z**2) - sum(log_scale) - 0.5 * x.shape[0] * log(2 * pi)
