"""Uploading packages to the Hugging Face hub."""

import yaml
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from espnet_smop.checkpoint.archive import PackageError
from espnet_smop.checkpoint.package import is_local, open_package, package_files
from espnet_smop.config import named_models


def upload(packed: str, repo: str, *, private: bool, dry_run: bool) -> None:
    """Upload a package's files, and print them with their sizes.

    Args:
        packed: zip file or directory.
        repo: hub id, ``OWNER/NAME``; created if missing.
        private: make a new repository private.
        dry_run: only print.

    Raises:
        PackageError: not a package, not a hub id, no token, or the hub cannot be reached.
        HfHubHTTPError: the hub refuses.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as e:
        raise PackageError(str(e)) from None
    with open_package(packed) as directory:
        files = package_files(directory)
        if not (directory / "meta.yaml").is_file():
            raise PackageError(
                f"{packed} is not a package: it has no meta.yaml. Make one with `package pack`"
            )
        total = 0
        for file in files:
            size = (directory / file).stat().st_size
            total += size
            print(f"{size:>14,}  {file}")
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        for part, model in named_models(config).items():
            if is_local(model) and not model.startswith("bases/"):
                print(f"note: the {part} is {model}, which only you have: see --include_bases")
        what = f"{len(files)} files, {total / 2**20:.1f} MiB"
        if dry_run:
            print(f"dry run: {what} would go to {repo}")
            return
        if get_token() is None:
            raise PackageError(
                "no token: set HF_TOKEN to one with write access "
                "(https://huggingface.co/settings/tokens), or run `hf auth login`"
            )
        api = HfApi(library_name="espnet_smop")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            info = api.upload_folder(
                repo_id=repo,
                folder_path=directory,
                allow_patterns=[str(file) for file in files],
                commit_message="Upload model",
            )
        except OSError:  # HfHubHTTPError is one
            raise
        except Exception as e:  # of the client's HTTP library, whichever that is
            raise PackageError(
                f"the hub could not be reached ({type(e).__name__}: {e}). Upload from a machine "
                "with network; files that were uploaded are not sent again"
            ) from e
        print(f"uploaded {what}: {info.commit_url}")
