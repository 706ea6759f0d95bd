"""An environment for asv that costs a second: it links the frameworks of another one, and installs only capsbench.

A plug-in: `asv.conf.json` names this module. The environment is a bare one of the Python that runs asv, with one .pth
file beside the capsbench of the commit under test. Python appends what that file names behind the environment's own
folder and follows no .pth file there, so that a capsbench in the linked environment loses, an editable one as well.
"""

import os
import sysconfig
import venv
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asv.console import log
from asv.environment import Environment, EnvironmentUnavailable
from asv.util import UserError

SITE_VARIABLE = "CAPSBENCH_SITE"
_FRAMEWORKS = ("torch", "tensorflow")
# Quoted paths may hold blanks. No index, no isolation: all that is needed is linked.
_BUILD = 'python -m pip wheel --no-deps --no-index --no-build-isolation -w "{build_cache_dir}" "{build_dir}"'
_INSTALL = 'in-dir={env_dir} python -m pip install --no-deps --no-index --force-reinstall "{wheel_file}"'


class Overlay(Environment):
    """The linked environment is the one that runs asv, or, before it, the one that `CAPSBENCH_SITE` names."""

    tool_name = "overlay"

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:  # noqa: ANN401
        if python != sysconfig.get_python_version():
            raise EnvironmentUnavailable(
                f"an overlay has the Python that runs asv, {sysconfig.get_python_version()}, and never {python}"
            )
        own = copy(conf)
        own.build_command, own.install_command, own.uninstall_command = [_BUILD], [_INSTALL], []
        self._python, self._requirements = python, requirements
        super().__init__(own, python, requirements, tagged_env_vars)
        self._link = Path(_site_packages(Path(self._path)), "linked.pth")

    def check_presence(self) -> bool:
        """Whether it is there, and linked to what is to be linked now."""
        link = "".join(f"{site}\n" for site in linked_sites())
        return self._link.is_file() and self._link.read_text(encoding="utf-8") == link

    def _setup(self) -> None:
        for needed in ("pip", "hatchling"):
            if find_spec(needed) is None:
                raise UserError(f"no {needed} beside asv, to build capsbench with; install the extra capsbench[track]")
        sites = linked_sites()
        if not any((site / framework).is_dir() for site in sites for framework in _FRAMEWORKS):
            where = " or ".join(map(str, sites))
            log.warning(
                f"neither PyTorch nor TensorFlow is in {where}: cases that need one will fail; "
                f"{SITE_VARIABLE} names the environment that has them"
            )
        venv.create(self._path, symlinks=os.name != "nt", with_pip=False)
        self._link.write_text("".join(f"{site}\n" for site in sites), encoding="utf-8")

    def run(self, args: list[str], **kwargs: Any) -> Any:  # noqa: ANN401 - asv's
        """Run Python; why a commit cannot be measured at all is said, as asv only says that it cannot."""
        done = self.run_executable("python", args, **kwargs)
        if args[1:2] == ["setup_cache"] and done[2] and done[0].strip():
            log.warning(done[0].strip().splitlines()[-1])
        return done


def linked_sites() -> tuple[Path, ...]:
    """The site-packages folders that are linked, the first winning.

    Raises:
        UserError: `CAPSBENCH_SITE` is neither a virtual environment nor a folder of packages.
    """
    here = Path(sysconfig.get_path("purelib"))
    named = os.environ.get(SITE_VARIABLE)
    if not named:
        return (here,)
    site = Path(named).resolve()
    if (site / "pyvenv.cfg").is_file():
        site = Path(_site_packages(site))
    if not site.is_dir():
        raise UserError(f"{SITE_VARIABLE} is {named}: neither a virtual environment nor a site-packages folder")
    return (site, here) if site != here else (here,)


def _site_packages(prefix: Path) -> str:
    return sysconfig.get_path("purelib", "venv", vars={"base": str(prefix), "platbase": str(prefix)})
