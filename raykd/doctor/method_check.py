"""`raykd check-method my_package:MyLoss`: does a method do what every method must do?

The checks are those that the tests run on every method of raykd.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from raykd.doctor.check import Check
from trainables.core import plugins
from trainables.core.errors import UserError, first_line

_FIELD = "METHOD"
_MEND = "docs/extending.md, A method; the docstrings of trainables/methods/base.py"


def checks(given: str) -> Iterator[Check]:
    """Each check of the method `given`, `my_package:MyLoss` or a name in `raykd list methods`, as it is done.

    The module is installed, or lies in the current folder. Raises `UserError` where there is no such method,
    or where it is not complete.
    """
    import torch

    from trainables.planning.conformance import NotKept, checks_of

    name = _named(given)
    torch.set_num_threads(1)  # more threads are slower with networks this small
    for check in checks_of(name):
        try:
            check.run(name)
        except NotKept as broken:
            yield Check(check.says, False, str(broken), _MEND)
        except Exception as error:
            yield Check(check.says, False, f"fails with {type(error).__name__}: {first_line(error)}", _MEND)
        else:
            yield Check(check.says, True, name)


def _named(given: str) -> str:
    """The name of the method that `given` means, which is registered then."""
    from trainables.methods import load_method, methods
    from trainables.methods.base import Method, check_class

    module, colon, wanted = given.partition(":")
    if not colon:
        return load_method(given, _FIELD).name
    plugins.look_in([Path.cwd()])
    methods()  # raykd's own first: a class with one of their names is refused where it is defined
    found = getattr(plugins.load(module, _FIELD), wanted, None)
    if not isinstance(found, type) or not issubclass(found, Method) or "name" not in vars(found):
        problem = f"{module} has no method {wanted!r}"
        expected = "a subclass of `Method` with a `name`, as `my_package.losses:MyLoss`"
        raise UserError(_FIELD, problem, value=given, expected=expected)
    check_class(found)
    plugins.declare([module])
    return found.name
