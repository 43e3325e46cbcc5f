"""Installation of mutants in a process that has already imported all modules."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import fundledger.database.statements

_loaded: dict[str, dict[str, str]] = {}
_load = fundledger.database.statements.load


def _load_and_keep(package: str, **lists: str) -> dict[str, str]:
    statements = _load(package, **lists)
    # A package may be loaded by several modules, each of which has a dictionary of its own.
    _loaded.setdefault(f"{package.replace('.', '/')}/sql/{len(_loaded)}", statements)
    return statements


def watch_statements() -> None:
    """Record the dictionaries of SQL files. Call it before modules load them."""
    fundledger.database.statements.load = _load_and_keep


def install(root: Path, file: str, source: str, where: str) -> bool:
    """Install a mutant. Return False if that is not possible: a new process then has to import the mutant."""
    if file.endswith(".sql"):
        return _install_statement(file, as_loaded((root / file).read_text()), as_loaded(source))
    return bool(where) and _install_function(str(root / file), source, where)


def as_loaded(text: str) -> str:
    """Return the text of an SQL file as its package loads it: with the columns of an order."""
    # Not imported above, because `watch_statements` has to be called before modules load their statements.
    from fundledger.fund.store.queries import ORDER_COLUMNS

    return text.replace("{order}", ORDER_COLUMNS)


def _install_statement(file: str, original: str, source: str) -> bool:
    folder, name = file.rsplit("/", 1)
    name = name.removesuffix(".sql")
    dictionaries = [of for key, of in _loaded.items() if key.startswith(folder + "/") and of.get(name) == original]
    # Modules also keep the text itself, or have it in a table. `gc` does not find it: it does not track a dictionary of
    # texts.
    for holder in [*dictionaries, *_dictionaries_of_modules()]:
        for key in [key for key, value in holder.items() if value == original]:
            holder[key] = source
    # A text that is derived from this one, or is in a tuple, has to be imported anew.
    header = original.partition("\n")[0]
    return bool(dictionaries) and not any(
        isinstance(value, str) and value.partition("\n")[0] == header and value != source
        for holder in _dictionaries_of_modules()
        for of in holder.values()
        for value in (of if isinstance(of, (tuple, list, set, frozenset)) else (of,))
    )


def _dictionaries_of_modules() -> Iterator[dict[str, object]]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("fundledger", "tests"):
            yield vars(module)
            yield from [value for value in vars(module).values() if isinstance(value, dict)]


def _install_function(path: str, source: str, where: str) -> bool:
    name = where.rpartition(".")[2]
    codes = [
        code for code in _codes(compile(source, path, "exec")) if code.co_name == name and code.co_qualname == where
    ]
    functions = [
        found
        for found in gc.get_objects()
        if isinstance(found, FunctionType)
        and found.__code__.co_filename == path
        and found.__code__.co_qualname == where
    ]
    if len(codes) != 1 or len(functions) != 1 or functions[0].__code__.co_freevars != codes[0].co_freevars:
        return False
    functions[0].__code__ = codes[0]
    # Defaults are evaluated when a module is imported.
    return not functions[0].__defaults__ and not functions[0].__kwdefaults__


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)
