"""All shell scripts: shellcheck, and the links of recipes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OWN_DB = ("own_corpus", "db.sh")
RECIPES = sorted((ROOT / "egs2").glob("*/avsr_smop1"))


def shell_scripts():
    for top in ("egs2", "tools"):
        for path in sorted((ROOT / top).rglob("*.sh")):
            # Links are checked where they point to; what recipes make is none of ours.
            if not path.is_symlink() and not {"downloads", "exp", "venv"} & set(path.parts):
                yield path


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    for directory in [*RECIPES, ROOT / "tools"]:
        scripts = [str(p.relative_to(directory)) for p in shell_scripts() if directory in p.parents]
        if scripts:
            done = subprocess.run(
                ["shellcheck", "-x", *scripts], cwd=directory, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.parent.name)
def test_recipes_link_to_the_template(recipe):
    for name in ("avsr_smop.sh", "path.sh", "cmd.sh", "db.sh", "scripts"):
        path = recipe / name
        assert path.exists()
        # Where a corpus of one's own is, is nobody else's business.
        is_own = recipe.parent.name == "TEMPLATE" or (recipe.parent.name, name) == OWN_DB
        if not is_own:
            assert path.is_symlink() and not os.path.isabs(os.readlink(path))
    for script in ("avsr_smop.sh", "scripts/jobs/local.py", "scripts/jobs/slurm.pl"):
        assert os.access(recipe / script, os.X_OK)


@pytest.mark.parametrize(
    "config", sorted(ROOT.glob("egs2/*/avsr_smop1/conf/*.yaml")), ids=lambda p: p.stem
)
def test_configs_hold_numbers_where_numbers_are_meant(config):
    def strings(value):
        if isinstance(value, dict):
            for item in value.values():
                yield from strings(item)
        elif isinstance(value, list):
            for item in value:
                yield from strings(item)
        elif isinstance(value, str):
            yield value

    # YAML reads 1e-4 as a string; it must be 1.0e-4.
    for text in strings(yaml.safe_load(config.read_text())):
        with pytest.raises(ValueError):
            float(text)
