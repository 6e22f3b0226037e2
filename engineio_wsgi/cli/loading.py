"""An application by its name, as gunicorn and Flask have it: ``module:app``, or ``module:create_app("prod", debug=True)``.

Owns what such a text may be. Evaluates nothing: a call's arguments are literals.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from engineio_wsgi.errors import ConfigurationError

__all__ = ["load_application"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

DEFAULT_NAME = "app"


def load_application(text: str) -> Application:
    """Import the module, from the current folder if it is there, and get the application; a factory is called.

    Raises:
        ConfigurationError: the text is not as it has to be, or what it names is not there, or is no WSGI application.
        Exception: what the module or the factory raised.
    """
    module_name, _, expression = text.partition(":")
    name, call = _read(expression or DEFAULT_NAME)
    found = getattr(_import(module_name), name, None)
    if found is None:
        raise ConfigurationError(f"the module {module_name!r} has no {name!r}")
    if call is not None:
        return _made(text, found, call)
    if not callable(found):
        raise ConfigurationError(f"{text!r} is not a WSGI application")
    if _is_factory(found):
        raise ConfigurationError(f"{text!r} is not a WSGI application, which takes environ and start_response; "
                                 f"did you mean '{module_name}:{name}()'?")
    return found  # type: ignore[no-any-return]


def _read(expression: str) -> tuple[str, ast.Call | None]:
    """The name in it, and the call, if it is one."""
    try:
        body = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError):
        body = None
    call = body if isinstance(body, ast.Call) else None
    name = body if call is None else call.func
    if not isinstance(name, ast.Name):
        raise ConfigurationError(f"{expression!r} is neither a name, such as app, nor a call of one, such as create_app('prod')")
    return name.id, call


def _import(name: str) -> ModuleType:
    """The user's module. What goes wrong inside of it is the user's to see, with its traceback."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is not the name of a module")
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"there is no module {name!r}") from None


def _made(text: str, factory: Any, call: ast.Call) -> Application:
    """What a factory makes."""
    try:
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("arguments in a dict")
    except (ValueError, TypeError):
        raise ConfigurationError(f"{text!r}: the arguments of a call have to be literals, such as 'prod', 5 or True") from None
    if not callable(factory):
        raise ConfigurationError(f"{text!r}: {ast.unparse(call.func)!r} cannot be called")
    try:
        inspect.signature(factory).bind(*arguments, **named)
    except TypeError as error:
        raise ConfigurationError(f"{text!r}: {error}") from None
    except ValueError:
        # it does not say what it takes
        pass
    application = factory(*arguments, **named)
    if not callable(application):
        raise ConfigurationError(f"{text!r} is not a WSGI application: it returned {type(application).__name__}")
    return application  # type: ignore[no-any-return]


def _is_factory(found: Any) -> bool:
    """Whether it can be called with nothing, and does not have to take what an application is called with."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    many = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return not many and all(parameter.default is not inspect.Parameter.empty or parameter.kind is inspect.Parameter.VAR_KEYWORD
                            for parameter in parameters)
