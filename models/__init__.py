import logging

import utils.errors  # noqa: F401  # sets variables that must be set before PyTorch is loaded: utils/__init__.py

# Importing torchao, which transformers does where it is installed, makes PyTorch log deprecations of torchao's own.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
