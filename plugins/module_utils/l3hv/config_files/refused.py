"""The reason to stop the convergence of a set."""

from __future__ import annotations


class Refused(Exception):
    """A refusal: a sentence for the operator, and the output of the program that refused."""

    def __init__(self, sentence: str, output: str = "") -> None:
        super().__init__(sentence)
        self.output = output
