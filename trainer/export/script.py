"""The program beside an exported file: the sections of `trainer.export.standalone`, joined into one file."""

from __future__ import annotations

import ast
import inspect
import sys

from trainer.export.standalone import decision, decode, geometry, program

_SECTIONS = (decode, geometry, decision, program)
_Names = dict[str, set[str]]


def join_script() -> str:
    """Return the program's text, which imports nothing from this project.

    >>> [line for line in join_script().splitlines() if line.startswith("from ")][:2]
    ['from __future__ import annotations', 'from collections.abc import Callable']
    """
    names: _Names = {}
    bodies = []
    for section in _SECTIONS:
        source = inspect.getsource(section)
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        _collect(imports, names)
        body = "\n".join(source.splitlines()[imports[-1].end_lineno :]).strip()
        bodies.append(body if section is program else f"# {section.__doc__}\n\n\n{body}")
    return "\n".join([f'"""{program.__doc__}"""', "", *_write(names), "", "\n\n\n".join(bodies), ""])


def _collect(imports: list[ast.Import | ast.ImportFrom], names: _Names) -> None:
    """Add the names imported from each module (none for `import module`), without imports of other sections."""
    for node in imports:
        if isinstance(node, ast.Import):
            names.update({ast.unparse(alias): set() for alias in node.names})
        elif node.module and not node.module.startswith(__package__):
            names.setdefault(node.module, set()).update(map(ast.unparse, node.names))


def _write(names: _Names) -> list[str]:
    """Return the import lines: __future__, the standard library, other libraries."""
    blocks: list[list[str]] = [[], [], []]
    for module, chosen in sorted(names.items(), key=lambda item: (bool(item[1]), item[0])):
        top = module.partition(".")[0]
        block = 0 if top == "__future__" else 1 if top in sys.stdlib_module_names else 2
        blocks[block].append(f"from {module} import {', '.join(sorted(chosen))}" if chosen else f"import {module}")
    return "\n\n".join("\n".join(block) for block in blocks).splitlines()
