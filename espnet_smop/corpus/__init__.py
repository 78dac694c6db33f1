"""From a corpus on disk to Kaldi data directories and mouth crops."""
