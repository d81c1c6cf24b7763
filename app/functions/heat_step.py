def heat_step(u: float64["n"], diffusivity: float = 1.0, dt: float = 0.1, dx: float = 1.0, steps: int = 1):
    """The heat equation u_t = diffusivity · u_xx on a ring, explicit Euler: `steps` steps of length dt on a grid of spacing dx.

    Stable for diffusivity · dt / dx² up to 1/2.
    """
    rate = diffusivity * dt / dx**2
    for _ in range(steps):
        u = u + rate * (roll(u, 1, 0) - 2 * u + roll(u, -1, 0))
    return u
