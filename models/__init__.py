import logging

import utils  # noqa: F401  # before PyTorch; see there

# Importing torchao, which transformers does where it is installed, makes PyTorch log deprecations of torchao's own.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
