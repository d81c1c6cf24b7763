def mlp_loss(
    x: float64["batch", "inputs"],
    target: float64["batch", "outputs"],
    w1: float64["inputs", "hidden"],
    b1: float64["hidden"],
    w2: float64["hidden", "outputs"],
    b2: float64["outputs"],
):
    """Mean squared error of a network with one hidden layer of tanh units."""
    hidden = tanh(x @ w1 + b1)
    prediction = hidden @ w2 + b2
    return mean((prediction - target) ** 2)
