"""Synthetic corpora: a small grammar, eSpeak NG's voices and rendered talking faces."""
