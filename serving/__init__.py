"""The web app behind app.py: a page, streams of motion, and downloads, with limits per visitor.

options.py      command-line options
places.py       limits per network address; addresses behind a proxy
requests.py     validation of a browser's request for motion
edits.py        edits of finished motions: a part made anew, loops
service.py      queue of visitors, generation in turn, finished motions
downloads.py    finished motions as files; film.py is the process that draws a video
connections.py  limits on the number and speed of connections
endpoints.py    HTTP endpoints
"""
