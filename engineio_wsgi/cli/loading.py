"""Finds an application by its name, as gunicorn and Flask do: ``module:app``, or ``module:create_app("prod", debug=True)``.

Owns the syntax of such a name. It evaluates no code of the name: the arguments of a call are literals.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from wsgiref.types import WSGIApplication

from engineio_wsgi.cli.hints import attribute_hint, module_hint
from engineio_wsgi.errors import ConfigurationError

__all__ = ["load_application"]

DEFAULT_NAME = "app"


def load_application(text: str) -> WSGIApplication:
    """Import the module and return the application. If the text is a call, return what the call returns.

    The current folder is searched first.

    Raises:
        ConfigurationError: the text has the wrong syntax, or names something that does not exist or is no WSGI application.
        Exception: the module or the factory raised it.
    """
    module_name, _, expression = text.partition(":")
    name, call = _read(expression or DEFAULT_NAME)
    module = _import(module_name, expression or DEFAULT_NAME)
    found = getattr(module, name, None)
    if found is None:
        raise ConfigurationError(f"the module {module_name!r} has no {name!r}{attribute_hint(module, name)}")
    if call is not None:
        return _call_factory(text, found, call)
    if not callable(found):
        raise ConfigurationError(f"{text!r} is not a WSGI application")
    if _is_factory(found):
        raise ConfigurationError(f"{text!r} is not a WSGI application, which takes environ and start_response; "
                                 f"did you mean '{module_name}:{name}()'?")
    return found  # type: ignore[no-any-return]


def _read(expression: str) -> tuple[str, ast.Call | None]:
    """The name in an expression, and the call if the expression is one."""
    try:
        body = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError):
        body = None
    call = body if isinstance(body, ast.Call) else None
    name = body if call is None else call.func
    if not isinstance(name, ast.Name):
        raise ConfigurationError(f"{expression!r} is neither a name, such as app, nor a call of one, such as create_app('prod')")
    return name.id, call


def _import(name: str, expression: str) -> ModuleType:
    """Import the user's module. An exception that the module raises keeps its traceback."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is not the name of a module{module_hint(name, expression, sys.modules)}")
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"there is no module {name!r}{module_hint(name, expression, sys.modules)}") from None


def _call_factory(text: str, factory: object, call: ast.Call) -> WSGIApplication:
    """Call a factory, and return the application."""
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
        # a callable without a signature, such as some built-in ones
        pass
    application = factory(*arguments, **named)
    if not callable(application):
        raise ConfigurationError(f"{text!r} is not a WSGI application: it returned {type(application).__name__}")
    return application  # type: ignore[no-any-return]


def _is_factory(found: Callable[..., object]) -> bool:
    """Whether a callable takes no arguments, so that it cannot be an application."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    many = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return not many and all(parameter.default is not inspect.Parameter.empty or parameter.kind is inspect.Parameter.VAR_KEYWORD
                            for parameter in parameters)
