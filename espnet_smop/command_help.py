"""How commands explain themselves."""

import argparse


class CommandHelp(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Leaves a description with its example as it is written, and adds the options' defaults."""
