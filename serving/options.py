"""Command-line options of the web app."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from serving.places import parse_network
from utils.config import bounded

if TYPE_CHECKING:
    Port = int
else:
    Port = bounded("Port", int, (">=", 0), ("<=", 65535))


@dataclass
class Options:
    """Options of the web app."""

    checkpoint: str = "checkpoints/demo"
    """Text-to-motion model: a folder, as train_t2m.py writes it, or an id of the Hugging Face hub: user/name or
    user/name@revision."""
    host: str = "127.0.0.1"
    """Network address to listen on; 0.0.0.0 accepts connections from other machines."""
    port: Port = 8000
    """Port to listen on; 0 selects a free port."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:1, ..."""
    running: PositiveInt = 4
    """Maximum number of visitors served concurrently; their motions are generated together."""
    waiting: NonNegativeInt = 16
    """Maximum number of visitors in the queue; further visitors are asked to try again later."""
    per_address: PositiveInt = 4
    """Maximum number of visitors per network address, served or waiting. The same limit applies to downloads in
    preparation. Reduced if it is not less than --running plus --waiting."""
    jobs_per_minute: PositiveInt = 60
    """Maximum number of jobs that a network address can start in a minute: motions and their edits; likewise downloads,
    videos and characters."""
    connections: PositiveInt = 200
    """Maximum number of open connections; further connections are refused."""
    connections_per_address: PositiveInt = 24
    """Maximum number of open connections per network address; a trusted proxy is exempt."""
    trusted_proxy: str | None = None
    """Address (127.0.0.1) or network (10.0.0.0/8) of a reverse proxy. Its header X-Forwarded-For is used as the
    address of the visitor; by default the header is ignored."""
    variations: PositiveInt = 4
    """Maximum number of variations per request: motions side by side, with successive seeds (--samples in
    inference_batch.py)."""
    sentences: PositiveInt = 6
    """Maximum number of sentences per request."""
    seconds: PositiveFloat = 10.0
    """Maximum length of the motion of a sentence in seconds; the checkpoint may have a lower limit."""
    smplx_path: Path | None = None
    """SMPL-X model file, or the folder that contains SMPLX_NEUTRAL.npz; draws the SMPL-X body instead of the
    mannequin."""

    def __post_init__(self) -> None:
        if self.trusted_proxy is not None:
            parse_network(self.trusted_proxy)

    @property
    def capacity(self) -> int:
        """Maximum number of visitors served or waiting, and of downloads in preparation."""
        return self.running + self.waiting
