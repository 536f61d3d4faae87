"""Shampoo written down for one matrix that is one block, with the roots taken from singular values, in NumPy."""

import numpy as np


class DenseShampoo:
    def __init__(self, betas, epsilon, exponent, averaged, nesterov):
        self.betas, self.epsilon, self.exponent = betas, epsilon, exponent
        self.averaged, self.nesterov = averaged, nesterov
        self.left = self.right = self.momentum = 0.0

    def step(self, weights, gradient, rate):
        """The weights after one update."""
        beta, beta2 = self.betas
        self.left = beta2 * self.left + (1 - beta2) * gradient @ gradient.T
        self.right = beta2 * self.right + (1 - beta2) * gradient.T @ gradient
        direction = self.root(self.left) @ gradient @ self.root(self.right)
        direction *= np.sqrt(direction.size) / np.linalg.norm(direction)
        weight = 1 - beta if self.averaged else 1.0
        self.momentum = beta * self.momentum + weight * direction
        update = beta * self.momentum + weight * direction if self.nesterov else self.momentum
        return weights - rate * update

    def root(self, matrix):
        u, s, _ = np.linalg.svd(matrix, hermitian=True)
        return u @ np.diag((s + self.epsilon * s.max()) ** (-1 / self.exponent)) @ u.T
