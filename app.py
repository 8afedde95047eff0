"""Web app: enter a sentence and watch the motion while it is being generated.

    python app.py
    python app.py --checkpoint runs/t2m --port 8080

Open http://127.0.0.1:8000 in a browser and enter one sentence per line; several lines make one continuous motion.
The browser draws the motion. The server generates it in chunks of frames, alternating between visitors, and exports
finished motions as files.
"""

import utils.interrupt  # noqa: F401

# isort: split

from models.pipeline import TextToMotion
from serving.connections import listen, make_server
from serving.endpoints import make_app
from serving.options import Options
from utils.config import parse_options
from utils.device import choose_device
from utils.errors import exit_on_input_error


def main(options: Options) -> None:
    listener = listen(options.host, options.port)
    device, _, reason = choose_device(options.device, "float32")
    print(reason)
    app = make_app(TextToMotion.from_pretrained(options.checkpoint, device), options)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"open http://{host}:{listener.getsockname()[1]} in a browser; press Ctrl-C to stop", flush=True)
    make_server(app, options).run(sockets=[listener])


def command() -> None:
    with exit_on_input_error():
        main(parse_options(Options, __doc__)[0])


if __name__ == "__main__":
    command()
