"""The language model that turns projected tokens into text."""
