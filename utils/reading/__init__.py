"""Readers of files that others made: whatever a file holds, the result is its content or an InputError.

files.py    regular files alone, size limits, the sentence that refuses a file
texts.py    text, JSON, JSON lines, YAML, templates
arrays.py   NumPy: .npy and .npz
tensors.py  safetensors, and the config.json of a model against its weights
torch_files.py  torch files
pickles.py  the pickles within them, as data

A reader checks sizes before it reads, so that memory and time follow the size of the file, not a number in it.
"""
