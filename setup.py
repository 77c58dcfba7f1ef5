"""What pyproject.toml cannot say: a wheel that holds compiled libraries is for the kind of machine that made them."""

from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel

NATIVE = Path(__file__).parent / "model/native"


class Project(Distribution):
    """The project with the libraries of `deploy/native.sh`, where they are there."""

    def has_ext_modules(self) -> bool:
        """Whether something is of one platform only."""
        return any(NATIVE.glob("*.so"))


class Wheel(bdist_wheel):
    """`py3-none-any` without libraries, `py3-none-PLATFORM` with them: they know nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The interpreter, its binary interface, the platform."""
        return ("py3", "none", super().get_tag()[2])


setup(distclass=Project, cmdclass={"bdist_wheel": Wheel})
