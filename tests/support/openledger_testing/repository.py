"""Where this checkout is, and what set-up fetched into it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The root of the repository: tests run from a checkout, with the packages installed editable."""

FIRST_RELEASE = ROOT / "tests" / "contract" / "first_release"
CACHE = ROOT / ".cache"


def project_files() -> list[Path]:
    """Returns every pyproject.toml of this repository but the root's, which is no project."""
    found = (path for depth in ("*", "*/*", "*/*/*") for path in ROOT.glob(f"{depth}/pyproject.toml"))
    return sorted(path for path in found if "node_modules" not in path.parts)


def package_folders() -> dict[str, Path]:
    """Returns the source folder of every library and service, by package name."""
    return {**_packages("libs/*"), **_packages("services/*"), **_packages("services/*/*")}


def _packages(projects: str) -> dict[str, Path]:
    return {
        folder.name: folder
        for project in ROOT.glob(f"{projects}/pyproject.toml")
        for folder in (source.parent for source in project.parent.glob("*/__init__.py"))
        if folder.name != "tests"
    }
