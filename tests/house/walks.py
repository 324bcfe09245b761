"""Counts how far one has to walk to follow a value through the code; reads the code and runs nothing of it.

``python tests/house/walks.py`` prints, for each job, how many files the value enters with what is made of it, how often
it enters a file again for something that was not read there yet, the deepest chain of calls; the biggest folders;
and for each package in ``examples/plugins`` its lines and the concepts that its author needs. ``--root DIR`` counts
another checkout, so that before and after stand side by side; ``--again`` names the files.

A call is followed where the value, or what was assigned from it, is among its arguments or what it is called on, and
where its target is plain: a name that is imported or defined in the file, a method of ``self``, of a class, or of a
value whose class an annotation or an assignment names; a function that is handed over beside the value is followed
too. What is chosen as the program runs is not: a member that a contract leaves to whoever derives has no body, and that
of the plug-in is nowhere named. Nor is the making of an error: what stands in a ``raise``, or is assigned in a branch
that ends in one. The body of a function is read once, and whoever has read it need not open its file again.

A concept is a name that a package imports from leakgauge, or a member that it defines because a class of ours leaves it
to whoever derives: an abstract method, or an attribute that is annotated and has no value.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOMS = ("leakgauge", "harness", "defenses", "attacks", "benchmarks", "reports")
JOBS = {
    "image batch to stored cell": ("harness", "run_exposure", "cells"),
    "run folder to HTML": ("reports", "write_html", "runs"),
    "space to front": ("leakgauge", "search", "space"),
}
"""Where each walk begins: a room, a function in it, and the parameter that is followed."""
Name = tuple[str, str]
"""A module, and a function or class.member in it."""


@dataclass
class File:
    """One module: what it defines, imports, and what its functions call."""

    module: str
    tree: ast.Module
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def read(root: Path) -> dict[str, File]:
    """Reads every module of the package, by its dotted name."""
    found = {}
    for room in ROOMS:
        paths = sorted((root / room).glob("*.py") if room == "leakgauge" else (root / room).rglob("*.py"))
        for path in paths:
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts if room == "leakgauge" else ("leakgauge", *parts)).removesuffix(".__init__")
            found[module] = File(module, ast.parse(path.read_text(encoding="utf-8")))
    for file in found.values():
        _define(file)
    return found


def _define(file: File) -> None:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            file.imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            file.imports |= {alias.asname: alias.name for alias in node.names if alias.asname}
    for node in file.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            file.functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            file.classes[node.name] = node
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    file.functions[f"{node.name}.{member.name}"] = member


class House:
    """The code, and who calls whom in it."""

    def __init__(self, root: Path) -> None:
        self.files = read(root)
        self._calls: dict[Name, list[tuple[Name, ast.Call]]] = {}

    def definition(self, module: str, name: str) -> Name | None:
        """Returns where a name of a module is defined."""
        for _ in range(5):
            file = self.files.get(module)
            if file is None:
                return None
            if name in file.functions or name in file.classes:
                return module, name
            target = file.imports.get(name)
            if target is None:
                return None
            module, _, name = target.rpartition(".")
        return None

    def member(self, owner: Name, name: str) -> Name | None:
        """Returns where a member of a class is defined, in it or in what it extends."""
        file = self.files[owner[0]]
        if f"{owner[1]}.{name}" in file.functions:
            return owner[0], f"{owner[1]}.{name}"
        node = file.classes.get(owner[1])
        for base in node.bases if node else ():
            parent = self._named(file, base)
            found = parent and self.member(parent, name)
            if found:
                return found
        return None

    def _named(self, file: File, node: ast.expr | None) -> Name | None:
        """Returns what a name, ``module.name``, a subscript or a union of them stands for."""
        if isinstance(node, ast.Name):
            return self.definition(file.module, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self.definition(file.imports.get(node.value.id, ""), node.attr)
        if isinstance(node, ast.BinOp):
            return self._named(file, node.left) or self._named(file, node.right)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.definition(file.module, node.value)
        return None

    def _class(self, file: File, node: ast.expr | None) -> Name | None:
        found = self._named(file, node)
        return found if found and found[1] in self.files[found[0]].classes else None

    def left_by_bases(self, file: File, node: ast.ClassDef) -> set[str]:
        """Returns the members that the bases of a class leave to it."""
        found = set[str]()
        for name in filter(None, (self._class(file, base) for base in node.bases)):
            base_file = self.files[name[0]]
            left, own = _members(base_file.classes[name[1]])
            found |= (self.left_by_bases(base_file, base_file.classes[name[1]]) - own) | left
        return found

    def calls(self, name: Name) -> list[tuple[Name, ast.Call]]:
        """Returns what a function calls or hands over, in the order of its text; a class stands for its making."""
        if name not in self._calls:
            file = self.files[name[0]]
            node = file.functions.get(name[1])
            self._calls[name] = [] if node is None else list(self._called(file, name, node))
        return self._calls[name]

    def _called(
        self, file: File, name: Name, node: ast.FunctionDef | ast.AsyncFunctionDef
    ) -> Iterator[tuple[Name, ast.Call]]:
        owner = (name[0], name[1].partition(".")[0]) if "." in name[1] else None
        kinds = self._kinds(file, owner, node)
        raised = {id(one) for part in _raising(node) for one in ast.walk(part)}
        for call in sorted((n for n in ast.walk(node) if isinstance(n, ast.Call)), key=_where):
            handed = (self._named(file, one) for one in _arguments(call) if isinstance(one, ast.Name))
            yield from ((one, call) for one in handed if one and one[1] in self.files[one[0]].functions)
            found = None if id(call) in raised else self._target(file, owner, kinds, call.func)
            if found:
                yield found, call

    def bodies(self, name: Name) -> list[Name]:
        """Returns what runs where a name is called: of a class its making, which for plain data is nothing of ours.

        Nothing that is named here runs where a member without a body is called: one that is abstract, of a protocol, or
        there to be overridden.
        """
        defined = self.files[name[0]].functions.get(name[1])
        if defined is not None:
            return [name] if _has_body(defined) else []
        made = (self.member(name, how) for how in ("__new__", "__init__", "__post_init__"))
        return [one for one in made if one is not None]

    def carried(self, name: Name, call: ast.Call, names: set[str]) -> set[str] | None:
        """Returns the parameters of a target that get one of ``names`` from a call; None where none does."""
        node = self.files[name[0]].functions.get(name[1])
        every = [] if node is None else [*node.args.posonlyargs, *node.args.args]
        on = call.func.value if isinstance(call.func, ast.Attribute) else None
        found = {"self"} if on is not None and _mentions(on, names) and "." in name[1] else set()
        if not found and not any(_mentions(one, names) for one in _arguments(call)):
            return None
        places = [one.arg for one in every if one.arg not in {"self", "cls"}]
        given = zip(places, call.args, strict=False)
        found |= {place for place, argument in given if _mentions(argument, names)}
        found |= {keyword.arg for keyword in call.keywords if keyword.arg and _mentions(keyword.value, names)}
        handed_over = any(self._is_named(argument, name) for argument in _arguments(call))
        return found | ({*places} if handed_over else set())

    @staticmethod
    def _is_named(argument: ast.expr, name: Name) -> bool:
        return isinstance(argument, ast.Name) and argument.id == name[1]

    def _kinds(self, file: File, owner: Name | None, node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Name]:
        """Returns the classes of names, and of ``self.name``, as far as they are written down."""
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        kinds = {a.arg: self._class(file, a.annotation) for a in arguments}
        for one in ast.walk(node):
            if isinstance(one, ast.Assign) and isinstance(one.value, ast.Call):
                kind = self._class(file, one.value.func) or self._returned(file, one.value.func)
                kinds |= {target.id: kind for target in one.targets if isinstance(target, ast.Name)}
        if owner:
            kinds["self"] = owner
            for member in self.files[owner[0]].classes[owner[1]].body:
                if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    kinds[f"self.{member.target.id}"] = self._class(self.files[owner[0]], member.annotation)
            kinds |= self._set_by_init(owner)
        return {key: kind for key, kind in kinds.items() if kind}

    def _set_by_init(self, owner: Name) -> dict[str, Name | None]:
        file = self.files[owner[0]]
        init = file.functions.get(f"{owner[1]}.__init__")
        if init is None:
            return {}
        given = {a.arg: self._class(file, a.annotation) for a in [*init.args.args, *init.args.kwonlyargs]}
        found: dict[str, Name | None] = {}
        for one in ast.walk(init):
            if isinstance(one, ast.Assign):
                for target, value in _pairs(one):
                    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                        kind = self._class(file, value.func) if isinstance(value, ast.Call) else None
                        kind = given.get(value.id) if isinstance(value, ast.Name) else kind
                        found[f"self.{target.attr}"] = kind
        return found

    def _returned(self, file: File, node: ast.expr) -> Name | None:
        target = self._named(file, node)
        defined = target and self.files[target[0]].functions.get(target[1])
        return self._class(self.files[target[0]], defined.returns) if target and defined else None

    def _target(self, file: File, owner: Name | None, kinds: dict[str, Name], node: ast.expr) -> Name | None:
        if isinstance(node, ast.Name):
            return self.definition(file.module, node.id)
        if not isinstance(node, ast.Attribute):
            return None
        holder = ast.unparse(node.value)
        if holder in kinds:
            return self.member(kinds[holder], node.attr)
        if isinstance(node.value, ast.Call):
            made = self._class(file, node.value.func) or self._returned(file, node.value.func)
            return self.member(made, node.attr) if made else None
        kind = self._class(file, node.value)
        return self.member(kind, node.attr) if kind else self._named(file, node)

    def walk(self, start: Name, parameter: str) -> tuple[list[str], Counter[str], int]:
        """Returns the files entered, how often each was entered again, and the deepest chain of calls."""
        entered, again, read_, deepest = [start[0]], Counter[str](), set[Name](), 0

        def enter(name: Name, above: Name) -> None:
            if name[0] not in entered:
                entered.append(name[0])
            elif name[0] != above[0]:
                again[name[0]] += 1

        def follow(name: Name, parameters: set[str], depth: int) -> None:
            nonlocal deepest
            deepest = max(deepest, depth)
            read_.add(name)
            names = _made_of(self.files[name[0]].functions[name[1]], parameters)
            for called, call in self.calls(name):
                for target in self.bodies(called):
                    given = self.carried(target, call, names)
                    if given is not None and target not in read_:
                        enter(target, name)
                        follow(target, given, depth + 1)

        sys.setrecursionlimit(10_000)
        follow(start, {parameter}, 1)
        return entered, again, deepest


def _is_abstract(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(getattr(one, "id", "") == "abstractmethod" for one in node.decorator_list)


def _has_body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tells whether a function holds more than its docstring."""
    stated = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    return bool(stated) and not _is_abstract(node)


def _raising(node: ast.AST) -> Iterator[ast.stmt]:
    """Yields what makes errors: every ``raise``, and the assignments of a branch that ends in one."""
    for one in ast.walk(node):
        if isinstance(one, ast.Raise):
            yield one
        branches = [one.body, one.orelse] if isinstance(one, ast.If) else []
        for branch in [one.body] if isinstance(one, ast.ExceptHandler) else branches:
            if branch and isinstance(branch[-1], ast.Raise):
                inside = (part for statement in branch for part in ast.walk(statement))
                yield from (part for part in inside if isinstance(part, ast.Assign | ast.AnnAssign | ast.AugAssign))


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _mentions(node: ast.AST, names: set[str]) -> bool:
    """Tells whether one of the names, or what hangs on one, stands in an expression."""
    return any(
        (isinstance(one, ast.Name) and one.id in names)
        or (isinstance(one, ast.Attribute) and ast.unparse(one) in names)
        for one in ast.walk(node)
    )


def _made_of(node: ast.AST, names: set[str]) -> set[str]:
    """Returns the names in a function that hold one of ``names`` or what was made of it."""
    found, before = set(names), set[str]()
    while found != before:
        before = set(found)
        for one in ast.walk(node):
            targets, value = _assigned(one)
            if value is not None and _mentions(value, found):
                found |= {
                    ast.unparse(part)
                    for target in targets
                    for part in ast.walk(target)
                    if isinstance(part, ast.Name | ast.Attribute) and ast.unparse(part) != "self"
                }
    return found


def _assigned(node: ast.AST) -> tuple[list[ast.expr], ast.expr | None]:
    """Returns the targets and the value of an assignment, a loop or a ``with``."""
    if isinstance(node, ast.Assign):
        return node.targets, node.value
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        return [node.target], node.value
    if isinstance(node, ast.For | ast.comprehension):
        return [node.target], node.iter
    if isinstance(node, ast.withitem) and node.optional_vars is not None:
        return [node.optional_vars], node.context_expr
    return [], None


def _where(node: ast.Call) -> tuple[int, int]:
    return (node.end_lineno or 0, node.end_col_offset or 0)


def _pairs(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    [target] = node.targets[:1]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        return list(zip(target.elts, node.value.elts, strict=False))
    return [(target, node.value)]


def _members(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """Returns what a class leaves to whoever derives from it, and what it defines, ``self.name = ...`` included."""
    left, own = set[str](), set[str]()
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            (left if _is_abstract(member) else own).add(member.name)
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            (own if member.value else left).add(member.target.id)
        elif isinstance(member, ast.Assign):
            own |= {one.id for target in member.targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    set_later = (one for one in ast.walk(node) if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store))
    own |= {one.attr for one in set_later}
    return left - own, own


def concepts(house: House, package: Path) -> tuple[int, set[str]]:
    """Returns the lines of a package, and the concepts that its author needs."""
    lines, found = 0, set[str]()
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        file = house.files[path.stem] = File(path.stem, ast.parse(text))
        _define(file)
        lines += len(text.splitlines())
        found |= {name for name, target in file.imports.items() if target.partition(".")[0] == "leakgauge"}
        for node in file.classes.values():
            found |= _members(node)[1] & house.left_by_bases(file, node)
    return lines, found


def folders(root: Path) -> list[tuple[int, str]]:
    """Returns the entries of every folder of code: Python files and folders of them, ``__init__`` aside."""
    found = []
    for room in ROOMS[1:]:
        for folder in [root / room, *(p for p in (root / room).rglob("*") if p.is_dir())]:
            inside = [p for p in folder.iterdir() if p.name not in {"__init__.py", "__pycache__"}]
            if (folder / "__init__.py").is_file():
                found.append((len(inside), str(folder.relative_to(root))))
    return sorted(found, reverse=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--again", action="store_true", help="name the files that are entered again")
    stated = parser.parse_args()
    root = stated.root
    house = House(root)
    print(f"{'job':28} {'files':>6} {'entered again':>14} {'deepest chain':>14}")
    for job, (room, function, parameter) in JOBS.items():
        prefix = "leakgauge." if room == "leakgauge" else f"leakgauge.{room}."
        start = next(
            (module, function)
            for module, file in house.files.items()
            if module.startswith(prefix) and function in file.functions
        )
        files, again, deepest = house.walk(start, parameter)
        print(f"{job:28} {len(files):6} {again.total():14} {deepest:14}")
        for module, count in again.most_common() if stated.again else ():
            print(f"{count:9} {module}")
    for count, folder in folders(root)[:5]:
        print(f"{count:4} entries in {folder}")
    print(f"{'package':28} {'lines':>6} {'concepts':>9}")
    for package in sorted(path for path in (root / "examples" / "plugins").iterdir() if path.is_dir()):
        lines, names = concepts(house, package)
        print(f"{package.name:28} {lines:6} {len(names):9}  {', '.join(sorted(names))}")


if __name__ == "__main__":
    main()
