"""The rules of the house that a machine can check: who imports whom, what is light, how long things may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LYDITE = Path(__file__).resolve().parents[1] / "lydite"
FILES = sorted(LYDITE.rglob("*.py"))

# room -> the rooms of Lydite that it may import when its modules are loaded (not inside functions)
ALLOWED = {
    "types": {"checks"},
    "checks": {"types"},  # for its annotations
    "errors": set(),
    "stats": {"types"},
    "metrics": {"types"},
    "runs": {"types", "errors"},
    "report": {"types", "errors", "stats", "runs", "data"},  # data: the records of a comparison of tokenizers
    "data": {"types", "errors", "runs"},  # of runs: the writer of JSON and the lock
    "engine": {"types", "errors", "data"},
    "models": {"types", "errors", "engine", "data"},
    "training": {"types", "errors", "data", "engine", "models", "runs", "report", "process"},
    "tasks": {"types", "errors", "metrics", "data"},
    "adapt": {"types", "errors", "models", "training", "tasks"},
    "naming": {"types"},
    "evaluate": {"types", "errors", "stats", "runs", "naming", "process"},
    "process": set(),
    "groups": {"types", "errors", "stats", "runs"},
    "audit": {"types", "errors", "stats", "runs", "metrics"},
    "judge": {"types", "errors", "stats", "runs", "metrics"},
    "logs": {"types", "errors", "stats", "runs", "metrics"},
    "compare": {"types", "errors", "stats", "runs", "metrics"},
    "serve": {"types", "errors", "engine"},
}
HEAVY = {"torch", "transformers"}
MAY_BE_HEAVY = {"engine", "models", "training", "adapt"}


def room(path: Path) -> str:
    return path.relative_to(LYDITE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[str]:
    """Full names of the modules that a file imports anywhere, functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
            if node.module == "lydite":
                found += [f"lydite.{name.name}" for name in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LYDITE)))
def test_imports_follow_the_house(path):
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top in HEAVY:
            assert here in MAY_BE_HEAVY, f"{here} imports {top}"
        other = rest.split(".")[0]
        if top != "lydite" or other in ("", "__version__"):
            continue
        assert other != "cli" or here in ("cli", "__main__"), f"{here} imports the command line"
        if here in ALLOWED and other != here:
            assert other in ALLOWED[here], f"{path.relative_to(LYDITE)} imports lydite.{other}"


@pytest.mark.parametrize("command", [["-c", "import lydite"], ["-m", "lydite", "--help"], ["-m", "lydite", "tasks"]])
def test_light_commands_do_not_import_torch(command):
    code = "import sys, runpy\n" if command[0] == "-m" else ""
    if command[0] == "-m":
        code += (
            f"sys.argv = ['lydite', *{command[2:]}]\n"
            "try:\n    runpy.run_module('lydite', run_name='__main__')\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        )
    else:
        code += command[1] + "\nimport sys\n"
    code += "print('HEAVY', sorted({'torch', 'transformers', 'matplotlib', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "lydite", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("lydite ")


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_budgets():
    """What grows past these is split; a verb's flags are its parameters: 15 of them and its arguments."""
    over = [f"{path}: {n} lines" for path in FILES if (n := path.read_text(encoding="utf-8").count("\n")) > 500]
    for path, node in functions():
        lines = (node.end_lineno or 0) - node.lineno + 1
        verb = room(path) == "cli" and node.name == path.stem
        if verb:  # a verb's signature is its --help
            lines = (node.end_lineno or 0) - node.body[0].lineno + 1
        names = [
            a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")
        ]
        if lines > 60:
            over.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
        if len(names) > (17 if verb else 8):
            over.append(f"{path}:{node.lineno} {node.name}: {len(names)} parameters")
    assert not over, "\n".join(over)


def test_no_bare_except_no_pickle_no_eval():
    bad = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                bad.append(f"{path}:{node.lineno} bare except")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("eval", "exec", "hasattr")
            ):
                bad.append(f"{path}:{node.lineno} {node.func.id}")
        if {"pickle", "cloudpickle", "dill"} & {name.split(".")[0] for name in imports(path)}:
            bad.append(f"{path} imports pickle")
    assert not bad, "\n".join(bad)


def test_no_path_of_a_machine_in_the_tree():
    top = LYDITE.parent
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=top, capture_output=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    bad = []
    for name in tracked.stdout.decode().split("\0"):
        path = top / name
        if (
            path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".js", ".css", ""}
            and path.is_file()
            and path != Path(__file__)
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            bad += [f"{name}: {word}" for word in ("/work/", "/root/", "/opt/") if word in text]
    assert not bad, bad
