"""`make release` and `make dist`: one version for all, and nothing incomplete is released."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tomli
from checks import Built, problems
from packaging.requirements import Requirement
from packaging.version import Version
from prepare import parse, requirement
from projects import CORE, Project, projects

Files = dict[str, tuple[zipfile.ZipInfo, bytes]]

HELPER = "sandbox_core/worker/commands/helper/sandbox-helper-aarch64-linux"


def requirements(project: Project) -> dict[str, str]:
    table = tomli.loads(project.pyproject.read_text("utf-8"))["project"]
    return {Requirement(each).name: each for each in table["dependencies"]}


class TestTree:
    """The files that are committed."""

    @pytest.mark.parametrize("plugin", projects()[1:], ids=lambda plugin: plugin.name)
    def test_a_plugin_has_the_version_of_the_core_and_requires_it(self, plugin: Project) -> None:
        core, *_ = projects()

        assert core.version == plugin.version
        assert requirement(Version(core.version)) == requirements(plugin)[CORE]


class TestVersions:
    """What `make release` takes, and what plugins then require."""

    @pytest.mark.parametrize(
        ("version", "required"),
        [
            ("0.3.1", "sandbox-core>=0.3.1,<0.4"),
            ("0.4.0rc1", "sandbox-core>=0.4.0rc1,<0.5"),
            ("2.0.0", "sandbox-core>=2.0.0,<3"),
        ],
    )
    def test_a_plugin_requires_the_core_that_it_was_tested_with(
        self, version: str, required: str
    ) -> None:
        assert required == requirement(parse(version))
        assert Requirement(required).specifier.contains(version, prereleases=True)

    @pytest.mark.parametrize("text", ["", "1", "1.2", "v1.2.3", "1.2.3.dev4", "1.2.3+local"])
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"use VERSION=1\.2\.3 or 1\.2\.3rc1"):
            parse(text)


@pytest.fixture
def core_only(tree: Path, tmp_path: Path) -> Path:
    """A tree of the core and one plugin, which is built in a second."""
    target = tmp_path / "tree"
    left_out = shutil.ignore_patterns("docs", "sandbox-[!hl]*", "tests")
    shutil.copytree(tree, target, ignore=left_out)
    return target


def run(script: str, tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, tree / "release" / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.packaging
class TestRelease:
    """`make release`."""

    def test_changes_every_version_and_writes_the_changelog(self, core_only: Path) -> None:
        done = run("prepare.py", core_only, "7.0.0")

        assert ("", 0) == (done.stderr, done.returncode)
        assert {"7.0.0"} == {project.version for project in projects(core_only)}
        assert [["sandbox-core>=7.0.0,<8"]] == [
            list(requirements(plugin).values()) for plugin in projects(core_only)[1:]
        ]
        assert "\n## 7.0.0 (20" in (core_only / "CHANGELOG.md").read_text("utf-8")
        fragments = (core_only / "changelog.d").iterdir()
        assert ["README.md"] == [fragment.name for fragment in fragments]

        again = run("prepare.py", core_only, "7.0.0")
        assert ("error: 7.0.0 is not later than 7.0.0\n", 1) == (again.stderr, again.returncode)

    def test_leaves_the_changelog_to_the_final_release(self, core_only: Path) -> None:
        before = (core_only / "CHANGELOG.md").read_text("utf-8")
        done = run("prepare.py", core_only, "7.0.0rc1")

        assert ("", 0) == (done.stderr, done.returncode)
        assert before == (core_only / "CHANGELOG.md").read_text("utf-8")


@pytest.fixture(scope="module")
def core(dist: Path, tree: Path) -> Built:
    wheel, sdist = (next(dist.glob(f"sandbox_core-*{end}")) for end in (".whl", ".tar.gz"))
    project = Project(name=CORE, folder=tree)
    return Built(project=project, wheel=wheel, sdist=sdist, wheel_of_sdist=wheel)


def _without(path: str) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        del files[next(name for name in files if name.endswith(path))]

    return damage


def _with(path: str, content: bytes = b"") -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        files[path] = (zipfile.ZipInfo(path), content)

    return damage


def _plain_helper(files: Files) -> None:
    info, content = files[HELPER]
    info.external_attr = 0o100644 << 16
    files[HELPER] = (info, content)


def _linking(files: Files) -> None:
    name = next(name for name in files if name.endswith("/METADATA"))
    info, content = files[name]
    files[name] = (info, content + b"[the guide](docs/guide.md)")


@pytest.mark.packaging
class TestDist:
    """`make dist`."""

    @pytest.fixture
    def damaged(self, core: Built, tmp_path: Path) -> Callable[[Callable[[Files], None]], Built]:
        """Return distributions whose wheel was changed after it was built."""

        def make(damage: Callable[[Files], None]) -> Built:
            with zipfile.ZipFile(core.wheel) as archive:
                files = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
            damage(files)
            wheel = tmp_path / core.wheel.name
            with zipfile.ZipFile(wheel, "w") as archive:
                for info, content in files.values():
                    archive.writestr(info, content)
            return replace(core, wheel=wheel)

        return make

    def test_has_nothing_to_say_about_what_is_whole(self, core: Built) -> None:
        assert [] == list(problems(core, core.project.version))

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (_without("sandbox_core/py.typed"), "the wheel lacks sandbox_core/py.typed"),
            (_without("/install.sh"), "the wheel lacks sandbox_core/worker/commands/install.sh"),
            (_without("/licenses/LICENSE"), "the wheel lacks the LICENSE of this repository"),
            (_with("tests/test_x.py"), "the wheel has tests/test_x.py, which belongs in no"),
            (_with("sandbox_core/x.pyc"), "the wheel has sandbox_core/x.pyc, which is not in the"),
            (_with(HELPER, b"#!/bin/sh\n"), f"{HELPER} is no program for Linux on aarch64"),
            (_plain_helper, f"{HELPER} is not executable: chmod +x"),
            (_without("aarch64-linux"), f"there is no {HELPER}, without which commands run at"),
            (_linking, "its page on PyPI has a link to docs/guide.md, a file that is not there"),
            (_with("sandbox_core/errors.py"), "a wheel built from the sdist has another sandbox_c"),
        ],
    )
    def test_says_what_a_wheel_lacks(
        self,
        damage: Callable[[Files], None],
        said: str,
        damaged: Callable[[Callable[[Files], None]], Built],
    ) -> None:
        built = damaged(damage)

        assert any(
            line.startswith(f"sandbox-core: {said}")
            for line in problems(built, built.project.version)
        )

    def test_ends_with_an_error_for_each_problem(self, core_only: Path, tmp_path: Path) -> None:
        """Also those that twine finds."""
        plugin = core_only / "plugins" / "sandbox-local"
        (plugin / "src" / "sandbox_local" / "py.typed").unlink()
        project = Project(name=plugin.name, folder=plugin)
        project.set_version("0.0.9")
        (core_only / "README.md").write_text("")
        done = run("dist.py", core_only, "--out", f"{tmp_path}/dist", "--tag", "v9.9.9")

        version = projects(core_only)[0].version
        assert 1 == done.returncode
        assert [
            f"error: the tag is v9.9.9, and the version {version}: expected v{version}",
            f"error: sandbox-local: its version is 0.0.9, and the core's {version}: use `make "
            "release`",
            "error: sandbox-local: there is no sandbox_local/py.typed, without which type checkers "
            "ignore its types",
        ] == done.stderr.splitlines()[:3]
        assert done.stderr.splitlines()[3].startswith("error: twine: ")

    def test_says_what_cannot_be_built(self, core_only: Path, tmp_path: Path) -> None:
        (core_only / "pyproject.toml").write_text("[project")
        shutil.rmtree(core_only / "plugins")
        done = run("dist.py", core_only, "--out", f"{tmp_path}/dist")

        assert 1 == done.returncode
        assert done.stderr.startswith("error: sandbox-core cannot be built:\n")
