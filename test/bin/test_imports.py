import subprocess
import sys

# A recipe starts these dozens of times.
LIGHT = ("check_config", "config", "data_dir", "paper", "prepare_corpus", "results")
HEAVY = {"torch", "transformers", "peft", "scipy", "matplotlib"}


def test_commands_that_need_no_model_do_not_wait_for_torch():
    imports = "; ".join(f"import espnet_smop.bin.{name}" for name in LIGHT)
    code = f"{imports}; import sys; print(*({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
