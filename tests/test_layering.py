"""The house of docs/DESIGN.md, held by reading every import: floors, folders, faces, and what the package
never does.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "darkslim"
FLOORS = (  # from the bottom; rooms of one floor do not know each other
    ("base",),
    ("network",),
    ("evaluation", "data"),
    ("training", "latency"),
    ("pruning", "compression", "deploy"),
    ("report",),
    ("pipelines",),
    ("commands",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
READERS_OF_REPORT = (
    "report",
    "pipelines",
    "commands",
)  # what is shown is no business of those who work it out
NETWORK = (
    ("key_kinds",),
    ("schema",),
    ("cfg",),
    ("cfg_plain", "cfg_doubts", "cfg_classes"),
    ("node",),
    ("graph",),
    ("channels",),
    ("layers", "heads"),
    ("darknet",),
    ("twins", "walk", "patches"),
    ("profile", "gates", "rounding", "renorm"),
    ("arrays", "foreign_keys"),
    ("checkpoints",),
    ("entropy",),
    ("packed",),
    ("weights",),
)
STEP = {name: step for step, names in enumerate(NETWORK) for name in names}
NO_TORCH = (
    "base.errors",
    "base.files",
    "base.options",
    "base.observer",
    "commands",
    "network.key_kinds",
    "network.schema",
    "network.cfg",
    "network.cfg_plain",
    "network.cfg_doubts",
    "network.cfg_classes",
    "network.node",
    "network.graph",
    "network.channels",
    "data.datafile",
)
FACES = ("models.py", "prune_utils.py")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute module) of every import of a file, lazy ones too; `from p import m` gives p.m."""
    found = []
    package = (
        module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    )
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
    return found


def room(module: str) -> str | None:
    """The folder of the package that a module lies in: darkslim.data.voc -> data; None outside."""
    parts = module.split(".")
    return parts[1] if parts[0] == "darkslim" and len(parts) > 1 and parts[1] in FLOOR else None


def allowed(here: str, there: str) -> bool:
    return here == there or FLOOR[there] < FLOOR[here] and (there != "report" or here in READERS_OF_REPORT)


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_has_a_room_and_every_room_a_floor():
    loose = {p.name for p in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert not loose, f"these lie beside the rooms: {sorted(loose)}"
    rooms = {p.relative_to(PACKAGE).parts[0] for p in SOURCES if p.parent != PACKAGE}
    assert rooms <= set(FLOOR), f"give {sorted(rooms - set(FLOOR))} a floor here and in docs/DESIGN.md"
    assert rooms >= set(FLOOR), "a room that this test names is gone"
    assert {p.stem for p in (PACKAGE / "network").glob("*.py")} - {"__init__"} == set(STEP)


def test_every_room_says_what_is_in_it():
    for folder in {p.parent for p in SOURCES}:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert text, f"{folder.relative_to(ROOT)}/__init__.py has no docstring"


def test_a_file_imports_only_from_lower_floors_or_its_own_room():
    faults = []
    for path in SOURCES:
        here = room(module_name(path))
        for line, module in imports(path):
            there = room(module)
            if here and there and not allowed(here, there):
                faults.append(
                    f"{path.relative_to(ROOT)}:{line} {here} (floor {FLOOR[here]}) imports {there} (floor "
                    f"{FLOOR[there]})"
                )
    assert not faults, "\n".join(faults)


def test_within_the_network_one_file_builds_on_another():
    faults = []
    for name, step in STEP.items():
        path = PACKAGE / "network" / f"{name}.py"
        for line, module in imports(path):
            parts = module.split(".")
            if parts[:2] == ["darkslim", "network"] and parts[2] != name and STEP[parts[2]] >= step:
                faults.append(
                    f"{path.relative_to(ROOT)}:{line} {name} imports {parts[2]}, which stands above it or "
                    "beside it"
                )
    assert not faults, "\n".join(faults)
    assert "Cfg" not in (PACKAGE / "network" / "schema.py").read_text().split(), (
        "the table of keys knows no Cfg"
    )


def test_no_two_files_of_one_name():
    """A name is one idea: `cache` in two rooms is two. A pipeline has the name of the command that it is
    for.
    """
    names = Counter(p.stem for p in SOURCES if p.stem != "__init__")
    assert not {name for name, count in names.items() if count > 1}


def test_the_rule_itself():
    assert allowed("network", "base") and not allowed("base", "network")
    assert allowed("pruning", "training") and not allowed("training", "pruning")
    assert allowed("training", "evaluation") and not allowed("evaluation", "training")
    assert (
        allowed("pipelines", "report")
        and not allowed("pruning", "report")
        and not allowed("report", "pipelines")
    )
    assert not allowed("data", "evaluation") and allowed("data", "data")


def test_the_package_never_imports_the_top_level():
    outside = {p.stem for p in ROOT.glob("*.py")} | {"tests", "benchmarks"}
    faults = [
        f"{p.relative_to(ROOT)}:{line} imports {module}"
        for p in SOURCES
        for line, module in imports(p)
        if module.split(".")[0] in outside
    ]
    assert not faults, "\n".join(faults)


def test_the_low_floors_do_not_load_torch():
    code = (
        "import sys\n"
        + "".join(f"import darkslim.{m}\n" for m in NO_TORCH)
        + "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "one of them imports torch"


@pytest.mark.parametrize("face", FACES)
def test_a_face_defines_nothing(face):
    tree = ast.parse((ROOT / face).read_text())
    assert ast.get_docstring(tree), "a docstring that says where to look"
    defined = [
        n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    assert not defined and not any(isinstance(n, ast.Lambda) for n in ast.walk(tree))
    names = {
        a.asname or a.name for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names
    }
    exported = next(
        ast.literal_eval(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"
    )
    assert set(exported) <= names and len(set(exported)) == len(exported)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_what_the_package_and_the_commands_never_do():
    """No star imports, pickle, eval, shells; torch.load only with weights_only; and the package prints
    nothing.
    """
    faults = []
    for path in [*SOURCES, *sorted(ROOT.glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]:
        tree, name = ast.parse(path.read_text()), path.relative_to(ROOT)
        for line, module in imports(path):
            if module.endswith(".*") or module.split(".")[0] in (
                "pickle",
                "cPickle",
                "dill",
                "joblib",
                "marshal",
                "shelve",
            ):
                faults.append(f"{name}:{line} imports {module}")
        for node, func in calls(tree):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if func in ("eval", "exec", "os.system", "os.popen") or options.get("shell", "False") != "False":
                faults.append(f"{name}:{node.lineno} calls {func}")
            if func == "torch.load" and options.get("weights_only") != "True":
                faults.append(f"{name}:{node.lineno} torch.load without weights_only=True")
            if options.get("allow_pickle", "False") != "False":
                faults.append(f"{name}:{node.lineno} {func} allows pickles")
            if func == "print" and PACKAGE in path.parents and path.parent.name != "commands":
                faults.append(f"{name}:{node.lineno} prints")
    assert not faults, "\n".join(faults)
