"""Web app: enter a sentence and watch the motion while it is being generated.

    python app.py
    python app.py --checkpoint runs/t2m --port 8080

Open http://127.0.0.1:8000 in a browser and enter one sentence per line; several lines make one continuous motion.
The browser draws the motion. The server generates it in chunks of frames, for several visitors at a time, and exports
finished motions as files. Programs use the HTTP API, which is described at /api/v1/docs.
"""

import utils.interrupt  # noqa: F401

# isort: split

import sys

from serving.options import Options
from utils.config import parse_options
from utils.errors import exit_on_input_error

if __name__ == "__main__":  # --help and invalid options end here, before the slow imports
    with exit_on_input_error():
        OPTIONS = parse_options(Options, __doc__)[0]

from models.pipeline import TextToMotion
from serving.connections import addresses, listen, make_server
from serving.endpoints import make_app
from utils.device import choose_device


def main(options: Options) -> None:
    listener = listen(options.host, options.port)
    device, _, reason = choose_device(options.device, "float32")
    print(reason)
    app = make_app(TextToMotion.from_pretrained(options.checkpoint, device), options)
    own, *others = addresses(options.host, listener.getsockname()[1])
    print(
        f"open {own} in a browser; press Ctrl-C to stop", *(f"other machines open {each}" for each in others), sep="\n"
    )
    sys.stdout.flush()
    make_server(app, options).run(sockets=[listener])


if __name__ == "__main__":
    with exit_on_input_error():
        main(OPTIONS)
