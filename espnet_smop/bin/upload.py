#!/usr/bin/env python3
"""Upload a packed model to the Hugging Face hub.

The token is taken from ``HF_TOKEN``, or from ``hf auth login``; it needs the right to write.

Example::

    python -m espnet_smop.bin.upload --packed exp/avsr_train_avsr_smop3_dedr/packed.zip \
        --repo me/avsr_smop3_dedr --dry_run true
"""

import argparse
import sys
from collections.abc import Sequence

import yaml
from espnet2.utils.types import str2bool
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.package import PackageError, is_local, open_package, package_files


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.upload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--packed", required=True, help="What pack wrote: zip file or directory")
    parser.add_argument("--repo", required=True, help="Hub id, OWNER/NAME; made if need be")
    parser.add_argument(
        "--private", type=str2bool, default=False, help="Make a new repository private"
    )
    parser.add_argument(
        "--dry_run",
        type=str2bool,
        nargs="?",
        const=True,
        default=False,
        help="Only list what would be uploaded; needs neither token nor network",
    )
    return parser


def upload(packed: str, repo: str, *, private: bool, dry_run: bool) -> None:
    """Upload a package's files, or list them.

    Raises:
        PackageError: it is no package, there is no token, or the hub is out of reach.
        HfHubHTTPError: the hub refuses.
    """
    validate_repo_id(repo)
    with open_package(packed) as directory:
        files = package_files(directory)
        if not (directory / "meta.yaml").is_file():
            raise PackageError(f"{packed} is no package: it has no meta.yaml. Make one by bin/pack")
        total = 0
        for file in files:
            size = (directory / file).stat().st_size
            total += size
            print(f"{size:>14,}  {file}")
        config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        for part in ("audio_frontend", "video_frontend", "decoder"):
            model = (config.get(f"{part}_conf") or {}).get("model", "")
            if config.get(part) and is_local(model) and not model.startswith("bases/"):
                print(f"note: the {part} is {model}, which nobody else has: see --include_bases")
        what = f"{len(files)} files, {total / 2**20:.1f} MiB"
        if dry_run:
            print(f"dry run: {what} would go to {repo}")
            return
        if get_token() is None:
            raise PackageError(
                "there is no token: set HF_TOKEN to one that may write "
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
                "with network; what was uploaded is not sent again"
            ) from e
        print(f"uploaded {what}: {info.commit_url}")


def main(cmd: Sequence[str] | None = None) -> None:
    """Upload what the command line names."""
    args = get_parser().parse_args(cmd)
    try:
        upload(args.packed, args.repo, private=args.private, dry_run=args.dry_run)
    except (PackageError, BaseModelError, HFValidationError, HfHubHTTPError, OSError) as e:
        sys.exit(f"upload: {e}")


if __name__ == "__main__":
    main()
