"""A sampler's chain against a log-density that Pullback keeps, through UM-Bridge: emcee's ensemble, and Langevin steps by gradients.

    python docs/examples/sampler.py http://127.0.0.1:8000

Needs `pip install umbridge emcee`. Both chains draw from `banana_log_density`, whose means are 0 and whose variances are 1 and
1 + 2·curvature², and print what they found.
"""

from __future__ import annotations

import sys

import emcee
import numpy as np
from umbridge import HTTPModel
from umbridge.emcee import UmbridgeLogProb

CONFIG = {"curvature": 0.5}
VARIANCES = np.array([1.0, 1.0 + 2 * CONFIG["curvature"] ** 2])


def ensemble(url: str, steps: int = 90, walkers: int = 10) -> np.ndarray:
    """Draws of emcee's affine-invariant ensemble, which needs values alone; the first third is left out."""
    log_density = UmbridgeLogProb(url, "banana_log_density", CONFIG)
    random = np.random.default_rng(0)
    np.random.seed(0)  # emcee draws from NumPy's global state
    sampler = emcee.EnsembleSampler(walkers, log_density.ndim, lambda x: float(log_density(x)[0]))
    sampler.run_mcmc(random.standard_normal((walkers, log_density.ndim)), steps)
    return sampler.get_chain(discard=steps // 3, flat=True)


def langevin(url: str, steps: int = 600, size: float = 0.9) -> np.ndarray:
    """Draws of the Metropolis-adjusted Langevin algorithm (Roberts and Tweedie, 1996), which needs gradients."""
    model = HTTPModel(url, "banana_log_density")
    random = np.random.default_rng(1)

    def look(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = [x.tolist()]
        return model(point, CONFIG)[0][0], np.array(model.gradient(0, 0, point, [1.0], CONFIG))

    def towards(x: np.ndarray, y: np.ndarray, gradient: np.ndarray) -> float:
        return -float(((y - x - size**2 / 2 * gradient) ** 2).sum()) / (2 * size**2)

    x = np.zeros(2)
    value, gradient = look(x)
    draws = []
    for _ in range(steps):
        y = x + size**2 / 2 * gradient + size * random.standard_normal(2)
        proposed, ascent = look(y)
        if np.log(random.random()) < proposed - value + towards(y, x, ascent) - towards(x, y, gradient):
            x, value, gradient = y, proposed, ascent
        draws.append(x)
    return np.array(draws)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    for name, draws in (("emcee", ensemble(url)), ("Langevin", langevin(url))):
        print(
            f"{name}: {len(draws)} draws, means {draws.mean(0).round(2)}, variances {draws.var(0).round(2)}, should be {VARIANCES}"
        )
        assert np.abs(draws.mean(0)).max() < 0.35
        assert np.abs(draws.var(0) / VARIANCES - 1).max() < 0.5


if __name__ == "__main__":
    main()
