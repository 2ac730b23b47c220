"""Options: what a value may be, said once as a type, and the one check of it. Standard library only.

The annotation of a config field, or of an argument of a member of an axis, says all: `k: PositiveInt = 50`. Choices are
a `Literal`, several ints a `tuple[PositiveInt, ...]`, and `X | None` may be left out.
"""

import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal


class InputError(ValueError):
    """Bad input by the user: the message names what was expected, what was received and the way out.

    The command line prints it as one line and exits with code 2.
    """


@dataclass(frozen=True)
class Range:
    """The numbers that are allowed: at least `minimum`, more than `above`, at most `maximum`."""

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None

    def refusal(self, number: Any) -> str | None:
        """What is expected of a number that is not allowed, or None."""
        if isinstance(number, float) and not math.isfinite(number):
            return "a finite number"
        if self.minimum is not None and number < self.minimum:
            return f"at least {self.minimum}"
        if self.above is not None and number <= self.above:
            return f"more than {self.above}"
        if self.maximum is not None and number > self.maximum:
            return f"at most {self.maximum}"
        return None


PositiveInt = Annotated[int, Range(minimum=1)]
NonNegativeInt = Annotated[int, Range(minimum=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(minimum=0)]
Probability = Annotated[float, Range(minimum=0, maximum=1)]
Sizes = tuple[PositiveInt, ...]
Activation = Literal["relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "linear"]


@dataclass(frozen=True)
class Option:
    """One option: its name, the values that it takes, its default and its help."""

    name: str
    kind: type  # int, float, bool or str: of each value
    default: Any
    help: str
    choices: tuple[str, ...] | None = None
    range: Range = Range()
    several: bool = False
    optional: bool = False

    @classmethod
    def of(cls, name: str, annotation: Any, default: Any, help: str) -> "Option":
        """Reads an annotation.

        Example:

        >>> from keras_vae.options import Option, PositiveInt
        >>> Option.of("k", PositiveInt, 50, "Draws.").checked(5)
        5
        """
        several, optional, kind = False, False, annotation
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
            kind, optional = typing.get_args(annotation)[0], type(None) in typing.get_args(annotation)
        if typing.get_origin(kind) is tuple:
            several, kind = True, typing.get_args(kind)[0]
        limits = Range()
        if typing.get_origin(kind) is Annotated:
            kind, limits, *_ = typing.get_args(kind)
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
        return cls(name, str if choices else kind, default, help, choices, limits, several, optional)

    def checked(self, value: Any, name: str | None = None) -> Any:
        """The value, a list as a tuple.

        Args:
            value: What was received.
            name: What to call the option in errors; None for its name.

        Raises:
            InputError: for a value that it does not take.
        """
        if value is None and self.optional:
            return value
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        is_list = isinstance(value, (list, tuple))
        refusal = None
        if is_list != self.several:
            refusal = f"{'several ' if self.several else ''}{self.kind.__name__}{'s' if self.several else ''}"
        for each in values:
            refusal = refusal or self._refusal(each)
        if refusal:
            raise InputError(f"Invalid value for {name or self.name}: expected {refusal}. Received: {value!r}")
        return values if self.several else value

    def _refusal(self, value: Any) -> str | None:
        kinds = (int, float) if self.kind is float else (self.kind,)
        is_bool = isinstance(value, bool)  # an int to Python, but never to a user
        if not isinstance(value, kinds) or (is_bool and self.kind is not bool):
            if self.choices:
                return f"one of: {', '.join(self.choices)}"
            return " or ".join(kind.__name__ for kind in kinds)
        if self.choices and value not in self.choices:
            return f"one of: {', '.join(self.choices)}"
        return self.range.refusal(value) if self.kind in (int, float) else None
